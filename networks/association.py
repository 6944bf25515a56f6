"""The pixel-superpixel algebra: pool, upsample and hard labels. Everything else stands on it.

An association map `q` (B, 9, H, W) holds, for every pixel p, the probability that p belongs to the
k-th cell of the 3x3 neighbourhood of its own grid cell, row-major (0 top-left, 4 own cell, 8
bottom-right). Grid cells are `cell` pixels a side, so the grid is (h, w) = (H / cell, W / cell).
Neighbours outside the grid hold zeros. docs/method.md, section 1; the plain formulas are in
networks/reference.py.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from networks.cells import (
    CELL,
    NEIGHBOURS,
    cell_mixtures,
    cell_products,
    divide_sums,
    divide_sums_backward,
    floating,
    full_precision,
    grid_size,
    neighbours,
    to_neighbours,
)
from networks.reassembly import reassemble

__all__ = ["CELL", "NEIGHBOURS", "hard_labels", "pool", "reassemble", "upsample"]


def pool(features: Tensor, q: Tensor, cell: int = CELL) -> Tensor:
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
    grid_size(q, cell)
    if features.ndim != 4 or features.shape[0] != q.shape[0] or features.shape[2:] != q.shape[2:]:
        raise ValueError(f"features {tuple(features.shape)} do not fit q {tuple(q.shape)}")
    return _Pool.apply(floating(features, q), q, cell)


def upsample(superpixels: Tensor, q: Tensor, cell: int = CELL) -> Tensor:
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
    grid = grid_size(q, cell)
    fits = superpixels.ndim == 4 and superpixels.shape[0] == q.shape[0]
    if not fits or tuple(superpixels.shape[2:]) != grid:
        raise ValueError(
            f"superpixels {tuple(superpixels.shape)} do not fit q {tuple(q.shape)} at cell {cell}"
        )
    return _Upsample.apply(floating(superpixels, q), q, cell)


def hard_labels(q: Tensor, cell: int = CELL) -> Tensor:
    """The most probable superpixel of every pixel, among the neighbours inside the grid.

    Args:
        q: association map (B, 9, H, W).
        cell: side of a grid cell, pixels.

    Returns:
        (B, H, W) int64 superpixel ids, row-major over the grid.

    Raises:
        ValueError: q is no association map of such cells.
    """
    h, w = grid_size(q, cell)
    inside = neighbours(torch.ones(1, 1, h, w, device=q.device))[..., 0, :].movedim(3, 1)
    inside = inside.repeat_interleave(cell, 2).repeat_interleave(cell, 3)  # (1, 9, H, W)
    best = q.masked_fill(inside == 0, -1).argmax(1)
    row = torch.arange(q.shape[2], device=q.device)[:, None] // cell
    column = torch.arange(q.shape[3], device=q.device) // cell
    return (row + best // 3 - 1) * w + column + best % 3 - 1


class _Pool(torch.autograd.Function):
    """`pool`; of full-resolution maps, only its inputs are kept for the gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, q: Tensor, cell: int) -> Tensor:
        with full_precision(q):
            q = q.to(features.dtype)
            given = cell_products(features, q, cell, ones=True) / cell**2
            means, divisors = divide_sums(to_neighbours(given))
        ctx.save_for_backward(features, q, means, divisors)
        ctx.cell = cell
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
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
    def forward(ctx: FunctionCtx, superpixels: Tensor, q: Tensor, cell: int) -> Tensor:
        q = q.to(superpixels.dtype)
        ctx.save_for_backward(superpixels, q)
        ctx.cell = cell
        with full_precision(q):
            return cell_mixtures(neighbours(superpixels), q, cell)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        superpixels, q = ctx.saved_tensors
        grad_superpixels = grad_q = None
        with full_precision(q):
            if ctx.needs_input_grad[0]:
                grad_superpixels = to_neighbours(cell_products(grad, q, ctx.cell))
            if ctx.needs_input_grad[1]:
                grad_q = cell_mixtures(neighbours(superpixels).mT, grad, ctx.cell)
        return grad_superpixels, grad_q, None
