"""Pool, upsample, SCN loss and reassemble against the plain formulation.

`--size full` has the tables of growth. The floor is a copy of everything the operator must read and
write.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import (
    Case,
    Report,
    clones,
    forward,
    forward_backward,
    report_cases,
)
from benchmarks.options import parse_for_operators
from networks import reference
from networks.association import NEIGHBOURS, pool, reassemble, upsample
from networks.superpixel import scn_loss

CELL = 16

Operator = Callable[[Tensor, Tensor], Tensor]


def association_map(batch: int, height: int, width: int, device: str) -> Tensor:
    """A random association map (B, 9, H, W)."""
    return torch.randn(batch, NEIGHBOURS, height, width, device=device).softmax(1)


def both_directions(
    name: str, baseline: Operator, ours: Operator, inputs: Sequence[Tensor], output: Tensor
) -> Iterator[Case]:
    """An operator forward, and forward and backward; `output` is as large as its result."""
    yield Case(
        f"{name} forward",
        forward(baseline, *inputs),
        forward(ours, *inputs),
        clones(*inputs, output),
    )
    yield Case(
        f"{name} forward+backward",
        forward_backward(baseline, *inputs),
        forward_backward(ours, *inputs),
        clones(*inputs, output, output, *inputs),
    )


def maps(batch: int, depth: int, size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, D, size, size), the same on the grid of cells, and an association map."""
    x = torch.randn(batch, depth, size, size, device=device)
    return x, x[..., ::CELL, ::CELL].clone(), association_map(batch, size, size, device)


def pool_cases(batch: int, depth: int, size: int, device: str) -> Iterator[Case]:
    """Pooling of (B, D, size, size)."""
    x, small, q = maps(batch, depth, size, device)
    name = f"pool {batch}x{depth}x{size}x{size}"
    return both_directions(name, reference.pool, pool, (x, q), small)


def upsample_cases(batch: int, depth: int, size: int, device: str) -> Iterator[Case]:
    """Upsampling to (B, D, size, size)."""
    x, small, q = maps(batch, depth, size, device)
    name = f"upsample {batch}x{depth}x{size}x{size}"
    return both_directions(name, reference.upsample, upsample, (small, q), x)


def loss_case(batch: int, size: int, device: str) -> Iterator[Case]:
    """The SCN loss and the gradient of q."""
    q = association_map(batch, size, size, device)
    lab = torch.rand(batch, 3, size, size, device=device)

    def ours(q: Tensor) -> Tensor:
        return scn_loss(q, lab)[0]

    def baseline(q: Tensor) -> Tensor:
        return reference.scn_loss(q, lab)[0]

    yield Case(
        f"scn_loss {batch}x3x{size}x{size} forward+backward",
        forward_backward(baseline, q),
        forward_backward(ours, q),
        clones(q, lab, q),
    )


def reassemble_cases(batch: int, depth: int, size: int, device: str) -> Iterator[Case]:
    """Reassembly of (B, D, size, size), in both memory formats."""
    kernels = association_map(batch, size, size, device)
    x = torch.randn(batch, depth, size, size, device=device)
    for name, layout in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        features = x.contiguous(memory_format=layout)
        yield Case(
            f"reassemble {batch}x{depth}x{size}x{size} {name} forward+backward",
            forward_backward(reference.reassemble, features, kernels),
            forward_backward(reassemble, features, kernels),
            clones(features, kernels, features, features, features, kernels),
        )


def chain(*groups: partial) -> Iterator[Case]:
    """Cases made one after another, so that only one group's tensors exist at a time."""
    for group in groups:
        yield from group()


def operators(batch: int, size: int, depth: int, grid: int, device: str) -> Iterator[Case]:
    """All operators: maps of `size` pixels a side, features (B, depth, grid, grid)."""
    return chain(
        partial(pool_cases, batch, 5, size, device),
        partial(upsample_cases, batch, 5, size, device),
        partial(loss_case, batch, size, device),
        partial(reassemble_cases, batch, depth, grid, device),
    )


def tables(options: argparse.Namespace) -> dict[str, Iterable[Case]]:
    """The tables for a size and a device."""
    device = options.device
    if options.size == "tiny":
        return {"Operators": operators(1, 64, 64, 10, device)}
    if torch.device(device).type == "cuda":
        size = 512
        result: dict[str, Iterable[Case]] = {
            "Operators": operators(4, size, 1024, 32, device),
            "Operators, a training batch": operators(16, 480, 1024, 30, device),
        }
    else:
        size = 256
        result = {"Operators": operators(4, size, 1024, 30, device)}
    if options.size == "full":
        both = (pool_cases, upsample_cases)
        areas = [partial(f, 1, 5, side, device) for f in both for side in (128, 256, 384, 512)]
        result["Image area"] = chain(*areas)
        result["Classes"] = chain(*[partial(upsample_cases, 1, c, size, device) for c in (21, 81)])
        batches = [partial(f, b, 5, size, device) for f in both for b in (1, 4, 8)]
        result["Batch"] = chain(*batches)
    return result


def main() -> None:
    """Print the tables."""
    options = parse_for_operators(__doc__)
    torch.manual_seed(0)
    report = Report(options)
    for title, cases in tables(options).items():
        report_cases(report, title, cases, options)


if __name__ == "__main__":
    main()
