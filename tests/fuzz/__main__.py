"""Fuzzes every reader: python -m tests.fuzz --mutations 10000 --seed 0 [--record FILE.json]"""

import argparse
import json
import platform
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch

from tests.fuzz.running import FAILED, keep, run_all


def options():
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz")
    parser.add_argument("--mutations", type=int, default=10_000, metavar="N", help="cases 0 to N-1")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run one case again")
    parser.add_argument("--record", metavar="FILE", help="write the counts as JSON")
    parser.add_argument(
        "--failures",
        default="experiments/fuzz",
        metavar="DIR",
        help="where files that fail are kept (default: %(default)s)",
    )
    return parser.parse_args()


def versions():
    named = {"torch": torch, "numpy": np, "pillow": PIL, "opencv": cv2}
    found = {name: module.__version__ for name, module in named.items()}
    return {"python": platform.python_version(), **found}


def main():
    given = options()
    numbers = range(given.mutations) if given.only is None else [given.only]
    counts, failures, start = {}, [], time.perf_counter()
    for result in run_all(given.seed, numbers):
        counts.setdefault(result.reader, Counter())[result.outcome] += 1
        if result.outcome == FAILED:
            failures.append(result.number)
            keep(result, given.seed, given.failures)
            print(f"case {result.number}, {result.reader}: {result.detail.strip()}", flush=True)
    record = {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m tests.fuzz", *sys.argv[1:]]),
        "versions": versions(),
        "mutations": sum(sum(count.values()) for count in counts.values()),
        "failed": failures,
        "seconds": round(time.perf_counter() - start),
        "readers": {name: dict(sorted(count.items())) for name, count in sorted(counts.items())},
    }
    print(json.dumps(record["readers"], indent=1))
    print(f"{record['mutations']} files, {len(failures)} failed, {record['seconds']} s")
    if given.record:
        Path(given.record).write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
