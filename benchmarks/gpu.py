"""All that is to be tested and measured on a GPU, in one visit of 20 minutes.

    bash scripts/gpu.sh                              # benchmarks/results/gpu.json and gpu.log
    bash scripts/gpu.sh --device cpu --size tiny     # does everything run? experiments/gpu/cpu.json

Every part is a command with a time limit of its own, in a process of its own: one that fails or
takes too long does not stop the others. The file is written after each. The same command, given
again, goes on: parts that are finished are not run again, those that failed are tried last.
"""

import argparse
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measure import table
from datasets import command_line
from datasets.files import InputError, read_json, write_json
from utils.runs import options
from utils.runs.start import start

REPOSITORY = Path(__file__).resolve().parents[1]

PACKAGES = (
    *("torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless", "pillow"),
    *("scikit-image", "jinja2", "tqdm", "tensorboardX", "pytest"),
)
"""Whose versions are kept with the results."""

LEAST = 10
"""Seconds: with less time left, no part is begun."""

FINISHED, FAILED, LATE, LEFT_OUT = "finished", "failed", "out of time", "not run"
"""What has become of a part."""


@dataclass(frozen=True)
class Part:
    """One command.

    Attributes:
        name: of the part.
        arguments: of the interpreter.
        seconds: it is ended after so many.
        tables: it takes --json FILE, and what it writes there is kept.
        needs: a package without which it is left out.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float
    tables: bool = True
    needs: str = ""


def parts_of(args: argparse.Namespace) -> list[Part]:
    """All parts, the most important first."""
    common = ("--device", args.device, "--size", args.size)
    if args.size == "tiny":
        common += ("--repeats", "1")

    def benchmark(name: str, seconds: float, *more: str) -> Part:
        label = " ".join([name, *more[1:]])
        return Part(label, ("-m", f"benchmarks.{name}", *common, *more), seconds)

    tests = ("-m", "pytest", "tests/gpu", "-m", "gpu", "-rs", "--confcutdir", "tests/gpu")
    steps = ("training", "scn_training", "segmentation")
    return [
        Part("tests", (*tests, "-p", "no:cacheprovider"), 240, tables=False, needs="pytest"),
        benchmark("paths", 120),
        benchmark("operators", 120),
        benchmark("affinity", 90),
        *(benchmark(name, 120) for name in steps),
        benchmark("throughput", 480),
        benchmark("evaluator", 240),
        benchmark("inference", 60),
        *(benchmark(name, 90, "--tables", "busy") for name in ("operators", "affinity", *steps)),
        *(benchmark(name, 90, "--tables", "ways") for name in steps),
        *(benchmark(name, 240, "--tables", "compiled") for name in steps),
    ]


def environment() -> dict:
    """What the numbers depend on besides the code."""
    found = {}
    for name in PACKAGES:
        version = version_of(name)
        if version is not None:
            found[name] = version
    missing = [name for name in PACKAGES if name not in found and "opencv" not in name]
    return {
        "machine": described(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "packages": found,
        "missing": missing,
    }


def described() -> str:
    """The machine in words; asked by another process, since asking takes a part of the GPU."""
    code = "from benchmarks.measure import machine; print(machine())"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def version_of(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_part(part: Part, seconds: float, log: Path, environ: dict[str, str]) -> dict:
    """Run a part, ended after some seconds; its entry in the results file."""
    entry: dict = {"command": list(part.arguments)}
    if part.needs and version_of(part.needs) is None:
        return {**entry, "status": LEFT_OUT, "reason": f"{part.needs} is not installed"}
    limit = min(part.seconds, seconds)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, open(log, "a+b") as out:
        tables = Path(folder) / "tables.json"
        more = ["--json", str(tables)] if part.tables else []
        out.write(f"\n== {part.name}: {' '.join(part.arguments)}\n".encode())
        out.flush()
        first = out.tell()
        status, reason = call([sys.executable, *part.arguments, *more], limit, out, environ)
        if reason:
            out.seek(first)
            lines = out.read().decode(errors="replace").splitlines()
            entry["reason"] = reason
            entry["last lines"] = [line for line in lines if line.strip()][-15:]
        if tables.is_file():
            entry["tables"] = read_json(tables)["tables"]
    return {**entry, "status": status, "seconds": round(time.monotonic() - begun, 1)}


def call(
    command: Sequence[str], limit: float, out: object, environ: dict[str, str]
) -> tuple[str, str]:
    """Run a command, ended with all that it started after `limit` seconds: (status, reason)."""
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=out, stderr=out, env=environ, start_new_session=True
    ) as process:
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return LATE, f"ended after {limit:.0f} s"
        finally:
            end_group(process.pid)
    return (FAILED, f"exit status {code}") if code else (FINISHED, "")


def end_group(group: int) -> None:
    """End what is left of a part's processes."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


class Visit:
    """The results file of one machine.

    Args:
        path: of the file.
        parts: in their order.
        only: names of the parts to run; by default all.

    Raises:
        InputError: the file is another machine's, or there is no part of a name.
    """

    def __init__(self, path: Path, parts: Sequence[Part], only: Sequence[str] = ()) -> None:
        self.path, self.log, self.parts = path, path.with_suffix(".log"), parts
        names = [part.name for part in parts]
        self.only = only or names
        unknown = sorted(set(only) - set(names))
        if unknown:
            raise InputError(f"--only {' '.join(unknown)}: the parts are {', '.join(names)}")
        self.content = {"environment": environment(), "parts": {}}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._go_on(read_json(path))

    def _go_on(self, earlier: dict) -> None:
        """Take up what an earlier call has written, but for what is done otherwise now."""
        before, now = (content["environment"]["machine"] for content in (earlier, self.content))
        if before != now:
            raise InputError(
                f"{self.path}: was measured on {before}, this is {now}; name another file with "
                "--results"
            )
        commands = {part.name: list(part.arguments) for part in self.parts}
        self.content["parts"] = {
            name: entry
            for name, entry in earlier["parts"].items()
            if commands.get(name, entry["command"]) == entry["command"]
        }

    def waiting(self) -> list[Part]:
        """The parts that are not finished; those that were begun before come last."""
        entries = self.content["parts"]
        waiting = [
            part
            for part in self.parts
            if part.name in self.only and entries.get(part.name, {}).get("status") != FINISHED
        ]
        return sorted(waiting, key=lambda part: "seconds" in entries.get(part.name, {}))

    def run(self, seconds: float, environ: dict[str, str]) -> None:
        """Run what waits, for some seconds at most; the file is written after every part."""
        end = time.monotonic() + seconds
        for part in self.waiting():
            left = end - time.monotonic()
            earlier = self.content["parts"].get(part.name, {})
            if left < max(LEAST, min(part.seconds, earlier.get("seconds", 0))):
                entry = {
                    "command": list(part.arguments),
                    "status": LEFT_OUT,
                    "reason": "no time was left; the same command goes on",
                }
                # Of an earlier attempt stays what there is.
                self.content["parts"].setdefault(part.name, entry)
            else:
                print(f"{part.name} ..", flush=True)
                entry = run_part(part, left, self.log, environ)
                if entry["status"] != FINISHED and rows_in(earlier) > rows_in(entry):
                    entry["tables"] = earlier["tables"]
                self.content["parts"][part.name] = entry
                print(f"{part.name}: {in_words(entry)}", flush=True)
            self.write()

    def write(self) -> None:
        """Write the file, in the parts' order."""
        names = [part.name for part in self.parts]
        entries = self.content["parts"]
        rest = [name for name in entries if name not in names]
        ordered = [name for name in names if name in entries] + rest
        self.content["parts"] = {name: entries[name] for name in ordered}
        write_json(self.path, self.content)


def rows_in(entry: dict) -> int:
    """How many rows the tables of a part have."""
    return sum(len(table["rows"]) for table in entry.get("tables", {}).values())


def in_words(entry: dict) -> str:
    """What has become of a part."""
    seconds = f" in {entry['seconds']:.0f} s" if "seconds" in entry else ""
    return entry["status"] + seconds + (f": {entry['reason']}" if "reason" in entry else "")


def main(args: argparse.Namespace) -> None:
    """Run the parts and print what has become of them."""
    on_gpu = args.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise InputError(f"--device {args.device}: this machine shows no CUDA GPU; try cpu")
    usual = "benchmarks/results/gpu.json" if on_gpu else f"experiments/gpu/{args.device}.json"
    args.results = Path(args.results or usual)
    visit = Visit(args.results, parts_of(args), args.only)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the part too
    environ = {**os.environ, "MSA_GPU_TEST_DEVICE": args.device}
    if args.device == "cuda":
        environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # what is measured is one GPU
    visit.run(60 * args.minutes, environ)
    rows = [[name, in_words(entry)] for name, entry in visit.content["parts"].items()]
    print(table("Parts", ("part", "what became of it"), rows))
    print(f"{visit.path}, {visit.log}")


if __name__ == "__main__":
    parser = command_line.new_parser(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that all runs")
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    parser.add_argument(
        "--minutes", type=options.positive, default=20.0, help="for all parts together"
    )
    parser.add_argument("--results", metavar="FILE", help="the log is beside it")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="PART", help="these parts, such as tests operators"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
