"""The plain formulation of the operators: the baseline of the benchmarks, a reference of the tests.

Written the way published code for this method writes them: for each of the nine neighbours a
shifted copy of the map, times q_k, summed; AP with every N x N matrix written out. Slow on
purpose, and left to autograd. Shapes and meanings are those of the functions of the same name in
networks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 9


def _shifted(grid: Tensor, k: int) -> Tensor:
    """The map's k-th neighbours, (B, D, h, w) -> (B, D, h, w), zeros outside."""
    h, w = grid.shape[2:]
    return F.pad(grid, (1, 1, 1, 1))[:, :, k // 3 : k // 3 + h, k % 3 : k % 3 + w]


def pool(features: Tensor, q: Tensor, cell: int = 16) -> Tensor:
    """Pixel features (B, D, H, W) averaged over each superpixel -> (B, D, h, w)."""
    with_ones = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    sums = 0
    for k in range(NEIGHBOURS):
        given = F.avg_pool2d(with_ones * q[:, k : k + 1], cell)
        sums = sums + _shifted(given, NEIGHBOURS - 1 - k)  # what a cell gives, its neighbour gets
    return sums[:, :-1] / (sums[:, -1:] + 1e-8)


def upsample(superpixels: Tensor, q: Tensor, cell: int = 16) -> Tensor:
    """Every pixel's mixture of its nine neighbouring superpixels: (B, D, h, w) -> (B, D, H, W)."""
    out = 0
    for k in range(NEIGHBOURS):
        neighbour = F.interpolate(_shifted(superpixels, k), size=q.shape[2:], mode="nearest")
        out = out + neighbour * q[:, k : k + 1]
    return out


def reassemble(features: Tensor, kernels: Tensor) -> Tensor:
    """Every position's mixture of its 3x3 neighbourhood: (B, D, h, w) -> (B, D, h, w)."""
    out = 0
    for k in range(NEIGHBOURS):
        out = out + _shifted(features, k) * kernels[:, k : k + 1]
    return out


def scn_loss(
    q: Tensor, lab: Tensor, position_weight: float = 0.003, cell: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    """How badly colours and coordinates are reconstructed: (total, colour, position)."""
    batch, _, height, width = lab.shape
    rows = torch.arange(height, dtype=lab.dtype, device=lab.device)
    columns = torch.arange(width, dtype=lab.dtype, device=lab.device)
    coordinates = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    features = torch.cat([lab, coordinates.expand(batch, -1, -1, -1)], dim=1)
    error = upsample(pool(features, q, cell), q, cell) - features
    colour = 0.005 * error[:, :3].norm(dim=1).sum() / (batch * cell)
    position = 0.005 * error[:, 3:].norm(dim=1).sum() * position_weight / (batch * cell)
    return colour + position, colour, position


def propagate(logits: Tensor, features: Tensor, beta: int = 8, gamma: float = 0.6) -> Tensor:
    """Logits (B, C, h, w) spread along the affinity of features (B, D, h, w)."""
    unit = F.normalize(features.flatten(2), dim=1)
    affinity = torch.matmul(unit.transpose(1, 2), unit).clamp(0.01, 0.999)
    affinity = torch.where(affinity < gamma, torch.zeros_like(affinity), affinity)
    affinity = affinity / affinity.sum(1, keepdim=True)
    out = logits.flatten(2)
    for _ in range(beta):
        out = torch.matmul(out, affinity)
    return out.reshape(logits.shape)
