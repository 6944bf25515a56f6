"""IPC, intra-patch prototype contrast: cams supervised by reconstruction from class prototypes.

docs/method.md, section 2. The target is the image or the saliency map, pooled to superpixels.

What it brings was measured: docs/experiments.md. The loss of perfect masks is far from the least
(benchmarks/ipc_of_masks.py).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.cells import full_precision


def cut_patches(x: Tensor, patches: int) -> Tensor:
    """Cut maps into equal patches; rows and columns that do not divide are dropped.

    Args:
        x: (B, D, h, w).
        patches: P, a square number; sqrt(P) patches a side.

    Returns:
        (B * P, D, n): n positions a patch.

    Raises:
        ValueError: P is no square, or a side has fewer positions than patches.
    """
    side = math.isqrt(patches)
    if side < 1 or side * side != patches:
        raise ValueError(f"patches must be a square number, got {patches}")
    batch, depth, h, w = x.shape
    ph, pw = h // side, w // side
    if not ph or not pw:
        raise ValueError(f"cannot cut {side} patches a side out of a {h} x {w} map")
    x = x[..., : ph * side, : pw * side].reshape(batch, depth, side, ph, side, pw)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch * patches, depth, ph * pw)


def _itself(value: Tensor) -> Tensor:
    return value


def counting_patches(
    background: Tensor,
    mask: Tensor,
    threshold: float,
    total: Callable[[Tensor], Tensor] = _itself,
) -> Tensor:
    """Which patches hold both background and something else: (n, 1, positions) -> (n, 1, 1) 0/1.

    If none in the batch does, all count. Inputs are detached here: this test has no gradient.
    `total` as in `ipc_loss`.
    """
    masked = (background * mask).detach()
    has_foreground = (1 - masked).amax(-1, keepdim=True) > threshold
    has_background = masked.amax(-1, keepdim=True) > threshold
    counts = has_foreground & has_background
    none_counts = total(counts.sum()) == 0
    return (counts | none_counts).to(background.dtype)


def ipc_loss(
    fg_cam: Tensor,
    target: Tensor,
    patches: int,
    threshold: float,
    total: Callable[[Tensor], Tensor] = _itself,
) -> Tensor:
    """Error of reconstructing the target from one prototype a class and patch.

    Args:
        fg_cam: normalised cams of the foreground classes, (B, K, h, w), 0..1.
        target: what is reconstructed, (B, T, h, w), zero where there is padding; no gradient
            flows into it. Padding is where its channels sum to 0.
        patches: P, how many patches an image is cut into; a square number.
        threshold: a patch counts if both background and foreground exceed this somewhere.
        total: where several processes share a batch: the sum of a number over all of them, without
            gradient. Then each gets its part of the loss of the whole batch; the parts add up to
            it.

    Returns:
        Scalar loss, computed in float32, or in float64 where an input is; under autocast too.

    Raises:
        ValueError: the shapes do not fit.
    """
    if fg_cam.ndim != 4 or target.ndim != 4 or fg_cam.shape[2:] != target.shape[2:]:
        raise ValueError(f"fg_cam {tuple(fg_cam.shape)} does not fit {tuple(target.shape)}")
    if len(fg_cam) != len(target):
        raise ValueError(f"{len(fg_cam)} cams, but {len(target)} targets")
    # Sums over a patch are too many for half precision.
    dtype = torch.promote_types(torch.promote_types(fg_cam.dtype, target.dtype), torch.float32)
    cam = cut_patches(fg_cam.to(dtype), patches)
    goal = cut_patches(target.detach().to(dtype), patches)
    background = 1 - cam.amax(1, keepdim=True)
    mask = (goal.sum(1, keepdim=True) != 0).to(cam.dtype)
    mask = mask * counting_patches(background, mask, threshold, total)
    probability = torch.cat([background, cam], dim=1) * mask  # p
    unit = F.normalize(goal, dim=1) * mask  # t
    weights = probability.sum(-1, keepdim=True) + 1e-5
    with full_precision(cam):
        prototypes = torch.bmm(probability, unit.transpose(1, 2)) / weights  # f: (n, C, T)
        rebuilt = torch.bmm(prototypes.transpose(1, 2), probability)  # t'
    return ((rebuilt - unit).square() * mask).sum() / (total(mask.sum()) + 1e-3)
