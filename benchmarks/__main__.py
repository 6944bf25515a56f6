"""Run all benchmarks, one after the other: python -m benchmarks [--size full] [--device cuda]

Each prints its tables; what a run gave, and what was tried, is kept in benchmarks/README.md. For a
GPU, benchmarks/gpu.py runs these and more within a time limit.
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
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    given = parser.parse_args()
    failed = 0
    for name in NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        command += ["--size", given.size, "--device", given.device]
        print(f"## {' '.join(command[1:])}\n", flush=True)
        failed += subprocess.run(command).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
