"""The benchmarks of speed run: what they measure is no matter of tests."""

import subprocess
import sys

import pytest

from benchmarks import __main__ as benchmarks
from tests.calling import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*benchmarks.NAMES, "paths", "throughput"}))
def test_a_tiny_run(name, tmp_path):
    options = [
        "--device",
        "cpu",
        "--size",
        "tiny",
        "--repeats",
        "1",
        "--json",
        f"{tmp_path}/a.json",
    ]
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.json").is_file()
