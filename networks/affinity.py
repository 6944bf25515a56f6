"""AP, affinity propagation: logits spread along the pixel-to-pixel affinity of deep features.

METHOD section 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR, CEILING = 0.01, 0.999
"""Cosine similarities are clamped to this range."""


def propagate(logits: Tensor, features: Tensor, beta: int = 8, gamma: float = 0.6) -> Tensor:
    """Spread logits over positions with similar features.

    `A = clamp(n(x)^T n(x), 0.01, 0.999)`, entries under gamma become 0, columns are divided by
    their sums, and `logits <- logits A`, beta times. Gradients flow through A and the logits.

    Args:
        logits: (B, C, h, w).
        features: x, (B, D, h, w).
        beta: number of steps; 0 returns the logits as they are.
        gamma: affinities below this are cut.

    Returns:
        (B, C, h, w).

    Raises:
        ValueError: the shapes do not fit, or beta is negative.
    """
    if logits.ndim != 4 or features.ndim != 4 or logits.shape[2:] != features.shape[2:]:
        raise ValueError(
            f"logits {tuple(logits.shape)} do not fit features {tuple(features.shape)}"
        )
    if beta < 0:
        raise ValueError(f"beta must be 0 or more, got {beta}")
    if beta == 0:
        return logits
    unit = F.normalize(features.flatten(2), dim=1)
    affinity = _CutAffinity.apply(unit, gamma)
    # A zero feature vector has no affinity to anything, not even itself: its logits become 0.
    totals = affinity.sum(1, keepdim=True).clamp_min(FLOOR)
    out = logits.flatten(2)
    for _ in range(beta):
        # Dividing the product's columns spares the normalised copy of the N x N matrix.
        out = torch.bmm(out, affinity) / totals
    return out.reshape(logits.shape)


class _CutAffinity(torch.autograd.Function):
    """(B, D, N) unit columns -> (B, N, N) clamped cosines, those under gamma cut to 0.

    Clamping and cutting happen in place, and the gradient's mask is read off the result, so the
    product is the only N x N matrix the forward pass keeps.
    """

    @staticmethod
    def forward(ctx, unit: Tensor, gamma: float) -> Tensor:  # noqa: ANN001, D102
        affinity = torch.bmm(unit.transpose(1, 2), unit).clamp_(FLOOR, CEILING)
        F.threshold_(affinity, _largest_below(gamma, affinity.dtype), 0.0)
        ctx.save_for_backward(unit, affinity)
        return affinity

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001, D102
        unit, affinity = ctx.saved_tensors
        # Clamped values pass no gradient, nor do cut ones (which are 0, below the floor).
        inner = grad * ((affinity > FLOOR) & (affinity < CEILING))
        return torch.bmm(unit, inner) + torch.bmm(unit, inner.transpose(1, 2)), None


def _largest_below(value: float, dtype: torch.dtype) -> float:
    """The largest number of `dtype` below `value`: F.threshold keeps only what is greater."""
    below = torch.tensor(value, dtype=dtype)
    return torch.nextafter(below, torch.tensor(-torch.inf, dtype=dtype)).item()
