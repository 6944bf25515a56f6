"""Runs a script and records what it logs in every step, for tests that start it in processes.

python tests/recording.py OUT.json SCRIPT ARGUMENT ..

Superpixel networks and DCR keep their batch statistics: those of a part of a batch are not the
whole's.
"""

import json
import os
import runpy
import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from networks.dcr import DCR
from networks.superpixel import SuperpixelNet
from utils.runs.run import Run


def main() -> None:
    """Run the script that the command line names."""
    out, sys.argv = Path(sys.argv[1]), sys.argv[2:]
    steps = []

    def record(run: Run, values: dict[str, float], step: int) -> None:
        steps.append({"step": step, **values})
        if os.environ.get("RANK", "0") == "0":
            out.write_text(json.dumps(steps))

    Run.scalars = record
    for kept in (SuperpixelNet, DCR):
        kept.train = lambda network, mode=True: nn.Module.train(network, False)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
