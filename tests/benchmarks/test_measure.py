import math
import time

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import Times, busy, compare, peak_memory, table

MEGABYTE = 250_000  # float32 values


def test_peak_memory_counts_what_is_alive_at_once():
    x = torch.ones(MEGABYTE)

    def two_at_once():
        y = x + x
        del y
        y = x + x
        return y + x

    assert peak_memory(two_at_once) == pytest.approx(2e6, abs=1000)


def test_peak_memory_of_a_gradient():
    x = torch.ones(MEGABYTE, requires_grad=True)
    # exp keeps its result; its gradient needs one more map, and so does sum's expanded one.
    peak = peak_memory(lambda: torch.autograd.grad(x.exp().exp(), x, torch.ones_like(x)))
    assert 3e6 <= peak <= 5e6 + 1000


def test_how_long_a_gpu_is_busy(monkeypatch):
    events = [
        {"cat": "kernel", "dur": 1500.0, "ts": 12.0},
        {"cat": "gpu_memcpy", "dur": 500.0, "ts": 13.0},
        {"cat": "kernel", "dur": 70.0, "ts": 3.0},  # what was launched before
        {"cat": "user_annotation", "name": measure.MARK, "ts": 10.0, "dur": 9.0},
        {"cat": "cpu_op", "dur": 9000.0, "ts": 11.0},
        {"cat": "cuda_runtime", "dur": 7.0, "ts": 11.0},
        {"ph": "M"},
    ]
    calls = []
    monkeypatch.setattr(measure, "_trace", lambda run, *_: run() or events)
    assert busy(lambda: calls.append("run")) == (2.0, 2)
    assert len(calls) == 2, "what is prepared by the first call does not count"


def test_a_machine_without_a_gpu_keeps_none_busy():
    milliseconds, launches = busy(lambda: torch.ones(3) + 1)
    assert math.isnan(milliseconds) and launches == 0


def test_compare_takes_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # else it warms up once more
    calls = []
    times = compare(
        {"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.002))},
        repeats=4,
        warmup=1,
    )
    assert calls == ["a", "b", "b", "a"] * 2 + ["a", "b"]
    assert len(times.rounds["a"]) == 4 and times.ratio("b", "a").low > 1


def test_ratio_is_taken_round_by_round():
    ratio = Times({"a": [2.0, 30.0, 2.0], "b": [1.0, 10.0, 2.0]}).ratio("a", "b")
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.0, 3.0)
    assert str(ratio) == "2.00 [1.00..3.00]"


def test_table():
    lines = table("Title", ("case", "ms"), [("one", 1.234), ("three", 1234.5)]).splitlines()
    assert lines == [
        *("### Title", "", "| case  |   ms |"),
        *("| :---- | ---: |", "| one   | 1.23 |", "| three | 1234 |"),
    ]
