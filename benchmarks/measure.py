"""Timing, memory and tables, shared by the benchmarks.

Machines that run several jobs give no steady times. So what is compared is run in turn in one
process, A B A B .., and the ratio is taken within each round before the median over the rounds.
On a CPU that others use at the same time, `--threads 1 --clock cpu` counts only what this process
computes. On a GPU every timing waits for it before and after, and takes calls that are short
several at a time; where Python launches kernels more slowly than the GPU runs them, that still is
the time of launching, so `--tables busy` says how long the GPU is busy. It does so in a process of
its own: PyTorch's profiler slows down what runs after it.
"""

import argparse
import gc
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from datasets.files import write_text

MEGABYTE = 1e6

GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""What the profiler calls the events of a GPU."""

MARK, SPARE = "what is measured", 100
"""In a trace: the name of what counts, and kernels launched before it."""

LONG_ENOUGH = 0.02
"""Seconds: on a GPU, calls shorter than this are timed several at a time. In use one is launched
while the one before still computes; timed alone, many a short one would show its launch only."""


@dataclass
class Spread:
    """One value a round: median, least and greatest. Tables show the first, files all three."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of some values."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return _text(self.median)


class Ratio(Spread):
    """Ratios of two callables' times, one a round."""

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}..{self.high:.2f}]"


@dataclass
class Times:
    """Seconds of every callable in every round."""

    rounds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """The median time of a callable, seconds."""
        return statistics.median(self.rounds[name])

    def spread(self, name: str, unit: float = 1.0) -> Spread:
        """The times of a callable; `unit` is 1e3 for milliseconds."""
        return Spread.of([unit * seconds for seconds in self.rounds[name]])

    def rate(self, name: str, count: int) -> Spread:
        """How many a second, if a call does `count`."""
        return Spread.of([count / seconds for seconds in self.rounds[name]])

    def ratio(self, name: str, other: str) -> Ratio:
        """How many times as long `name` takes as `other`, round by round."""
        pairs = zip(self.rounds[name], self.rounds[other], strict=True)
        return Ratio.of([a / b for a, b in pairs])


def compare(
    callables: dict[str, Callable[[], object]],
    repeats: int = 15,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time callables in turn; each round starts with another one.

    Args:
        callables: what to time, by name; results are thrown away.
        repeats: rounds that count.
        warmup: rounds before that do not.
        clock: seconds; `time.process_time` counts this process only.
    """
    names = list(callables)
    calls = {name: _calls(callables[name]) for name in names}
    rounds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warmup + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds = _seconds(callables[name], clock, calls[name])
            if turn >= warmup:
                rounds[name].append(seconds)
    return Times(rounds)


def _calls(run: Callable[[], object]) -> int:
    """How many calls are timed at once: one, but on a GPU enough to last `LONG_ENOUGH`."""
    if not torch.cuda.is_initialized():
        return 1
    run()  # it may search for algorithms, compile, or allocate
    return max(1, round(LONG_ENOUGH / _seconds(run, time.perf_counter)))


def _seconds(run: Callable[[], object], clock: Callable[[], float], calls: int = 1) -> float:
    """Seconds of a call, the device's work included."""
    synchronise()
    start = clock()
    for _ in range(calls):
        run()
    synchronise()
    return (clock() - start) / calls


def synchronise() -> None:
    """Wait until the GPU has done all that it was told, if there is one in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(run: Callable[[], object], device: str | torch.device = "cpu") -> int:
    """The most bytes of tensors alive at once during `run()` beyond those alive before.

    What `run` returns counts too. On the CPU the profiler's record of every allocation is read;
    scratch memory inside libraries (MKL, oneDNN) is not seen. On CUDA the allocator's own count.
    """
    run()  # caches and lazy initialisation are not part of the answer
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - start
    events = _trace(run, ProfilerActivity.CPU, profile_memory=True)
    changes = [event for event in events if event.get("name") == "[memory]"]
    alive = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        alive += event["args"]["Bytes"]
        peak = max(peak, alive)
    return peak


def busy(run: Callable[[], object]) -> tuple[float, int]:
    """For how many milliseconds the GPU works during `run()`, and in how many kernels and copies.

    It is what a call costs where the GPU has work waiting, as in training; launching is not in it.
    NaN where the profiler may not look at the GPU.
    """
    run()

    def marked() -> None:
        if torch.cuda.is_initialized():  # the profiler may lose the first kernels that it sees
            spare = torch.zeros(1, device="cuda")
            for _ in range(SPARE):
                spare.add_(1)
            synchronise()
        with record_function(MARK):
            run()
            synchronise()

    events = _trace(marked, ProfilerActivity.CPU, ProfilerActivity.CUDA)
    start = min(event["ts"] for event in events if event.get("name") == MARK)
    gpu = [event for event in events if event.get("cat") in GPU_WORK]
    work = [event["dur"] for event in gpu if event["ts"] >= start]
    return sum(work) / 1e3 if work else math.nan, len(work)


def _trace(run: Callable[[], object], *activities: ProfilerActivity, **how: bool) -> list[dict]:
    """The profiler's events of one call."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports on stderr otherwise
    synchronise()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(activities=activities, **how) as record:
            run()
            synchronise()
        record.export_chrome_trace(str(trace))
        return json.loads(trace.read_text())["traceEvents"]


def machine() -> str:
    """One line that says what the numbers were measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    parts = [name, f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table of fixed column widths; the first column is left-aligned.

    Floats are printed with three significant digits, or as whole numbers from 100 on.
    """
    cells = [list(header)] + [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0])]
        padded += [value.rjust(width) for value, width in zip(row[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (widths[0] - 1)] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join(
        [f"### {title}", "", line(cells[0]), "| " + " | ".join(rule) + " |"]
        + [line(row) for row in cells[1:]]
        + [""]
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


@dataclass
class Case:
    """One line of a table: the same work done plainly, by the project, and its least cost."""

    name: str
    plain: Callable[[], object]
    ours: Callable[[], object]
    floor: Callable[[], object]


HEADER = (
    *("case", "plain ms", "ours ms", "floor ms", "plain / ours"),
    *("plain MB", "ours MB", "plain / ours MB"),
)

BUSY = ", busy"
"""The end of the titles of tables that say how long a GPU is busy."""

BUSY_HEADER = ("case", "plain ms", "ours ms", "plain / ours", "ours launches")


def forward(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], object]:
    """A callable that computes `function(*inputs)` without gradients."""

    def run() -> torch.Tensor:
        with torch.no_grad():
            return function(*inputs)

    return run


def forward_backward(
    function: Callable[..., torch.Tensor], *inputs: torch.Tensor
) -> Callable[[], object]:
    """A callable that computes `function(*inputs)` and the gradients of all inputs."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    with torch.no_grad():
        grad = torch.randn_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, grad)


def clones(*values: torch.Tensor) -> Callable[[], object]:
    """The floor of work bound by memory: reading and writing what it must touch, once."""
    return lambda: [value.clone() for value in values]


def report_cases(
    report: "Report", title: str, cases: Iterable[Case], options: argparse.Namespace
) -> None:
    """The table that is asked for: time and memory of every case, or how long a GPU is busy."""
    if options.tables == "busy":
        report.add(title + BUSY, BUSY_HEADER, busy_cases(cases))
    else:
        report.add(title, HEADER, time_cases(cases, options))


def busy_cases(cases: Iterable[Case]) -> Iterator[list[object]]:
    """How long every case keeps a GPU busy, rows under BUSY_HEADER."""
    for case in cases:
        (plain, _), (ours, launches) = busy(case.plain), busy(case.ours)
        yield [case.name, plain, ours, plain / ours, launches]


def time_cases(cases: Iterable[Case], options: argparse.Namespace) -> Iterator[list[object]]:
    """Time and memory of every case, rows under HEADER."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    for case in cases:
        callables = {"plain": case.plain, "ours": case.ours, "floor": case.floor}
        times = compare(callables, options.repeats, clock=clock)
        plain = peak_memory(case.plain, options.device) / MEGABYTE
        ours = peak_memory(case.ours, options.device) / MEGABYTE
        milliseconds = [times.spread(name, 1e3) for name in callables]
        ratio = times.ratio("plain", "ours")
        yield [case.name, *milliseconds, ratio, plain, ours, plain / ours]


class Report:
    """Tables, printed one by one; with --json each is also in a file, which grows row by row.

    Args:
        given: the options of every benchmark.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.path, self.tables = given.json, {}
        print(f"{machine()}, device {given.device}\n", flush=True)

    def add(self, title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Measure the rows of a table, one after the other, and print it."""
        kept: list[Sequence[object]] = []
        self.tables[title] = {"header": list(header), "rows": kept}
        for row in rows:
            kept.append(row)
            if self.path:
                content = {"machine": machine(), "tables": self.tables}
                write_text(self.path, json.dumps(content, default=astuple))  # whole, if ended
        print(table(title, header, kept), flush=True)
