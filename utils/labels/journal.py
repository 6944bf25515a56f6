"""What an evaluation has finished, so that one that was stopped goes on where it was.

`done-<process>.jsonl` gets one line for each photograph when all its files are written: its id, its
pixel counts, and marks such as its classes. The scores are sums over these lines.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files import InputError
from utils.runs import distributed

DAMAGE = (LookupError, ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading a damaged line can raise."""


class Journal:
    """The lines of finished photographs; a context manager that this process adds lines to.

    Memory does not grow with the counts of photographs done, only with their ids and marks.

    Args:
        folder: of the run.
        shapes: of the counts of a photograph by name, such as {"counts": (C, C - 1, T + 1)}.
        marks: the names of those few counts whose places are kept for every photograph.

    Attributes:
        added: photographs that this process has added.
        marked: the places where marks are not 0, by id and name, of the photographs that this
            process has added or found finished.
    """

    def __init__(
        self, folder: Path, shapes: Mapping[str, tuple[int, ...]], marks: Sequence[str] = ()
    ) -> None:
        self.folder, self._marks = folder, marks
        self.marked: dict[str, dict[str, list[int]]] = {}
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._sums = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
        self.added = 0

    def finished(self, complete: Callable[[str], bool]) -> set[str]:
        """The ids of photographs that are done and `complete`, whose files are all there.

        Their counts are part of `totals` from now on.
        """
        done: set[str] = set()
        if distributed.is_first():
            for path in sorted(self.folder.glob("done-*.jsonl")):
                with path.open("rb") as lines:
                    for line in lines:
                        # A process that was killed may leave a last line that is cut off.
                        with suppress(*DAMAGE):
                            found = json.loads(line)
                            if found["id"] not in done and complete(found["id"]):
                                self._take(found)
                                done.add(found["id"])
        return distributed.broadcast(done)

    def _take(self, found: Mapping[str, Any]) -> None:
        """Add the counts of a line, all of them or none."""
        counts = {name: _checked(*found[name], total) for name, total in self._sums.items()}
        for name, (places, values) in counts.items():
            self._sums[name].ravel()[places] += values
        self.marked[found["id"]] = {name: counts[name][0].tolist() for name in self._marks}

    def add(self, identifier: str, counts: Mapping[str, np.ndarray]) -> None:
        """Write down that all files of a photograph are written; from any thread.

        Raises:
            InputError: the disk is full.
        """
        sparse = {name: _sparse(count) for name, count in counts.items()}
        line = json.dumps({"id": identifier, **sparse}).encode() + b"\n"
        with self._lock:
            self.added += 1
            self.marked[identifier] = {name: sparse[name][0] for name in self._marks}
            for name, count in counts.items():
                self._sums[name] += count
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise InputError(
                    f"cannot write {self._path}: {error.strerror}; make room and start again"
                ) from error

    def totals(self) -> dict[str, np.ndarray]:
        """The sums over all photographs that are done, in all processes."""
        return {name: distributed.all_reduce_counts(total) for name, total in self._sums.items()}

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


def _checked(
    places: list[int], values: list[int], total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The places and values of a line as arrays, if they can be counts in `total`."""
    where, counts = np.asarray(places, np.int64), np.asarray(values, np.int64)
    fits = where.shape == counts.shape == (len(np.unique(where)),)
    if not fits or (where < 0).any() or (where >= total.size).any():
        raise ValueError("not the counts of a photograph")
    return where, counts
