"""Which of two paths pays: whole-map passes, as on a CPU, or matrix products, as on a GPU?

    python -m benchmarks.paths --device cuda

Pool, upsample, the SCN loss and reassemble choose between them by device and dtype
(networks.cells.prefers_passes). Here each is made to take either on the device at hand, forward and
backward, beside the plain formulation and, where a path works in tiles, with tiles of another size.
A path that is nowhere the fastest has no reason to be.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType

import torch

from benchmarks.measure import Report, compare, forward_backward, peak_memory
from benchmarks.operators import association_map, maps
from benchmarks.options import parse
from benchmarks.steps import Way
from networks import affinity, cells, reassembly, reference
from networks.affinity import propagate
from networks.association import pool, reassemble, upsample
from networks.superpixel import scn_loss

WHOLE = 2**40
"""Pixels or values in a tile: all."""

WIDTHS = (256, 1024, WHOLE)
"""Of strips of AP's gradient."""

PATHS = {
    "passes": {"prefers_passes": True},
    "passes, whole": {"prefers_passes": True, "MIX_PIXELS": WHOLE, "TILE_VALUES": WHOLE},
    "products": {"prefers_passes": False},
    "products, tiles / 16": {"prefers_passes": False, "tile": 2**16},
    "products, whole": {"prefers_passes": False, "tile": WHOLE},
}
"""Settings of networks.cells and networks.reassembly by the name of the path."""

Run = Callable[[], object]


def along(path: dict[str, object], run: Run) -> Run:
    """`run` with its operators on a path."""
    settings = dict(path)
    passes = settings.pop("prefers_passes")
    settings["TILE_PIXELS_CPU"] = settings["TILE_PIXELS_GPU"] = settings.pop("tile", None)
    changes = [(module, "prefers_passes", lambda _: passes) for module in (cells, reassembly)]
    for name, value in settings.items():
        module = reassembly if name == "TILE_VALUES" else cells
        if value is not None:
            changes.append((module, name, value))

    return partial(changed, changes, run)


def changed(changes: Sequence[tuple[ModuleType, str, object]], run: Run) -> object:
    """Run with names of modules set to other values; quicker than unittest.mock, as it must be."""
    before = [getattr(module, name) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        return run()
    finally:
        for (module, name, _), value in zip(changes, before, strict=True):
            setattr(module, name, value)


def operators(
    batch: int, size: int, depth: int, device: str, dtype: torch.dtype
) -> Iterator[tuple[str, Run, Run]]:
    """Every operator, ours and the plain formulation, forward and backward."""
    x, small, q = (value.to(dtype) for value in maps(batch, 5, size, device))
    shape = f"{batch}x5x{size}x{size}"
    yield f"pool {shape}", forward_backward(pool, x, q), forward_backward(reference.pool, x, q)
    inputs = small, q
    plain = forward_backward(reference.upsample, *inputs)
    yield f"upsample {shape}", forward_backward(upsample, *inputs), plain
    lab = torch.rand(batch, 3, size, size, device=device, dtype=dtype)
    losses = [
        forward_backward(lambda q, loss=loss: loss(q, lab)[0], q)
        for loss in (scn_loss, reference.scn_loss)
    ]
    yield f"scn_loss {batch}x3x{size}x{size}", *losses
    grid = size // cells.CELL
    kernels = association_map(batch, grid, grid, device).to(dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        features = torch.randn(batch, depth, grid, grid, device=device, dtype=dtype)
        inputs = features.contiguous(memory_format=layout), kernels
        plain = forward_backward(reference.reassemble, *inputs)
        name = f"reassemble {batch}x{depth}x{grid}x{grid}, {str(layout).removeprefix('torch.')}"
        yield name, forward_backward(reassemble, *inputs), plain


def rows(given: argparse.Namespace, dtype: torch.dtype) -> Iterator[list[object]]:
    """Milliseconds and memory of every operator on every path."""
    sizes = ((4, 512, 1024), (16, 480, 1024))
    for batch, size, depth in ((1, 64, 32),) if given.size == "tiny" else sizes:
        for name, ours, plain in operators(batch, size, depth, given.device, dtype):
            runs = {"plain": plain, **{path: along(how, ours) for path, how in PATHS.items()}}
            times = compare(runs, given.repeats)
            memory = [peak_memory(run, given.device) / 1e6 for run in runs.values()]
            yield [name, *(times.spread(run, 1e3) for run in runs), *memory]


def strips(given: argparse.Namespace) -> Iterator[list[object]]:
    """AP's gradient with strips of other widths."""
    sizes = ((16, 30, 1024), (1, 60, 1024))
    for batch, side, depth in ((1, 6, 32),) if given.size == "tiny" else sizes:
        inputs = [
            torch.randn(batch, 21, side, side, device=given.device),
            torch.rand(batch, depth, side, side, device=given.device),
        ]
        run = forward_backward(propagate, *inputs)
        runs = {}
        for width in WIDTHS:
            settings = [(affinity, "STRIP", width), (affinity, "STRIP_VALUES_GPU", 0)]
            runs[width] = partial(changed, settings, run)
        times = compare(runs, given.repeats)
        memory = [peak_memory(one, given.device) / 1e6 for one in runs.values()]
        yield [f"{batch} x N={side * side}", *(times.spread(one, 1e3) for one in runs), *memory]


def main() -> None:
    """Print the tables."""
    given = parse(__doc__, repeats=9)
    torch.manual_seed(0)
    Way("default").switch()
    report = Report(given)
    names = ["plain", *PATHS]
    header = ["forward+backward", *(f"{n} ms" for n in names), *(f"{n} MB" for n in names)]
    for dtype in (torch.float32, torch.bfloat16):
        title = f"Paths, {str(dtype).removeprefix('torch.')}"
        report.add(title, header, rows(given, dtype))
    widths = ["whole" if width == WHOLE else str(width) for width in WIDTHS]
    header = ["AP", *(f"{w} {unit}" for unit in ("ms", "MB") for w in widths)]
    report.add("Strips of AP's gradient", header, strips(given))


if __name__ == "__main__":
    main()
