"""The plain formulas of what is fast elsewhere: to read, and to test and measure against.

Written the way one writes them down: for each of the nine neighbours a shifted copy of the map,
times q_k, summed; AP with every N x N matrix written out. Slow on purpose, and left to autograd.
Functions of the same name: pool and upsample in association.py, reassemble in reassembly.py,
scn_loss and clustering_loss in superpixel_loss.py, propagate in affinity.py. (ipc.py is plain.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.cells import CELL, NEIGHBOURS
from networks.superpixel_loss import pixel_coordinates


def shifted(grid: Tensor, k: int) -> Tensor:
    """Every position's k-th neighbour, row-major: (B, D, h, w) -> (B, D, h, w), zeros outside."""
    h, w = grid.shape[2:]
    return F.pad(grid, (1, 1, 1, 1))[:, :, k // 3 : k // 3 + h, k % 3 : k % 3 + w]


def to_pixels(grid: Tensor, cell: int) -> Tensor:
    """Every pixel gets the values of its own cell: (B, D, h, w) -> (B, D, h * cell, w * cell)."""
    return F.interpolate(grid, scale_factor=cell, mode="nearest")


def pool(features: Tensor, q: Tensor, cell: int = CELL) -> Tensor:
    """Pixel features averaged over each superpixel (docs/method.md, section 1).

    `s_j = sum_p Q_j(p) F(p) / (sum_p Q_j(p) + 1e-8)`, the sums as means over a cell:
    features (B, D, H, W) and q (B, 9, H, W) -> (B, D, h, w).
    """
    with_ones = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    sums = 0
    for k in range(NEIGHBOURS):
        given = F.avg_pool2d(with_ones * q[:, k : k + 1], cell)
        sums = sums + shifted(given, 8 - k)  # what a cell gives its k-th neighbour, that one gets
    return sums[:, :-1] / (sums[:, -1:] + 1e-8)


def upsample(superpixels: Tensor, q: Tensor, cell: int = CELL) -> Tensor:
    """Every pixel's mixture of its nine superpixels (docs/method.md, section 1).

    `F'(p) = sum_k Q_k(p) s_{j_k(p)}`: superpixels (B, D, h, w), q (B, 9, H, W) -> (B, D, H, W).
    """
    return sum(
        to_pixels(shifted(superpixels, k), cell) * q[:, k : k + 1] for k in range(NEIGHBOURS)
    )


def reassemble(features: Tensor, kernels: Tensor) -> Tensor:
    """Every position mixed with its neighbours by its own kernel (docs/method.md, section 2, DCR).

    `F'(p) = sum_k K_k(p) F(p + d_k)`: features (B, D, h, w), kernels (B, 9, h, w) -> (B, D, h, w).
    """
    return sum(shifted(features, k) * kernels[:, k : k + 1] for k in range(NEIGHBOURS))


def scn_loss(
    q: Tensor, lab: Tensor, position_weight: float = 0.003, cell: int = CELL
) -> tuple[Tensor, Tensor, Tensor]:
    """How badly colours and coordinates are reconstructed (docs/method.md, section 1).

    With x' = upsample(pool(x)):
    `0.005 * [sum_p ||lab' - lab|| / (B S) + (m / S) sum_p ||xy' - xy|| / B]`: association map q
    (B, 9, H, W), CIE-Lab image (B, 3, H, W) -> (total, colour_term, position_term).
    """
    features = torch.cat([lab, _coordinates(lab)], dim=1)
    error = upsample(pool(features, q, cell), q, cell) - features
    scale = 0.005 / (len(lab) * cell)
    colour = scale * error[:, :3].norm(dim=1).sum()
    position = scale * position_weight * error[:, 3:].norm(dim=1).sum()
    return colour + position, colour, position


def clustering_loss(
    q: Tensor,
    lab: Tensor,
    position_weight: float = 0.007,
    temperature: float = 0.02,
    rounds: int = 3,
    cell: int = CELL,
) -> Tensor:
    """Cross entropy of q against what soft k-means makes of it (ours, not the paper's).

    With (c_j, z_j) = pool((lab, xy), t), from t = q:
    `t_k(p) = softmax_k(-(||lab(p) - c_k|| + m ||xy(p) - z_k||) / T)` over the neighbours inside the
    grid, a few rounds: association map q (B, 9, H, W), CIE-Lab image (B, 3, H, W) -> scalar.
    """
    features = torch.cat([lab, _coordinates(lab)], dim=1)
    inside = torch.ones_like(lab[:, :1, ::cell, ::cell])
    target = q.detach()
    for _ in range(rounds):
        means = pool(features, target, cell)
        distances = []
        for k in range(NEIGHBOURS):
            away = to_pixels(shifted(means, k), cell) - features
            distance = away[:, :3].norm(dim=1) + position_weight * away[:, 3:].norm(dim=1)
            outside = to_pixels(shifted(inside, k), cell)[:, 0] == 0
            distances.append(distance.masked_fill(outside, torch.inf))
        target = F.softmax(-torch.stack(distances, dim=1) / temperature, dim=1)
    return -(target * q.log()).sum(1).mean()


def propagate(
    logits: Tensor,
    features: Tensor,
    beta: int = 8,
    gamma: float = 0.6,
    keep: float | None = None,
) -> Tensor:
    """Logits spread along the affinity of features (docs/method.md, section 2, AP).

    `A = clamp(n(x)^T n(x), 0.01, 0.999)`, entries under gamma (with `keep`: all but this share of
    an image's entries, the greatest) 0, columns divided by their sums;
    `logits <- logits A`, beta times: logits (B, C, h, w), features (B, D, h, w) -> (B, C, h, w).
    """
    unit = F.normalize(features.flatten(2), dim=1)
    affinity = torch.matmul(unit.mT, unit).clamp(0.01, 0.999)
    least = gamma
    if keep is not None:
        least = affinity.flatten(1).quantile(1 - keep, dim=1, interpolation="higher")[:, None, None]
    affinity = torch.where(affinity < least, 0, affinity)
    affinity = affinity / affinity.sum(1, keepdim=True)
    out = logits.flatten(2)
    for _ in range(beta):
        out = torch.matmul(out, affinity)
    return out.reshape(logits.shape)


def _coordinates(lab: Tensor) -> Tensor:
    """(B, 2, H, W): column and row of every pixel."""
    return pixel_coordinates(*lab.shape[2:], lab).expand(len(lab), -1, -1, -1)
