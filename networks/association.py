"""The pixel-superpixel algebra: pool, upsample, reassemble. Everything else stands on it.

An association map `q` (B, 9, H, W) holds, for every pixel p, the probability that p belongs to the
k-th cell of the 3x3 neighbourhood of its own grid cell, row-major (0 top-left, 4 own cell, 8
bottom-right). Grid cells are `cell` pixels a side, so the grid is (h, w) = (H / cell, W / cell).
Neighbours outside the grid hold zeros. METHOD section 1.

All pixels of a cell share the same nine neighbours. Pooling, upsampling and their gradients are
made of two operations a cell (`cell_products`, `cell_mixtures`), and a fold or unfold of the 3x3
neighbourhood on the grid, where there is little data. No shifted copies of full-resolution maps
are made, and of these only the inputs are kept for the gradient.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

NEIGHBOURS = 9
EPSILON = 1e-8
"""Added to the mean association of a superpixel before dividing by it."""

Tile = tuple[slice, slice]
"""Images and rows of the grid, of a map that is (B, ., H, W)."""

MIX_PIXELS = 2**17
"""Pixels that `cell_mixtures` takes at a time on a CPU: what mostly stays in its cache."""

TILE_VALUES = 2**20
"""Values of a map that `reassemble` takes at a time on a CPU: few enough for its cache, but enough
that threads do not mostly wait for each other."""

TILE_PIXELS_CPU, TILE_PIXELS_GPU = 2**16, 2**20
"""Pixels gathered at a time: few need little memory, but a GPU must have enough to do."""


def _grid(q: Tensor, cell: int) -> tuple[int, int]:
    """The grid (h, w) of an association map, its shape checked."""
    if q.ndim != 4 or q.shape[1] != NEIGHBOURS:
        raise ValueError(f"q must be (B, 9, H, W), got {tuple(q.shape)}")
    height, width = q.shape[2:]
    if cell < 1 or height % cell or width % cell or not height or not width:
        raise ValueError(f"q is {height} x {width}; both must be multiples of the cell, {cell}")
    return height // cell, width // cell


def _tiles(x: Tensor, cell: int, limit: int) -> Iterator[Tile]:
    """Cut (B, D, H, W) into tiles of at most about `limit` pixels: images, or strips of one image.

    So the cells of a tile, in a tensor (B, h, w, ..), can be flattened in place.
    """
    batch, _, height, width = x.shape
    images = min(batch, max(1, limit // (height * width)))
    rows = min(height // cell, max(1, limit // (cell * width)))
    for first in range(0, batch, images):
        for top in range(0, height // cell, rows):
            yield slice(first, first + images), slice(top, top + rows)


def _by_cell(x: Tensor, cell: int, tile: Tile) -> Tensor:
    """A tile of (B, D, H, W) as a view (D, b, rows, w, cell, cell)."""
    height, width = x.shape[2:]
    split = x.unflatten(3, (width // cell, cell)).unflatten(2, (height // cell, cell))
    return split[tile[0], :, tile[1]].permute(1, 0, 2, 4, 3, 5)


def _gathered(x: Tensor, cell: int, ones: bool = False) -> Iterator[tuple[Tile, Tensor]]:
    """Tile by tile, the pixels of each cell: (cells, D, n) with n = cell^2, from (B, D, H, W).

    Every tile overwrites the one before. Channels lie outermost in memory: copying then moves
    pixels within one channel only, which is faster, and matrix products do not mind.

    Args:
        x: (B, D, H, W).
        cell: side of a grid cell, pixels.
        ones: append a channel of ones, whose products are sums.
    """
    limit = TILE_PIXELS_CPU if x.device.type == "cpu" else TILE_PIXELS_GPU
    buffer = x.new_empty(0)
    depth = x.shape[1]
    for tile in _tiles(x, cell, limit):
        view = _by_cell(x, cell, tile)
        if buffer.shape[1:] != view.shape[1:]:
            buffer = x.new_ones(depth + ones, *view.shape[1:])
        buffer[:depth].copy_(view)
        yield tile, buffer.flatten(4).flatten(1, 3).transpose(0, 1)


def _elementwise(x: Tensor) -> bool:
    """Whether to mix by a few passes over whole maps rather than by matrix products.

    Passes need no copies in another order. But on a GPU each costs a trip to memory, and half
    precision would be rounded after every one of them.
    """
    return x.device.type == "cpu" and x.element_size() >= 4


def cell_products(x: Tensor, y: Tensor, cell: int, ones: bool = False) -> Tensor:
    """Products of channels, summed over the pixels of each cell.

    Args:
        x: (B, D, H, W).
        y: (B, E, H, W).
        cell: side of a grid cell, pixels.
        ones: append a channel of ones to x.

    Returns:
        (B, h, w, D, E), with `ones` (B, h, w, D + 1, E).
    """
    batch, depth, height, width = x.shape
    out = x.new_empty(batch, height // cell, width // cell, depth + ones, y.shape[1])
    pairs = zip(_gathered(x, cell, ones), _gathered(y, cell), strict=True)
    for (tile, left), (_, right) in pairs:
        torch.bmm(left, right.mT, out=out[tile].flatten(0, 2))
    return out


def cell_mixtures(weights: Tensor, x: Tensor, cell: int, ones: bool = False) -> Tensor:
    """Mix channels with weights that are the same for all pixels of a cell.

    Args:
        weights: (B, h, w, E, D), with `ones` (B, h, w, E, D + 1).
        x: (B, D, H, W).
        cell: side of a grid cell, pixels.
        ones: append a channel of ones to x.

    Returns:
        (B, E, H, W).
    """
    mix = mix_rows if _elementwise(x) else mix_gathered
    return mix(weights, x, cell, ones)


def mix_rows(weights: Tensor, x: Tensor, cell: int, ones: bool = False) -> Tensor:
    """`cell_mixtures`, whole rows of pixels at a time."""
    depth, height = x.shape[1:3]
    out = x.new_empty(len(x), weights.shape[3], *x.shape[2:])
    rows_in, rows_out = (map_.unflatten(2, (height // cell, cell)) for map_ in (x, out))
    for images, rows in _tiles(x, cell, MIX_PIXELS):
        # (b, E, D, rows, 1, W): a cell's weights beside each other for its columns.
        spread = weights[images, rows].permute(0, 3, 4, 1, 2).repeat_interleave(cell, 4)
        spread = spread.unsqueeze(4)
        mixed, values = rows_out[images, :, rows], rows_in[images, :, rows]
        if ones:
            mixed.copy_(spread[:, :, depth].expand_as(mixed))
        else:
            torch.mul(values[:, 0, None], spread[:, :, 0], out=mixed)
        for channel in range(0 if ones else 1, depth):
            mixed.addcmul_(values[:, channel, None], spread[:, :, channel])
        del spread  # before the next is made
    return out


def mix_gathered(weights: Tensor, x: Tensor, cell: int, ones: bool = False) -> Tensor:
    """`cell_mixtures`, one matrix product a cell."""
    out = x.new_empty(len(x), weights.shape[3], *x.shape[2:])
    for tile, pixels in _gathered(x, cell, ones):
        view = _by_cell(out, cell, tile).movedim(0, 3)  # (b, rows, w, E, cell, cell)
        view.copy_(torch.bmm(weights[tile].flatten(0, 2), pixels).reshape(view.shape))
    return out


def neighbours(grid: Tensor) -> Tensor:
    """The 3x3 neighbourhood of every cell: (B, D, h, w) -> (B, h, w, D, 9), zeros outside."""
    batch, depth, h, w = grid.shape
    columns = F.unfold(grid, kernel_size=3, padding=1)  # (B, D * 9, h * w)
    return columns.reshape(batch, depth, NEIGHBOURS, h, w).permute(0, 3, 4, 1, 2)


def to_neighbours(given: Tensor) -> Tensor:
    """The adjoint of `neighbours`: what cells give is summed: (B, h, w, D, 9) -> (B, D, h, w)."""
    batch, h, w, depth, _ = given.shape
    columns = given.permute(0, 3, 4, 1, 2).reshape(batch, depth * NEIGHBOURS, h * w)
    return F.fold(columns, (h, w), kernel_size=3, padding=1)


def divide_sums(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums with the weights last, (B, D + 1, h, w) -> means (B, D, h, w), divisors."""
    divisors = sums[:, -1:] + EPSILON
    return sums[:, :-1] / divisors, divisors


def divide_sums_backward(grad: Tensor, means: Tensor, divisors: Tensor) -> Tensor:
    """Gradient of `divide_sums` with respect to the sums: (B, D + 1, h, w)."""
    grad = grad / divisors
    return torch.cat([grad, -(grad * means).sum(1, keepdim=True)], dim=1)


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
    return _Pool.apply(features, q, cell)


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
    return _Upsample.apply(superpixels, q, cell)


class _Pool(torch.autograd.Function):
    """`pool`; of full-resolution maps, only its inputs are kept for the gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, q: Tensor, cell: int) -> Tensor:  # noqa: D102
        with full_precision(q):
            q = q.to(features.dtype)
            given = cell_products(features, q, cell, ones=True) / cell**2
            means, divisors = divide_sums(to_neighbours(given))
        ctx.save_for_backward(features, q, means, divisors)
        ctx.cell = cell
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        features, q, means, divisors = ctx.saved_tensors
        grad_features = grad_q = None
        with full_precision(q):
            weights = neighbours(divide_sums_backward(grad, means, divisors) / ctx.cell**2)
            if ctx.needs_input_grad[0]:
                grad_features = cell_mixtures(weights[..., :-1, :], q, ctx.cell)
            if ctx.needs_input_grad[1]:
                grad_q = cell_mixtures(weights.mT, features, ctx.cell, ones=True)
        return grad_features, grad_q, None


class _Upsample(torch.autograd.Function):
    """`upsample`; of full-resolution maps, only q is kept for the gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, superpixels: Tensor, q: Tensor, cell: int) -> Tensor:  # noqa: D102
        q = q.to(superpixels.dtype)
        ctx.save_for_backward(superpixels, q)
        ctx.cell = cell
        with full_precision(q):
            return cell_mixtures(neighbours(superpixels), q, cell)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        superpixels, q = ctx.saved_tensors
        grad_superpixels = grad_q = None
        with full_precision(q):
            if ctx.needs_input_grad[0]:
                grad_superpixels = to_neighbours(cell_products(grad, q, ctx.cell))
            if ctx.needs_input_grad[1]:
                grad_q = cell_mixtures(neighbours(superpixels).mT, grad, ctx.cell)
        return grad_superpixels, grad_q, None


def full_precision(x: Tensor) -> torch.autocast:
    """Autocast off: these products are made in the dtype of their inputs."""
    return torch.autocast(x.device.type, enabled=False)


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
        (B, D, h, w).

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
    """`reassemble`, by shifts of the map or by banded matrices; only the inputs are kept."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, kernels: Tensor) -> Tensor:  # noqa: D102
        kernels = kernels.to(features.dtype)
        ctx.save_for_backward(features, kernels)
        with full_precision(features):
            return _reassemble(features, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: D102
        features, kernels = ctx.saved_tensors
        grad_features = grad_kernels = None
        with full_precision(features):
            if ctx.needs_input_grad[0]:
                grad_features = _reassemble(grad, _adjoint(kernels))
            if ctx.needs_input_grad[1]:
                by_shifts = _elementwise(features)
                gradient = shifted_gradient if by_shifts else banded_gradient
                grad_kernels = gradient(grad, features)
        return grad_features, grad_kernels


def _reassemble(features: Tensor, kernels: Tensor) -> Tensor:
    mix = shifted_product if _elementwise(features) else banded_product
    return mix(features, kernels)


def _adjoint(kernels: Tensor) -> Tensor:
    """Kernels of the transposed map: K'_k(p) = K_{8-k}(p + d_k), zero outside."""
    h, w = kernels.shape[2:]
    padded = F.pad(kernels, (1, 1, 1, 1))
    shifted = [padded[:, 8 - k, k // 3 : k // 3 + h, k % 3 : k % 3 + w] for k in range(NEIGHBOURS)]
    return torch.stack(shifted, dim=1)


def _pieces(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut (B, D, h, w) into (images, channels) that fit the cache."""
    batch, depth, h, w = x.shape
    step = max(1, TILE_VALUES // (h * w))
    for image in range(batch):
        for first in range(0, depth, step):
            yield slice(image, image + 1), slice(first, first + step)


def _flat_shifts(x: Tensor) -> list[Tensor]:
    """The nine shifts of (b, D, h, w): views (b, D, h (w + 2)) of one padded copy.

    Rows of the copy are followed by two zeros, so a shift of the map is an offset in memory, and
    passes over it are long. The last two positions of every row of a view mean nothing.
    """
    h, w = x.shape[2:]
    flat = F.pad(x, (1, 1, 1, 2)).flatten(2)
    offsets = [row * (w + 2) + column for row in range(3) for column in range(3)]
    return [flat[..., offset : offset + h * (w + 2)] for offset in offsets]


def shifted_product(features: Tensor, kernels: Tensor) -> Tensor:
    """(B, D, h, w) mixed with kernels (B, 9, h, w): one pass over the map for each neighbour."""
    h, w = features.shape[2:]
    out = torch.empty_like(features)
    weights = F.pad(kernels, (0, 2)).flatten(2).unsqueeze(2)  # (B, 9, 1, h (w + 2))
    for images, channels in _pieces(features):
        shifts = _flat_shifts(features[images, channels])
        mixed = shifts[0] * weights[images, 0]
        for k in range(1, NEIGHBOURS):
            mixed.addcmul_(shifts[k], weights[images, k])
        out[images, channels] = mixed.unflatten(2, (h, w + 2))[..., :w]
    return out


def shifted_gradient(grad: Tensor, features: Tensor) -> Tensor:
    """The gradient of `shifted_product` with respect to its kernels: (B, 9, h, w)."""
    batch, _, h, w = features.shape
    out = features.new_zeros(batch, NEIGHBOURS, h * (w + 2))
    for images, channels in _pieces(features):
        centre = F.pad(grad[images, channels], (0, 2)).flatten(2)
        for k, shift in enumerate(_flat_shifts(features[images, channels])):
            out[images, k] += (shift * centre).sum(1)
    return out.unflatten(2, (h, w + 2))[..., :w]


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


def banded_product(features: Tensor, kernels: Tensor) -> Tensor:
    """(B, D, h, w) mixed with kernels (B, 9, h, w): one matrix product a row of the image.

    With channels innermost, three neighbouring rows of the features are one (3w x D) matrix that
    already lies in memory, and the kernels of a row are a (w x 3w) matrix with nine diagonals.
    """
    batch, depth, h, w = features.shape
    out = features.new_empty(batch, h, w, depth)
    bands = _to_bands(kernels)
    for image_bands, windows, image_out in zip(bands, _row_windows(features), out, strict=True):
        torch.bmm(image_bands, windows, out=image_out)
    return out.permute(0, 3, 1, 2)


def banded_gradient(grad: Tensor, features: Tensor) -> Tensor:
    """The gradient of `banded_product` with respect to its kernels: (B, 9, h, w)."""
    rows = grad.permute(0, 2, 3, 1).contiguous()  # (B, h, w, D)
    products = [
        torch.bmm(image_rows, windows.transpose(1, 2))
        for image_rows, windows in zip(rows, _row_windows(features), strict=True)
    ]
    return _from_bands(torch.stack(products))
