"""What an evaluation has finished, so that one that was stopped goes on where it was.

`evaluation.json` says what was evaluated; `done-<process>.jsonl` gets one line for each photograph
when all its files are written: its id, its pixel counts, and marks such as its classes. The scores
are sums over these lines.
"""

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.files import InputError, read_json, write_json
from utils.checkpoints.training_state import HARMLESS, changed_options
from utils.runs import distributed
from utils.runs.options import RunSettings
from utils.runs.run import RESULT, Run

FILE = "evaluation.json"
"""What is evaluated."""

TRAINED = ("last.pt", "best.pt", "training.pt")
"""What is in the folder of a training, and in none of an evaluation."""

DAMAGE = (LookupError, ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading a damaged line can raise."""

EVALUATION_HARMLESS = HARMLESS | {
    *("checkpoint", "crf_workers", "export_deeplab", "report_images", "submission")
}
"""Options that do not alter what an evaluation writes."""


def begun(settings: RunSettings, made_from: Mapping[str, str]) -> bool:
    """Whether the run's folder holds this evaluation, finished or not.

    Args:
        settings: of the run.
        made_from: fingerprints of photographs and networks.

    Raises:
        InputError: it holds one that was started otherwise; names every option that differs.
    """
    folder = settings.folder
    started = (folder / FILE).is_file() and any(folder.glob("done-*.jsonl"))
    if settings.overwrite or not started:
        return False
    before = read_json(folder / FILE)
    changes = changed_options(before, settings.options, made_from, EVALUATION_HARMLESS)
    if changes:
        finished = (folder / RESULT).exists()
        raise InputError(
            f"{folder} holds {'a finished' if finished else 'an unfinished'} evaluation that was "
            f"started otherwise: {'; '.join(changes)}. Give this one another --tag, or --overwrite"
            f"{'' if finished else ', or what that was started with to go on'}"
        )
    return True


def begin(settings: RunSettings, made_from: Mapping[str, str]) -> None:
    """Say in the run's folder what is evaluated."""
    content = {"script": Path(sys.argv[0]).name, "options": dict(settings.options)}
    write_json(settings.folder / FILE, {**content, "fingerprints": dict(made_from)})


def carry_out(
    settings: RunSettings,
    device: torch.device,
    made_from: Mapping[str, str],
    work: Callable[[Run], None],
    show: Callable[[Any], str],
) -> None:
    """Begin an evaluation, or go on with it; of one that is finished, print the result again.

    Args:
        settings: of the run.
        device: what the run computes on.
        made_from: fingerprints of photographs and networks.
        work: does the rest, and writes the result at last.
        show: what to print of the result.

    Raises:
        InputError: the folder holds a trained network; or see `begun` and `print_result`.
    """
    trained = [name for name in TRAINED if (settings.folder / name).exists()]
    if trained:  # which --overwrite would remove, perhaps the very one that is evaluated
        raise InputError(
            f"{settings.folder}: holds a training ({trained[0]}), and an evaluation has a folder "
            "of its own; give it another --tag"
        )
    goes_on = distributed.broadcast(distributed.is_first() and begun(settings, made_from))
    if goes_on and (settings.folder / RESULT).is_file():
        if distributed.is_first():
            print_result(settings.folder, show)
        return
    _keep_labels(settings)
    with Run(settings, device, continues=goes_on) as run:
        if distributed.is_first() and not goes_on:
            begin(settings, made_from)
        work(run)


def _keep_labels(settings: RunSettings) -> None:
    """Refuse to empty a folder that holds the labels which are to be read, such as predicted.csv.

    Raises:
        InputError: --overwrite would.
    """
    for name in ("labels", "labels_file"):
        file = settings.options.get(name)
        inside = file and settings.folder.resolve() in Path(file).resolve().parents
        if settings.overwrite and inside:
            raise InputError(
                f"--{name} {file}: lies in the folder that --overwrite empties; give this run "
                "another --tag"
            )


def print_result(folder: Path, show: Callable[[Any], str]) -> None:
    """Print what `show` makes of a finished evaluation's result.json.

    Raises:
        InputError: its result.json is not what an evaluator wrote.
    """
    path = folder / RESULT
    print(f"{folder} holds this evaluation, finished (--overwrite makes it anew)")
    try:
        text = show(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        raise InputError(f"{path}: not what an evaluator wrote; run it with --overwrite") from None
    if text:
        print(text)


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
