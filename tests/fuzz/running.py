"""Runs cases: number -> a reader, a mutated file, an outcome."""

import multiprocessing
import random
import tempfile
import traceback
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets.files import InputError
from tests.fuzz.guard import SECONDS, ViolationError, guarded
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import READERS, scratch_file

READ, REFUSED, FAILED = "read", "refused", "failed"


@dataclass(frozen=True)
class Case:
    """One mutated file.

    Attributes:
        number: the case's number, which with the seed says everything about it.
        reader: name of the reader.
        data: the file.
    """

    number: int
    reader: str
    data: bytes


@dataclass(frozen=True)
class Result:
    """What came of a case: READ, REFUSED or FAILED, and the traceback of a failure."""

    number: int
    reader: str
    outcome: str
    detail: str = ""


def schedule():
    """The readers of one round: each as often as its share, evenly spread."""
    turns = [
        ((turn + 0.5) / reader.share, name)
        for name, reader in READERS.items()
        for turn in range(reader.share)
    ]
    return [name for _, name in sorted(turns)]


def make_case(seed, number):
    """The case of that number."""
    turns = schedule()
    name = turns[number % len(turns)]
    rng = random.Random(f"{seed}/{number}")
    seeds = READERS[name].seeds()
    data = mutate(rng.choice(seeds), seeds, READERS[name].mutated_as(), rng)
    return Case(number, name, data)


@contextmanager
def _folder():
    """A folder for one case; what libraries warn about in damaged files goes unsaid."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield folder


def run_case(case, readers=READERS):
    """Read a case's file in a folder of its own."""
    with _folder() as folder:
        path = scratch_file(folder)
        path.write_bytes(case.data)
        outcome, detail = READ, ""
        try:
            with guarded(folder):
                readers[case.reader].read(path, Path(folder))
        except InputError as error:
            outcome = REFUSED
            if len(str(error)) > 2000:
                outcome, detail = FAILED, f"a message of {len(str(error))} characters"
        except (Exception, ViolationError):
            outcome, detail = FAILED, traceback.format_exc()
    return Result(case.number, case.reader, outcome, detail)


def warm_up():
    """Read every seed, and half of it: what is imported on the way is imported before watching."""
    for reader in READERS.values():
        for seed in reader.seeds():
            for data in (seed, seed[: len(seed) // 2]):
                with _folder() as folder, suppress(InputError):
                    scratch_file(folder).write_bytes(data)
                    reader.read(scratch_file(folder), Path(folder))


def work(seed, numbers, pipe):
    """What the process does that reads the files."""
    torch.set_num_threads(1)
    warm_up()
    for number in numbers:
        pipe.send(run_case(make_case(seed, number)))


def run_all(seed, numbers, worker=work, patience=3 * SECONDS):
    """The results of these cases, read in a process of their own, so that a crash is a result too.

    C code that hangs does not heed the alarm: without an answer for `patience` seconds (three
    times as long for the first one, which waits for imports) the process is ended.
    """
    numbers = list(numbers)
    context = multiprocessing.get_context("spawn")
    while numbers:
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(seed, numbers, theirs), daemon=True)
        process.start()
        theirs.close()
        done = 0
        try:
            while done < len(numbers) and ours.poll(patience * (1 if done else 3)):
                yield ours.recv()
                done += 1
            reason = "no answer"
        except EOFError:
            process.join()
            reason = f"the process ended with status {process.exitcode}"
        process.kill()
        process.join()
        if done < len(numbers):
            yield Result(numbers[done], make_case(seed, numbers[done]).reader, FAILED, reason)
        numbers = numbers[done + 1 :]


def keep(result, seed, folder):
    """Save a failure: the file and what happened."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"seed{seed}_{result.number}_{result.reader}"
    stem.with_name(stem.name + ".bin").write_bytes(make_case(seed, result.number).data)
    stem.with_name(stem.name + ".txt").write_text(result.detail)
