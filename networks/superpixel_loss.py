"""The losses that train the superpixel network. docs/method.md, section 1.

networks/reference.py has both in their plain form.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from networks.association import pool
from networks.cells import (
    CELL,
    NEIGHBOURS,
    cell_mixtures,
    cell_products,
    divide_sums,
    divide_sums_backward,
    full_precision,
    grid_size,
    neighbours,
    to_neighbours,
)


def pixel_coordinates(height: int, width: int, like: Tensor) -> Tensor:
    """(2, H, W): the column and the row of every pixel."""
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))


def scn_loss(
    q: Tensor, lab: Tensor, position_weight: float = 0.003, cell: int = CELL
) -> tuple[Tensor, Tensor, Tensor]:
    """How badly colours and coordinates are reconstructed from superpixel means.

    With x' = upsample(pool(x)):
    `0.005 * [sum_p ||lab' - lab|| / (B S) + (m / S) sum_p ||xy' - xy|| / B]`.

    Args:
        q: association map (B, 9, H, W).
        lab: CIE-Lab image in 0..1 (8-bit OpenCV Lab / 255), (B, 3, H, W).
        position_weight: m.
        cell: S, side of a grid cell, pixels.

    Returns:
        (total, colour_term, position_term), scalars; total is the sum of the two terms.
    """
    _check_lab(q, lab, cell)
    scale = 0.005 / (len(lab) * cell)
    colour, position = _ReconstructionErrors.apply(q, lab, cell)
    colour, position = colour * scale, position * (scale * position_weight)
    return colour + position, colour, position


def _check_lab(q: Tensor, lab: Tensor, cell: int) -> None:
    grid_size(q, cell)
    if lab.ndim != 4 or lab.shape[1] != 3 or q.shape[2:] != lab.shape[2:] or len(q) != len(lab):
        raise ValueError(f"lab {tuple(lab.shape)} does not fit q {tuple(q.shape)}")


def clustering_loss(
    q: Tensor,
    lab: Tensor,
    position_weight: float = 0.007,
    temperature: float = 0.02,
    rounds: int = 3,
    cell: int = CELL,
) -> Tensor:
    """How far the association map is from what clustering makes of it.

    Soft k-means goes on from t = q for some rounds. In each, with (c_j, z_j) = pool((lab, xy), t)
    the mean colour and position of superpixel j, pixel p belongs to the k-th of its nine
    neighbours with `t_k(p) = softmax_k(-(||lab(p) - c_k|| + m ||xy(p) - z_k||) / T)`.
    The loss is the cross entropy of q against t, a mean over pixels; t carries no gradient.
    Unlike a reconstruction (`scn_loss`), it cannot be lowered by mixing several superpixels.

    Args:
        q: association map (B, 9, H, W).
        lab: CIE-Lab image, its channels scaled as they shall count, (B, 3, H, W).
        position_weight: m, for a pixel's length.
        temperature: T; lower makes assignments harder.
        rounds: of clustering.
        cell: S, side of a grid cell, pixels.

    Returns:
        Scalar.
    """
    _check_lab(q, lab, cell)
    with torch.no_grad(), full_precision(q):
        target = q.to(lab.dtype)
        for _ in range(rounds):
            distances = _distances(target, lab, position_weight, cell)
            target = F.softmax(-distances / temperature, dim=1)
    return -(target * q.clamp_min(torch.finfo(q.dtype).tiny).log()).sum(1).mean()


def _distances(q: Tensor, lab: Tensor, position_weight: float, cell: int) -> Tensor:
    """From every pixel to its nine superpixels, infinite outside the grid: (B, 9, H, W)."""
    batch, _, height, width = lab.shape
    rows, columns = height // cell, width // cell
    xy = pixel_coordinates(height, width, lab).expand(batch, -1, -1, -1)
    features = torch.cat([lab, xy], dim=1)
    means = neighbours(pool(features, q, cell)).permute(4, 0, 3, 1, 2)  # (9, B, 5, h, w)
    within = neighbours(lab.new_ones(1, 1, rows, columns))[..., 0, :].movedim(3, 0)  # (9, 1, h, w)
    out = lab.new_empty(batch, NEIGHBOURS, height, width)
    by_cell = features.unflatten(3, (columns, cell)).unflatten(2, (rows, cell))
    out_by_cell = out.unflatten(3, (columns, cell)).unflatten(2, (rows, cell))
    for k in range(NEIGHBOURS):
        squares = (means[k, :, :, :, None, :, None] - by_cell).square_()
        colour, place = squares[:, :3].sum(1).sqrt_(), squares[:, 3:].sum(1).sqrt_()
        place = place.mul_(position_weight).add_(colour)
        inside_grid = within[k, :, :, None, :, None] > 0
        out_by_cell[:, k] = place.masked_fill_(~inside_grid, torch.inf)
    return out


class _ReconstructionErrors(torch.autograd.Function):
    """Sums over all pixels of ||lab' - lab|| and ||xy' - xy|| with x' = upsample(pool(x)).

    For the gradient one map of 11 channels is kept: the unit vectors of the errors (3 of colour, 2
    of position), which are the norms' gradients, and what is pooled (Lab, column, row, ones). The
    gradient of q mixes these channels, once.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, lab: Tensor, cell: int) -> tuple[Tensor, Tensor]:
        with full_precision(q):
            kept = _pooled_features(lab)
            units, features = kept.split((5, 6), dim=1)
            given = cell_products(features, q.to(lab.dtype), cell) / cell**2
            means, divisors = divide_sums(to_neighbours(given))
            mixed = cell_mixtures(neighbours(means), q.to(lab.dtype), cell)
            torch.sub(mixed, features[:, :5], out=units)
            colour, position = _norms_to_units(units[:, :3]), _norms_to_units(units[:, 3:])
            # What the reconstruction's gradient gives to the superpixels, for weights of 1.
            given = cell_products(units, q.to(lab.dtype), cell)
        ctx.save_for_backward(q, kept, given, means, divisors)
        ctx.cell = cell
        return colour, position

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, colour: Tensor, position: Tensor) -> tuple[Tensor | None, ...]:
        q, kept, given, means, divisors = ctx.saved_tensors
        grad_q = grad_lab = None
        with full_precision(q):
            weights = torch.stack([colour] * 3 + [position] * 2).unsqueeze(1)  # (5, 1)
            grad_means = to_neighbours(given * weights)
            grad_sums = divide_sums_backward(grad_means, means, divisors) / ctx.cell**2
            pooled = neighbours(grad_sums)  # (B, h, w, 6, 9)
            if ctx.needs_input_grad[0]:
                mixing = torch.cat([neighbours(means) * weights, pooled], dim=3)
                grad_q = cell_mixtures(mixing.mT, kept, ctx.cell)
            if ctx.needs_input_grad[1]:
                grad_lab = cell_mixtures(pooled[..., :3, :], q.to(means.dtype), ctx.cell)
                grad_lab -= kept[:, :3] * colour
        return grad_q, grad_lab, None


def _pooled_features(lab: Tensor) -> Tensor:
    """(B, 11, H, W): 5 channels left to be written, then Lab, column, row and ones."""
    batch, _, height, width = lab.shape
    out = lab.new_empty(batch, 11, height, width)
    out[:, 5:8] = lab
    out[:, 8:10] = pixel_coordinates(height, width, lab)
    out[:, 10] = 1
    return out


def _norms_to_units(vectors: Tensor) -> Tensor:
    """The sum of the norms of all vectors (B, D, H, W); in place, these become unit vectors."""
    # Far faster than torch.linalg.vector_norm, which is slow along any dimension but the last.
    norms = vectors[:, 0].square()
    for channel in vectors.unbind(1)[1:]:
        norms.addcmul_(channel, channel)
    total = norms.sqrt_().sum()
    vectors.div_(norms.clamp_min_(torch.finfo(norms.dtype).tiny ** 0.5).unsqueeze(1))
    return total
