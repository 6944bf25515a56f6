"""What pool, upsample and the losses of superpixels are made of: sums and mixtures, cell by cell.

All pixels of a cell share the same nine neighbours. So pooling, upsampling and their gradients are
two operations a cell (`cell_products`, `cell_mixtures`), and a fold or unfold of the 3x3
neighbourhood on the grid, where there is little data. No shifted copies of full-resolution maps
are made. networks/reference.py has the same in its plain form.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 16
"""S: side of a superpixel grid cell, pixels."""

NEIGHBOURS = 9
"""Cells of the 3x3 neighbourhood of a cell, itself included."""

EPSILON = 1e-8
"""Added to the mean association of a superpixel before dividing by it."""

Tile = tuple[slice, slice]
"""Images and rows of the grid, of a map that is (B, ., H, W)."""

MIX_PIXELS = 2**17
"""Pixels that `cell_mixtures` takes at a time on a CPU: what mostly stays in its cache."""

TILE_PIXELS_CPU, TILE_PIXELS_GPU = 2**16, 2**22
"""Pixels gathered at a time. Few keep memory small; a GPU needs more of them to be busy."""


def grid_size(q: Tensor, cell: int) -> tuple[int, int]:
    """The grid (h, w) of an association map (B, 9, h * cell, w * cell).

    Raises:
        ValueError: it is no such map.
    """
    if q.ndim != 4 or q.shape[1] != NEIGHBOURS:
        raise ValueError(f"q must be (B, 9, H, W), got {tuple(q.shape)}")
    if not len(q):
        raise ValueError(f"q {tuple(q.shape)}: there is no image in the batch")
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


def prefers_passes(x: Tensor) -> bool:
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
    mix = mix_rows if prefers_passes(x) else mix_gathered
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


def full_precision(x: Tensor) -> AbstractContextManager:
    """Autocast off: these products are made in the dtype of their inputs."""
    if not torch.amp.is_autocast_available(x.device.type):  # such as meta
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def floating(x: Tensor, like: Tensor) -> Tensor:
    """Integers, such as the pixels of a photograph, in the dtype of `like`; others as they are."""
    return x if x.is_floating_point() else x.to(like.dtype)
