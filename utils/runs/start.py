"""How every script starts and ends: errors become one line and an exit status."""

import argparse
import sys
import traceback
from collections.abc import Callable

import torch
from tqdm import tqdm

from datasets.command_line import print_anything
from datasets.files import InputError
from utils.runs import distributed
from utils.runs.interruption import Stopped
from utils.runs.run import AGAIN

LESS_MEMORY = (
    "a smaller --batch or --crop needs less, in trainings --amp and (not in train_scn.py) a "
    "greater --accumulate with the same --batch too, in evaluators smaller --scales or --max_side"
)


NO_MEMORY = ("DefaultCPUAllocator", "Insufficient memory")
"""What torch and OpenCV say when main memory is full."""


def start(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and run `main`; bad input ends in one line and exit status 2.

    Under torchrun the processes join first, and an error is printed by one of them.
    """
    print_anything()
    with distributed.quiet_unless_first():
        args = parser.parse_args()
    group = distributed.Group()
    try:
        with group:
            main(args)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        status, message = _answer(error)
        if not group.may_report():
            group.leave(status)
        if message is None or (args.debug and isinstance(error, Exception)):
            # Not raised: Python would keep the loader's processes until the very end, and wait.
            traceback.print_exc()
        else:
            tqdm.write(message, file=sys.stderr)
        group.leave(status)
    if distributed.joined():
        group.leave(0)


def _answer(error: BaseException) -> tuple[int, str | None]:
    """The exit status and the line that an error is answered with; None for a defect of ours."""
    if isinstance(error, InputError):
        return 2, f"error: {error}"
    if isinstance(error, torch.OutOfMemoryError):
        # The last line: DataParallel puts a traceback before it.
        reason = str(error).strip().rpartition("\n")[2].split(". ")[0]
        return 2, f"error: the GPU's memory is full ({reason}); {LESS_MEMORY}"
    if isinstance(error, KeyboardInterrupt):
        return 130, f"stopped by Ctrl-C; {AGAIN}"
    if isinstance(error, Stopped):
        return 128 + error.number, str(error)
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY):
        return 2, f"error: main memory is full; {LESS_MEMORY}"
    if distributed.lost_another(error):
        reason = text.split("] ")[-1].split("\n")[0][:80]
        return 1, f"error: another process of this run died, or is not reached ({reason}); {AGAIN}"
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return 1, (
            "error: a process that reads photographs died, perhaps for want of memory; fewer "
            f"--workers need less; {AGAIN}"
        )
    if isinstance(error, RuntimeError) and text.startswith("DataLoader timed out"):
        return 1, f"error: no photograph could be read in time ({text}); {AGAIN}"
    return 1, None
