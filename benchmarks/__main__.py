"""Run the benchmarks of speed and memory, one after the other: python -m benchmarks [--size full]

Each prints its tables; what a run gave, and what was tried, is kept in benchmarks/README.md. What
matters on a GPU, benchmarks/gpu.py runs within a time limit.
"""

import argparse
import subprocess
import sys

NAMES = (
    *("operators", "affinity", "training", "scn_training", "segmentation"),
    *("inference", "thresholds", "loader", "evaluator"),
)


def main() -> int:
    """Run each benchmark in a process of its own; the number of those that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    given = parser.parse_args()
    failed = 0
    for name in NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--size", given.size]
        print(f"## {' '.join(command[1:])}\n", flush=True)
        failed += subprocess.run(command).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
