"""The pixel-superpixel algebra: pool, upsample, reassemble. Everything else stands on it.

An association map `q` (B, 9, H, W) holds, for every pixel p, the probability that p belongs to the
k-th cell of the 3x3 neighbourhood of its own grid cell, row-major (0 top-left, 4 own cell, 8
bottom-right). Grid cells are `cell` pixels a side, so the grid is (h, w) = (H / cell, W / cell).
Neighbours outside the grid hold zeros. METHOD section 1.

All pixels of a cell share the same nine neighbours. Pooling and upsampling therefore are one small
matrix product per cell, (9 x cell^2) by (cell^2 x D), and a fold or unfold of the 3x3 neighbourhood
on the grid, where there is little data: no shifted copies of full-resolution maps are made.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 9
EPSILON = 1e-8
"""Added to the mean association of a superpixel before dividing by it."""


def _grid(q: Tensor, cell: int) -> tuple[int, int]:
    """The grid (h, w) of an association map, its shape checked."""
    if q.ndim != 4 or q.shape[1] != NEIGHBOURS:
        raise ValueError(f"q must be (B, 9, H, W), got {tuple(q.shape)}")
    height, width = q.shape[2:]
    if cell < 1 or height % cell or width % cell or not height or not width:
        raise ValueError(f"q is {height} x {width}; both must be multiples of the cell, {cell}")
    return height // cell, width // cell


def to_cells(x: Tensor, cell: int = 16) -> Tensor:
    """Gather the pixels of each grid cell: (B, D, H, W) -> (B, h, w, D, cell * cell)."""
    batch, depth, height, width = x.shape
    h, w = height // cell, width // cell
    blocks = x.reshape(batch, depth, h, cell, w, cell).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(batch, h, w, depth, cell * cell)


def from_cells(cells: Tensor, cell: int = 16) -> Tensor:
    """The inverse of `to_cells`: (B, h, w, D, cell * cell) -> (B, D, H, W)."""
    batch, h, w, depth, _ = cells.shape
    blocks = cells.reshape(batch, h, w, depth, cell, cell).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(batch, depth, h * cell, w * cell)


def pool_cells(features: Tensor, q: Tensor) -> Tensor:
    """`pool` on gathered cells: (B, h, w, D, n) and (B, h, w, 9, n) -> (B, D, h, w)."""
    batch, h, w, depth, pixels = features.shape
    sums = features @ q.transpose(-1, -2)  # (B, h, w, D, 9): what a cell gives its neighbours
    weights = q.sum(-1).unsqueeze(-2)
    given = torch.cat([sums, weights], dim=-2) / pixels
    given = given.permute(0, 3, 4, 1, 2).reshape(batch, (depth + 1) * NEIGHBOURS, h * w)
    received = F.fold(given, (h, w), kernel_size=3, padding=1)
    return received[:, :depth] / (received[:, depth:] + EPSILON)


def upsample_cells(superpixels: Tensor, q: Tensor) -> Tensor:
    """`upsample` to gathered cells: (B, D, h, w) and (B, h, w, 9, n) -> (B, h, w, D, n)."""
    batch, depth, h, w = superpixels.shape
    neighbours = F.unfold(superpixels, kernel_size=3, padding=1)  # (B, D * 9, h * w)
    neighbours = neighbours.reshape(batch, depth, NEIGHBOURS, h, w).permute(0, 3, 4, 1, 2)
    return neighbours @ q


def pool(features: Tensor, q: Tensor, cell: int = 16) -> Tensor:
    """Average pixel features over each superpixel, weighted by the association map.

    `s_j = sum_p Q_j(p) F(p) / (sum_p Q_j(p) + 1e-8)`, the sums as means over a cell.

    Args:
        features: (B, D, H, W).
        q: association map (B, 9, H, W), H and W multiples of `cell`.
        cell: side of a grid cell, pixels.

    Returns:
        Superpixel features (B, D, h, w).

    Raises:
        ValueError: the shapes do not fit.
    """
    _grid(q, cell)
    if features.ndim != 4 or features.shape[0] != q.shape[0] or features.shape[2:] != q.shape[2:]:
        raise ValueError(f"features {tuple(features.shape)} do not fit q {tuple(q.shape)}")
    return pool_cells(to_cells(features, cell), to_cells(q, cell))


def upsample(superpixels: Tensor, q: Tensor, cell: int = 16) -> Tensor:
    """Give every pixel the mixture of its nine neighbouring superpixels.

    `F'(p) = sum_k Q_k(p) s_{j_k(p)}`.

    Args:
        superpixels: (B, D, h, w).
        q: association map (B, 9, H, W) with H = h * cell, W = w * cell.
        cell: side of a grid cell, pixels.

    Returns:
        Pixel features (B, D, H, W).

    Raises:
        ValueError: the shapes do not fit.
    """
    grid = _grid(q, cell)
    fits = superpixels.ndim == 4 and superpixels.shape[0] == q.shape[0]
    if not fits or tuple(superpixels.shape[2:]) != grid:
        raise ValueError(
            f"superpixels {tuple(superpixels.shape)} do not fit q {tuple(q.shape)} at cell {cell}"
        )
    return from_cells(upsample_cells(superpixels, to_cells(q, cell)), cell)


def hard_labels(q: Tensor, cell: int = 16) -> Tensor:
    """The most probable superpixel of every pixel, among the neighbours inside the grid.

    Args:
        q: association map (B, 9, H, W).
        cell: side of a grid cell, pixels.

    Returns:
        (B, H, W) int64 superpixel ids, row-major over the grid.
    """
    h, w = _grid(q, cell)
    ids = torch.arange(h * w, device=q.device).reshape(1, 1, h, w)
    # Ids start at 1 here so that unfold's zero padding marks the outside.
    neighbours = F.unfold((ids + 1).double(), kernel_size=3, padding=1).long()
    neighbours = neighbours.reshape(1, NEIGHBOURS, h, w)
    neighbours = neighbours.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    best = q.masked_fill(neighbours == 0, -1).argmax(1, keepdim=True)
    return neighbours.expand(q.shape).gather(1, best)[:, 0] - 1


def reassemble(features: Tensor, kernels: Tensor) -> Tensor:
    """Mix every position with its eight neighbours by a 3x3 kernel of its own.

    The same as `upsample` with cells of one pixel: `F'(p) = sum_k K_k(p) F(p + d_k)`, one kernel a
    position, shared by all channels.

    Args:
        features: (B, D, h, w).
        kernels: (B, 9, h, w), row-major over the 3x3 neighbourhood.

    Returns:
        (B, D, h, w), channels_last in memory.

    Raises:
        ValueError: the shapes do not fit.
    """
    _grid(kernels, 1)
    if (
        features.ndim != 4
        or features.shape[0] != kernels.shape[0]
        or features.shape[2:] != kernels.shape[2:]
    ):
        raise ValueError(
            f"features {tuple(features.shape)} do not fit kernels {tuple(kernels.shape)}"
        )
    return _Reassemble.apply(features, kernels)


class _Reassemble(torch.autograd.Function):
    """`reassemble` as one banded matrix product a row of the image.

    With channels innermost, three neighbouring rows of the features are one (3w x D) matrix that
    already lies in memory, and the kernels of a row are a (w x 3w) matrix with nine diagonals.
    """

    @staticmethod
    def forward(ctx, features: Tensor, kernels: Tensor) -> Tensor:  # noqa: ANN001, D102
        kernels = kernels.to(features.dtype)
        ctx.save_for_backward(features, kernels)
        return _banded_product(_to_bands(kernels), features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN001, D102
        features, kernels = ctx.saved_tensors
        grad_features = grad_kernels = None
        if ctx.needs_input_grad[0]:
            grad_features = _banded_product(_to_bands(_adjoint(kernels)), grad)
        if ctx.needs_input_grad[1]:
            grad_kernels = _from_bands(_band_gradient(grad, features))
        return grad_features, grad_kernels


def _adjoint(kernels: Tensor) -> Tensor:
    """Kernels of the transposed map: K'_k(p) = K_{8-k}(p + d_k), zero outside."""
    h, w = kernels.shape[2:]
    padded = F.pad(kernels, (1, 1, 1, 1))
    shifted = [padded[:, 8 - k, k // 3 : k // 3 + h, k % 3 : k % 3 + w] for k in range(NEIGHBOURS)]
    return torch.stack(shifted, dim=1)


def _to_bands(kernels: Tensor) -> Tensor:
    """Kernels (B, 9, h, w) as matrices (B, h, w, 3w): row x of matrix y mixes rows y-1 .. y+1."""
    batch, _, h, w = kernels.shape
    bands = kernels.new_zeros(batch, h, 3, w, w + 2)  # one column beyond the grid on either side
    for dx in range(3):
        diagonal = torch.diagonal(bands, offset=dx, dim1=3, dim2=4)  # (B, h, 3, w)
        diagonal.copy_(kernels[:, dx::3].transpose(1, 2))
    return bands[..., 1 : w + 1].transpose(2, 3).reshape(batch, h, w, 3 * w)


def _from_bands(bands: Tensor) -> Tensor:
    """The nine diagonals of (B, h, w, 3w) matrices as kernels (B, 9, h, w)."""
    batch, h, w, _ = bands.shape
    padded = F.pad(bands.reshape(batch, h, w, 3, w), (1, 1))
    columns = [torch.diagonal(padded, offset=dx, dim1=2, dim2=4) for dx in range(3)]
    return torch.stack(columns, dim=3).permute(0, 2, 3, 1, 4).reshape(batch, NEIGHBOURS, h, w)


def _row_windows(features: Tensor) -> list[Tensor]:
    """For each image, its rows with their upper and lower neighbours: views (h, 3w, D)."""
    _, depth, h, w = features.shape
    padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 0, 0, 1, 1)).contiguous()
    return [
        image.as_strided((h, 3 * w, depth), (w * depth, depth, 1), image.storage_offset())
        for image in padded
    ]


def _banded_product(bands: Tensor, features: Tensor) -> Tensor:
    """(B, h, w, 3w) by (B, D, h, w) -> (B, D, h, w), channels_last."""
    batch, depth, h, w = features.shape
    out = features.new_empty(batch, h, w, depth)
    for image_bands, windows, image_out in zip(bands, _row_windows(features), out, strict=True):
        torch.bmm(image_bands, windows, out=image_out)
    return out.permute(0, 3, 1, 2)


def _band_gradient(grad: Tensor, features: Tensor) -> Tensor:
    """The gradient of `_banded_product` with respect to its bands: (B, h, w, 3w)."""
    rows = grad.permute(0, 2, 3, 1).contiguous()  # (B, h, w, D)
    products = [
        torch.bmm(image_rows, windows.transpose(1, 2))
        for image_rows, windows in zip(rows, _row_windows(features), strict=True)
    ]
    return torch.stack(products)
