"""What the benchmarks of training steps share: ways to compute a step, and their tables."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.measure import BUSY, Report, busy, compare, peak_memory, synchronise
from benchmarks.options import new_parser
from networks import classifier, dcr
from utils.training.losses import Losses

PRECISIONS = ("float32", "default", "tf32", "bfloat16")
"""float32 without TF32; PyTorch's default, TF32 in convolutions; TF32 in matrix products too; and
autocast to bfloat16 (--amp), with TF32 in what stays float32. On a CPU there is no TF32."""


@dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        precision: one of PRECISIONS.
        channels_last: in memory, as utils.runs.devices.parallel has it; or first.
        searched: cuDNN tries its algorithms out, and keeps the fastest.
        compiled: the whole network by torch.compile; on a CPU it is traced, but no code is made.
    """

    precision: str = "default"
    channels_last: bool = True
    searched: bool = False
    compiled: bool = False

    @property
    def amp(self) -> bool:
        """Whether convolutions run in bfloat16."""
        return self.precision == "bfloat16"

    def __str__(self) -> str:
        more = [] if self.channels_last else ["channels first"]
        more += ["algorithms tried out"] if self.searched else []
        more += ["compiled"] if self.compiled else []
        return ", ".join([self.precision, *more])

    def switch(self) -> None:
        """Set what PyTorch keeps for the whole process."""
        torch.backends.cudnn.allow_tf32 = self.precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = self.precision in ("tf32", "bfloat16")
        torch.backends.cudnn.benchmark = self.searched

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The block in which --amp computes."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.amp)

    def arranged(self, network: nn.Module) -> nn.Module:
        """A network on its device, channels last, as this way has it."""
        if not self.channels_last:
            network = network.to(memory_format=torch.contiguous_format)
            network.register_forward_pre_hook(lambda _, given: tuple(x.contiguous() for x in given))
        if self.compiled:
            on_gpu = next(network.parameters()).is_cuda
            leave_operators()
            network = torch.compile(network, backend="inductor" if on_gpu else "aot_eager")
        return network


def leave_operators() -> None:
    """Have torch.compile call the classifier's operators as they are.

    They are written by hand, forward and backward. Traced under autocast, PyTorch 2.14 ends with
    "Global autocast(cpu)_enabled state changed while dynamo tracing, please report a bug".
    """
    dcr.reassemble = torch.compiler.disable(dcr.reassemble)
    classifier.propagate = torch.compiler.disable(classifier.propagate)


class Workload(Protocol):
    """One batch, and steps on it, forward and backward; nothing is updated.

    Attributes:
        way: how they are computed.
        batch: on the device, as the loader would have it.
        learner: the network that learns, without wrappers.
        model: what is trained.
        objective: the losses of the batch.
        runs: the steps by name: `ours`, `floor`, and perhaps `plain`.
    """

    way: Way
    batch: dict[str, Tensor]
    learner: nn.Module
    model: nn.Module
    objective: Callable[[dict[str, Tensor]], Losses]
    runs: dict[str, Callable[[], object]]


Make = Callable[[Way], Workload]


def step(work: Workload) -> None:
    """Forward and backward pass as the training loop has it."""
    work.model.zero_grad(set_to_none=True)
    work.objective(work.batch)["loss"].backward()


def step_table(
    report: Report, title: str, cases: Mapping[str, Make], ways: tuple[Way, ...], repeats: int
) -> None:
    """Time and memory of every case in every way, beside the plain formulation and the floor."""
    first = next(iter(cases.values()))(ways[0])
    plain = "plain" in first.runs
    header = ["training step", *(f"{name} ms" for name in first.runs), "ours / floor"]
    header += ["plain / ours"] * plain + ["images/s", *(f"{name} MB" for name in first.runs)]
    del first

    def rows() -> Iterator[list[object]]:
        for name, make in cases.items():
            for way in ways:
                work = make(way)
                way.switch()
                times = compare(work.runs, repeats, warmup=1)
                device = next(work.learner.parameters()).device
                memory = [peak_memory(run, device) / 1e6 for run in work.runs.values()]
                ratios = [times.ratio("ours", "floor")]
                if plain:
                    ratios.append(times.ratio("plain", "ours"))
                rate = times.rate("ours", images_of(work))
                spreads = [times.spread(run, 1e3) for run in work.runs]
                label = name if ways == (Way(),) else f"{name}, {way}"
                yield [label, *spreads, *ratios, rate, *memory]

    report.add(title, header, rows())


def busy_table(
    report: Report, title: str, cases: Mapping[str, Make], ways: tuple[Way, ...]
) -> None:
    """For how long a step keeps a GPU busy, in how many kernels and copies."""
    names = list(next(iter(cases.values()))(ways[0]).runs)

    def rows() -> Iterator[list[object]]:
        for name, make in cases.items():
            for way in ways:
                work = make(way)
                way.switch()
                found = {run: busy(work.runs[run]) for run in names}
                row = [number for pair in found.values() for number in pair]
                yield [f"{name}, {way}", *row, found["ours"][0] / found["floor"][0]]

    columns = [f"{name} {what}" for name in names for what in ("ms", "launches")]
    report.add(title + BUSY, ["training step", *columns, "ours / floor"], rows())


def way_table(report: Report, title: str, make: Make, ways: tuple[Way, ...], repeats: int) -> None:
    """Our step in several ways, in turn; seconds of the first call tell what preparing costs."""

    def rows() -> Iterator[list[object]]:
        works = {str(way): make(way) for way in ways}
        runs = {name: switched(work) for name, work in works.items()}
        first = {name: seconds_of(run) for name, run in runs.items()}
        times = compare(runs, repeats, warmup=1)
        for name, work in works.items():
            device = next(work.learner.parameters()).device
            memory = peak_memory(runs[name], device) / 1e6
            ratio = times.ratio(str(ways[0]), name)
            rate = times.rate(name, images_of(work))
            yield [name, times.spread(name, 1e3), ratio, rate, memory, first[name]]

    header = ["way", "ours ms", f"{ways[0]} / this", "images/s", "MB", "first call s"]
    report.add(title, header, rows())


def switched(work: Workload) -> Callable[[], None]:
    """Our step, with the process's settings made its own before."""

    def run() -> None:
        work.way.switch()
        work.runs["ours"]()

    return run


def seconds_of(run: Callable[[], object]) -> float:
    """How long one call takes, all that it prepares included."""
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def images_of(work: Workload) -> int:
    """Images in a batch."""
    return len(next(iter(work.batch.values())))


def parse_step_options(description: str | None) -> argparse.Namespace:
    """The options of every benchmark, and which tables of a training step to make."""
    parser = new_parser(description)
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=("steps", "busy", "ways", "compiled"),
        default=("steps",),
        help="the step beside its floor; how long a GPU is busy; memory formats and cuDNN's "
        "search; torch.compile",
    )
    return parser.parse_args()


def report_steps(
    report: Report, given: argparse.Namespace, what: str, cases: Mapping[str, Make]
) -> None:
    """The tables asked for; the first of the cases is the one that is compared in several ways."""
    precisions = PRECISIONS if given.device != "cpu" else ("default",)
    if given.size == "tiny":
        precisions = ("bfloat16",)
    ways = tuple(Way(precision) for precision in precisions)
    if "steps" in given.tables:
        step_table(report, f"Training step, {what}", cases, ways, given.repeats)
    if "busy" in given.tables:
        busy_table(report, f"Training step, {what}", cases, ways)
    name, make = next(iter(cases.items()))
    for precision in precisions[-2:]:
        way = Way(precision)
        title = f"{what}, {name}, {precision}"
        if "ways" in given.tables:
            others = replace(way, channels_last=False), replace(way, searched=True)
            way_table(report, f"Memory formats, {title}", make, (way, *others), given.repeats)
        if "compiled" in given.tables:
            others = (replace(way, compiled=True),)
            way_table(report, f"torch.compile, {title}", make, (way, *others), given.repeats)
