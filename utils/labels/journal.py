"""What an evaluation has finished, so that one that was stopped goes on where it was.

`evaluation.json` says what was evaluated; `done-<process>.jsonl` gets one line for each photograph
when all its files are written: its id and its pixel counts. The scores are sums over these lines.
"""

import argparse
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files import InputError, read_json, write_json
from utils.checkpoints.resuming import HARMLESS, changed_options
from utils.runs import distributed
from utils.runs.run import option_values

FILE = "evaluation.json"

DAMAGE = (LookupError, ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading a damaged line can raise."""

EVALUATION_HARMLESS = HARMLESS | {"checkpoint", "crf_workers", "export_deeplab", "report_images"}
"""Options that do not alter what an evaluation writes."""


def goes_on(options: argparse.Namespace, made_from: Mapping[str, str]) -> bool:
    """Whether the run's folder holds the unfinished beginning of this evaluation.

    Args:
        options: with `experiments`, `tag` and `overwrite`.
        made_from: fingerprints of photographs and networks.

    Raises:
        InputError: it holds that of another one; names every option that differs.
    """
    folder = Path(options.experiments) / options.tag
    begun = (folder / FILE).is_file() and any(folder.glob("done-*.jsonl"))
    if options.overwrite or not begun or (folder / "result.json").exists():
        return False
    before = read_json(folder / FILE)
    changes = changed_options(before, options, made_from, EVALUATION_HARMLESS)
    if changes:
        raise InputError(
            f"{folder} holds an evaluation that was not finished and was started otherwise: "
            f"{'; '.join(changes)}. Give what it was started with to go on, or --overwrite, or "
            "another --tag"
        )
    return True


def begin(folder: Path, options: argparse.Namespace, made_from: Mapping[str, str]) -> None:
    """Say in the run's folder what is evaluated."""
    content = {"script": Path(sys.argv[0]).name, "options": option_values(options)}
    write_json(folder / FILE, {**content, "fingerprints": dict(made_from)})


class Journal:
    """The lines of finished photographs; a context manager that this process adds lines to.

    Args:
        folder: of the run.
        shapes: of the counts of a photograph by name, such as {"counts": (C, C - 1, T + 1)}.

    Attributes:
        added: photographs that this process has added.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.folder, self.shapes = folder, dict(shapes)
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._new = {name: np.zeros(shape, np.int64) for name, shape in self.shapes.items()}
        self._old: dict[str, dict[str, np.ndarray]] = {}
        self.added = 0

    def finished(self, complete: Callable[[str], bool]) -> set[str]:
        """The ids of photographs that are done and `complete`, whose files are all there."""
        if distributed.is_first():
            for path in sorted(self.folder.glob("done-*.jsonl")):
                for line in path.read_bytes().split(b"\n"):
                    # A process that was killed may leave a last line that is cut off.
                    with suppress(*DAMAGE):
                        found = json.loads(line)
                        if complete(found["id"]):
                            self._old[found["id"]] = self._counts_of(found)
        return distributed.shared(set(self._old))

    def _counts_of(self, found: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: _dense(*found[name], shape) for name, shape in self.shapes.items()}

    def add(self, identifier: str, counts: Mapping[str, np.ndarray]) -> None:
        """Write down that all files of a photograph are written; from any thread.

        Raises:
            InputError: the disk is full.
        """
        sparse = {name: _sparse(count) for name, count in counts.items()}
        line = json.dumps({"id": identifier, **sparse}).encode() + b"\n"
        with self._lock:
            self.added += 1
            for name, count in counts.items():
                self._new[name] += count
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise InputError(
                    f"cannot write {self._path}: {error.strerror}; make room and start again"
                ) from error

    def totals(self) -> dict[str, np.ndarray]:
        """The sums over all photographs that are done, in all processes."""
        for counts in self._old.values():
            for name, count in counts.items():
                self._new[name] += count
        self._old = {}
        return {name: distributed.total_counts(count) for name, count in self._new.items()}

    def __enter__(self) -> "Journal":
        self._path = self.folder / f"done-{distributed.rank()}.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._stack.enter_context(open(self._path, "ab"))
            self._file.write(b"\n")  # ends a line that was cut off
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._stack.close()


def _sparse(counts: np.ndarray) -> list[list[int]]:
    places = np.flatnonzero(counts)
    return [places.tolist(), counts.ravel()[places].tolist()]


def _dense(places: Sequence[int], values: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    counts = np.zeros(int(np.prod(shape)), np.int64)
    counts[np.asarray(places, np.int64)] = values
    return counts.reshape(shape)
