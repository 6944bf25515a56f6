"""Some hundred files of the fuzzer, and whether it notices what it is there to notice."""

import os
import socket
import time

import pytest
import torch

from datasets.files import InputError
from tests.fuzz import guard, planted
from tests.fuzz.make_seeds import SEEDS
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.running import (
    FAILED,
    READ,
    REFUSED,
    Case,
    make_case,
    run_all,
    run_case,
    schedule,
    warm_up,
)

FILES = 500


@pytest.fixture(scope="module", autouse=True)
def _warm():
    pytest.importorskip("pycocotools")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warm_up()
    yield
    torch.set_num_threads(threads)


def test_every_reader_reads_its_seeds():
    for name, reader in READERS.items():
        outcomes = {run_case(Case(0, name, seed)).outcome for seed in reader.seeds()}
        # Not every image is a label map; the other seeds are good files.
        assert outcomes <= ({READ, REFUSED} if reader.kind == "image" else {READ}), name
        assert READ in outcomes, name


def test_mutated_files_are_read_or_refused():
    results = [run_case(make_case(0, number)) for number in range(FILES)]
    failed = [f"case {r.number}, {r.reader}: {r.detail}" for r in results if r.outcome == FAILED]
    assert not failed, "\n".join(failed)
    assert {result.reader for result in results} == set(READERS)
    assert {READ, REFUSED} == {result.outcome for result in results}


def test_cases_are_repeatable_and_differ():
    rounds = len(schedule())
    first, again = ([make_case(7, n) for n in range(rounds)] for _ in range(2))
    assert first == again
    assert first != [make_case(8, n) for n in range(rounds)]
    unchanged = [c for c in first if c.data in READERS[c.reader].seeds()]
    assert len(unchanged) < rounds / 10


def outcome_of(read):
    """What the fuzzer says of a reader."""
    return run_case(Case(0, "planted", b"x"), {"planted": Reader("list", read)})


def write_outside(path, folder):
    (SEEDS / "planted").write_bytes(b"")


def hidden(path, folder):
    """Code runs, and the reader swallows every error."""
    try:
        os.system("true")
    except BaseException:
        raise InputError("refused") from None


@pytest.mark.parametrize(
    "read, message",
    [
        (lambda path, folder: {}["missing"], "KeyError: 'missing'"),
        (lambda path, folder: os.system("true"), "os.system"),
        (lambda path, folder: eval("1 + 1"), "compile"),
        (lambda path, folder: exec(compile("1", "file.py", "exec")) or os.fork(), "os.fork"),
        (lambda path, folder: os.posix_spawn("/bin/true", ["true"], {}), "os.posix_spawn"),
        (lambda path, folder: socket.socket(), "socket"),
        (write_outside, "open"),
        (lambda path, folder: path.rename(folder.parent / "planted"), "os.rename"),
        (lambda path, folder: os.mkdir(folder / ".." / "planted"), "os.mkdir"),
        (hidden, "os.system"),
    ],
)
def test_planted_crimes_are_noticed(read, message):
    result = outcome_of(read)
    assert result.outcome == FAILED and message in result.detail
    assert not (SEEDS / "planted").exists()


def test_what_readers_may_do():
    assert outcome_of(lambda path, folder: (folder / "a").write_bytes(b"")).outcome == READ
    assert outcome_of(lambda path, folder: path.read_bytes()).outcome == READ
    result = outcome_of(lambda path, folder: write_error("bad input"))
    assert result.outcome == REFUSED and not result.detail
    assert outcome_of(lambda path, folder: write_error("x" * 10_000)).outcome == FAILED


def write_error(message):
    raise InputError(message)


def test_hangs_and_memory_are_noticed(monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.2)
    result = outcome_of(lambda path, folder: time.sleep(5))
    assert result.outcome == FAILED and "more than 0.2 s" in result.detail
    monkeypatch.setattr(guard, "SECONDS", 20)
    # Filling 2 GiB takes seconds, so only the measurement is planted.
    peaks = iter([2**30, 2**30 + guard.BYTES, 2**30, 2**30 + guard.BYTES + 1])
    monkeypatch.setattr(guard, "peak_bytes", lambda: next(peaks))
    assert outcome_of(lambda path, folder: None).outcome == READ
    result = outcome_of(lambda path, folder: write_error("refused"))
    assert result.outcome == FAILED and "bytes of memory" in result.detail


@pytest.mark.parametrize(
    "worker, reason",
    [(planted.crash_at_two, "ended with status -11"), (planted.hang_at_two, "no answer")],
)
def test_a_process_that_ends_is_a_failure_and_the_rest_goes_on(worker, reason):
    first, failed, last = run_all(0, [1, 2, 3], worker, patience=3)
    assert (first, last) == (1, 3)
    assert (failed.number, failed.outcome) == (2, FAILED) and reason in failed.detail
