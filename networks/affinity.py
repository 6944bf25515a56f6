"""AP, affinity propagation: logits spread along the pixel-to-pixel affinity of deep features.

docs/method.md, section 2. networks/reference.py has it in its plain form.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from networks.cells import floating, full_precision

FLOOR, CEILING = 0.01, 0.999
"""Cosine similarities are clamped to this range."""

SMALLEST_NORM = 1e-12
"""Feature vectors shorter than this are not stretched to length 1."""

STRIP, STRIP_VALUES_GPU = 256, 2**25
"""Columns of the affinity's gradient made at a time. On a GPU, which small pieces would not keep
busy, as many columns as hold that many values (128 MB), if they are more."""

SAMPLE = 128
"""Columns that tell where an image's affinities are cut to keep a share of them."""


def propagate(
    logits: Tensor,
    features: Tensor,
    beta: int = 8,
    gamma: float = 0.6,
    keep: float | None = None,
) -> Tensor:
    """Spread logits over positions with similar features.

    `A = clamp(n(x)^T n(x), 0.01, 0.999)`, entries under gamma become 0, columns are divided by
    their sums, and `logits <- logits A`, beta times. Gradients flow through A and the logits.
    Computed in float32, or in float64 where an input is; under autocast too.

    Args:
        logits: (B, C, h, w).
        features: x, (B, D, h, w).
        beta: number of steps; 0 returns the logits as they are.
        gamma: affinities below this are cut.
        keep: in place of gamma: the share of an image's affinities that are kept, the greatest,
            in 0..1; told by 128 of its positions where there are more. No gradient flows into the
            cut.

    Returns:
        (B, C, h, w), of the logits' dtype if that is a floating one.

    Raises:
        ValueError: the shapes do not fit, beta is negative, gamma would cut all affinities, or keep
            is no share.
    """
    one, other = tuple(logits.shape), tuple(features.shape)
    if len(one) != 4 or len(other) != 4 or (one[0], *one[2:]) != (other[0], *other[2:]):
        raise ValueError(f"logits {one} do not fit features {other}")
    if beta < 0:
        raise ValueError(f"beta must be 0 or more, got {beta}")
    if keep is not None and not 0 <= keep <= 1:
        raise ValueError(f"keep is a share, 0 to 1, got {keep}")
    if keep is None and not gamma <= CEILING:  # nor NaN
        raise ValueError(f"gamma must be at most {CEILING}, where affinities end, got {gamma}")
    if beta == 0:
        return logits
    logits = floating(logits, features)
    dtype = torch.promote_types(logits.dtype, features.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    flat = logits.flatten(2).to(dtype), features.flatten(2).to(dtype)
    return _Propagate.apply(*flat, beta, gamma, keep).to(logits.dtype).reshape(logits.shape)


class _Propagate(torch.autograd.Function):
    """All of `propagate` on flat positions, (B, C, N) and (B, D, N) -> (B, C, N).

    A is the only N x N matrix: clamping and cutting happen in place, its columns are divided in
    the small products, and its gradient, which needs just the logits of every step, is made and
    used a strip at a time.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: Tensor,
        features: Tensor,
        beta: int,
        gamma: float,
        keep: float | None,
    ) -> Tensor:
        with full_precision(features):
            # F.normalize would take longer than the N x N products (superpixel_loss.py on norms).
            norms = features.square().sum(1, keepdim=True).sqrt_().clamp_min_(SMALLEST_NORM)
            unit = features / norms
            affinity = torch.bmm(unit.mT, unit).clamp_(FLOOR, CEILING)
            if keep is None:
                F.threshold_(affinity, _largest_below(gamma, affinity.dtype), 0.0)
            else:
                affinity.masked_fill_(affinity < _smallest_kept(affinity, keep), 0.0)
            # A zero feature vector has no affinity, not even to itself: its logits become 0.
            totals = affinity.sum(1, keepdim=True).clamp_min_(FLOOR)
            steps = [logits]
            for _ in range(beta):
                steps.append(torch.bmm(steps[-1], affinity).div_(totals))
        ctx.save_for_backward(unit, norms, affinity, totals, *steps)
        return steps[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, norms, affinity, totals, *steps = ctx.saved_tensors
        grads = []  # of the products before their columns are divided, last step first
        grad_totals = torch.zeros_like(totals)
        grad_features = None
        with full_precision(grad):
            for out in reversed(steps[1:]):
                grads.append(grad / totals)
                grad_totals -= (grads[-1] * out).sum(1, keepdim=True)
                grad = torch.bmm(grads[-1], affinity.mT)
            if ctx.needs_input_grad[1]:
                # Column sums are products with ones.
                left = torch.cat([*steps[:-1], torch.ones_like(totals)], dim=1)
                right = torch.cat([*reversed(grads), grad_totals], dim=1)
                grad_features = _unit_gradient(unit, affinity, left, right)
                along = (grad_features * unit).sum(1, keepdim=True)
                grad_features.sub_(unit * along).div_(norms)
        return grad, grad_features, None, None, None


def _unit_gradient(unit: Tensor, affinity: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The gradient of the unit features (B, D, N), where that of A is `left^T right`.

    A = U^T U gives U (G + G^T), with G = left^T right (both (B, beta C + 1, N)) where A is neither
    clamped, which passes no gradient, nor cut (and 0, below the floor).
    """
    out = torch.empty_like(unit)
    batch, _, count = unit.shape
    width = STRIP if unit.device.type == "cpu" else max(STRIP, STRIP_VALUES_GPU // (batch * count))
    for start in range(0, count, width):
        strip = slice(start, start + width)
        symmetric = torch.bmm(left.mT, right[..., strip])  # (B, N, width)
        symmetric.baddbmm_(right.mT, left[..., strip])
        values = affinity[..., strip]
        symmetric.mul_((values > FLOOR) & (values < CEILING))
        out[..., strip] = torch.bmm(unit, symmetric)
    return out


def _smallest_kept(affinity: Tensor, share: float) -> Tensor:
    """The least of the greatest `share` of each image's affinities (B, N, N): (B, 1, 1)."""
    count = affinity.shape[1]
    # Evenly spread; a whole stride could run along columns of the image.
    chosen = torch.linspace(0, count - 1, min(count, SAMPLE), device=affinity.device).round().long()
    values = affinity[:, chosen].flatten(1)  # A is symmetric: rows are columns
    rank = min(math.floor((1 - share) * values.shape[1] + 1e-6) + 1, values.shape[1])
    return values.kthvalue(rank, dim=1).values[:, None, None]


def _largest_below(value: float, dtype: torch.dtype) -> float:
    """The largest number of `dtype` below `value`: F.threshold keeps only what is greater."""
    value, end = (torch.tensor(x, dtype=dtype, device="cpu") for x in (value, -torch.inf))
    return torch.nextafter(value, end).item()
