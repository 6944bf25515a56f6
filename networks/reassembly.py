"""Reassembly, the last step of DCR: every position is mixed with its neighbours by its own kernel.

docs/method.md, section 2; networks/reference.py has the same in its plain form. Here it is made of
shifts of the map that are offsets in memory (on a CPU), or of banded matrices (on a GPU, and in
half precision).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from networks.cells import NEIGHBOURS, floating, full_precision, grid_size, prefers_passes

TILE_VALUES = 2**20
"""Values of a map taken at a time on a CPU: few enough for its cache, but enough that threads do
not mostly wait for each other."""


def reassemble(features: Tensor, kernels: Tensor) -> Tensor:
    """Mix every position with its eight neighbours by a 3x3 kernel of its own.

    `F'(p) = sum_k K_k(p) F(p + d_k)`, one kernel a position, shared by all channels: the same as
    `networks.association.upsample` with cells of one pixel.

    Args:
        features: (B, D, h, w).
        kernels: (B, 9, h, w), row-major over the 3x3 neighbourhood.

    Returns:
        (B, D, h, w).

    Raises:
        ValueError: the shapes do not fit.
    """
    grid_size(kernels, 1)
    fits = features.ndim == 4 and features.shape[0] == kernels.shape[0]
    if not fits or features.shape[2:] != kernels.shape[2:]:
        raise ValueError(
            f"features {tuple(features.shape)} do not fit kernels {tuple(kernels.shape)}"
        )
    return _Reassemble.apply(floating(features, kernels), kernels)


class _Reassemble(torch.autograd.Function):
    """`reassemble`, by shifts of the map or by banded matrices; only the inputs are kept."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, kernels: Tensor) -> Tensor:
        kernels = kernels.to(features.dtype)
        ctx.save_for_backward(features, kernels)
        with full_precision(features):
            return _reassemble(features, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        features, kernels = ctx.saved_tensors
        grad_features = grad_kernels = None
        with full_precision(features):
            if ctx.needs_input_grad[0]:
                grad_features = _reassemble(grad, _adjoint(kernels))
            if ctx.needs_input_grad[1]:
                gradient = shifted_gradient if prefers_passes(features) else banded_gradient
                grad_kernels = gradient(grad, features)
        return grad_features, grad_kernels


def _reassemble(features: Tensor, kernels: Tensor) -> Tensor:
    mix = shifted_product if prefers_passes(features) else banded_product
    return mix(features, kernels)


def _adjoint(kernels: Tensor) -> Tensor:
    """Kernels of the transposed map: K'_k(p) = K_{8-k}(p + d_k), zero outside."""
    batch, _, h, w = kernels.shape
    padded = F.pad(kernels.flip(1), (1, 1, 1, 1)).contiguous()
    image, channel, row, column = padded.stride()
    # A step along k goes to the next channel and, in it, to the next row or column.
    steps = (image, 3 * channel + row, channel + column, row, column)
    return padded.as_strided((batch, 3, 3, h, w), steps).reshape(kernels.shape)


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
    """Kernels (B, 9, h, w) as matrices (B, h + 2, w, 3w); those of the last two rows are zero.

    Row x of matrix y mixes rows y - 1 .. y + 1 of the image.
    """
    batch, _, h, w = kernels.shape
    # One column beyond the grid on either side.
    bands = kernels.new_zeros(batch, h + 2, 3, w, w + 2)
    for dx in range(3):
        diagonal = torch.diagonal(bands[:, :h], offset=dx, dim1=3, dim2=4)  # (B, h, 3, w)
        diagonal.copy_(kernels[:, dx::3].transpose(1, 2))
    return bands[..., 1 : w + 1].transpose(2, 3).reshape(batch, h + 2, w, 3 * w)


def _from_bands(bands: Tensor) -> Tensor:
    """The nine diagonals of (B, h, w, 3w) matrices as kernels (B, 9, h, w)."""
    batch, h, w, _ = bands.shape
    padded = F.pad(bands.reshape(batch, h, w, 3, w), (1, 1))
    columns = [torch.diagonal(padded, offset=dx, dim1=2, dim2=4) for dx in range(3)]
    return torch.stack(columns, dim=3).permute(0, 2, 3, 1, 4).reshape(batch, NEIGHBOURS, h, w)


def _row_windows(features: Tensor) -> Tensor:
    """Every row with its upper and lower neighbours, as a view (B (h + 2) - 2, 3w, D).

    An image has two rows of zeros more, so windows of all images follow each other in memory; the
    last two of an image run into the next one and mean nothing.
    """
    batch, depth, h, w = features.shape
    padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 0, 0, 1, 1)).contiguous()
    return padded.as_strided((batch * (h + 2) - 2, 3 * w, depth), (w * depth, depth, 1))


def banded_product(features: Tensor, kernels: Tensor) -> Tensor:
    """(B, D, h, w) mixed with kernels (B, 9, h, w): one matrix product a row of the image.

    With channels innermost, three neighbouring rows of the features are one (3w x D) matrix that
    already lies in memory, and the kernels of a row are a (w x 3w) matrix with nine diagonals.
    """
    batch, depth, h, w = features.shape
    out = features.new_empty(batch, h + 2, w, depth)
    torch.bmm(
        _to_bands(kernels).flatten(0, 1)[:-2], _row_windows(features), out=out.flatten(0, 1)[:-2]
    )
    mixed = out[:, :h].permute(0, 3, 1, 2)
    return mixed.contiguous(memory_format=torch.channels_last)  # else every layer after it copies


def banded_gradient(grad: Tensor, features: Tensor) -> Tensor:
    """The gradient of `banded_product` with respect to its kernels: (B, 9, h, w)."""
    batch, _, h, w = features.shape
    rows = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, 0, 0, 2)).contiguous()  # (B, h + 2, w, D)
    out = features.new_empty(batch, h + 2, w, 3 * w)
    windows = _row_windows(features).transpose(1, 2)
    torch.bmm(rows.flatten(0, 1)[:-2], windows, out=out.flatten(0, 1)[:-2])
    return _from_bands(out[:, :h])
