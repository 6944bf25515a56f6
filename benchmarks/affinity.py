"""AP, affinity propagation, against the plain formulation.

The floor is the bare matrix products: forward U^T U and beta times logits A; backward as many of
each again, and one for the gradient of A from all steps.
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.measure import (
    Case,
    Report,
    forward,
    forward_backward,
    report_cases,
)
from benchmarks.options import parse_for_operators
from benchmarks.steps import Way
from networks import reference
from networks.affinity import propagate

BETA = 8


def products(logits: Tensor, features: Tensor, backward: bool) -> Callable[[], object]:
    """The matrix products that AP cannot do without."""
    x, u = logits.flatten(2), features.flatten(2)
    affinity = u.mT @ u
    steps = x.repeat(1, BETA, 1)

    def run() -> None:
        torch.bmm(u.mT, u, out=affinity)
        for _ in range(BETA):
            torch.bmm(x, affinity)
        if backward:
            for _ in range(BETA):
                torch.bmm(x, affinity)
            torch.bmm(steps.mT, steps, out=affinity)
            torch.bmm(u, affinity)

    return run


def cases(size: tuple[int, int], depth: int, classes: int, device: str) -> Iterator[Case]:
    """AP on an (h, w) grid, one image."""
    features = torch.rand(1, depth, *size, device=device)
    logits = torch.randn(1, classes, *size, device=device)
    name = f"N={size[0] * size[1]} C={classes}"
    yield Case(
        f"{name} forward",
        forward(reference.propagate, logits, features),
        forward(propagate, logits, features),
        products(logits, features, backward=False),
    )
    yield Case(
        f"{name} forward+backward",
        forward_backward(reference.propagate, logits, features),
        forward_backward(propagate, logits, features),
        products(logits, features, backward=True),
    )


def all_cases(options: argparse.Namespace) -> Iterator[Case]:
    """Sizes and classes, in growing order."""
    tiny = options.size == "tiny"
    sizes, depth = ([(6, 8)], 64) if tiny else ([(30, 30), (60, 60)], 1024)
    for size in sizes:
        for classes in (21, 81):
            yield from cases(size, depth, classes, options.device)


def main() -> None:
    """Print the tables, on a GPU one without TF32 and one with it."""
    options = parse_for_operators(__doc__)
    torch.manual_seed(0)
    report = Report(options)
    for precision in ("float32",) if options.device == "cpu" else ("float32", "tf32"):
        Way(precision).switch()
        title = f"AP, beta {BETA}, {precision}"
        report_cases(report, title, all_cases(options), options)


if __name__ == "__main__":
    main()
