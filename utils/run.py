"""One run, one folder: options, a readable log, tensorboardX events, and what the run writes."""

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from tensorboardX import SummaryWriter
from tqdm import tqdm

from datasets.files import InputError, write_json
from utils.devices import peak_memory

LESS_MEMORY = (
    "a smaller --batch or --crop needs less, in train_cls scripts --accumulate 2 (or more) with "
    "the same --batch and --amp too, in evaluators smaller --scales"
)


WRITTEN = (
    "*.pt",
    "result.json",
    "contact_sheet.png",
    "pseudo_labels",
    "pseudo_labels_crf",
    "cams",
    "cams_irn",
    "cams_psa",
)
"""What makes a folder that of a run; options, log and events alone are left of a failed start."""


class Run:
    """The folder `experiments/<tag>/` of one run.

    Holds `options.json`, `log.txt`, tensorboardX events, and whatever the run adds. As a context
    manager it ends the log, with the error if there is one.

    Args:
        options: parsed options with `experiments`, `tag` and `overwrite`, which removes what an
            earlier run of the tag wrote.
        device: what the run computes on.

    Raises:
        InputError: the folder holds another run, or cannot be written.
    """

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.options, self.device = options, device
        self.folder = Path(options.experiments) / options.tag
        if not options.tag:
            raise InputError("--tag: must not be empty")
        self._make_way(options.overwrite)
        values = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
        write_json(self.folder / "options.json", {"script": Path(sys.argv[0]).name, **values})
        try:
            self._log = open(self.folder / "log.txt", "w", encoding="utf-8")  # noqa: SIM115
            self.writer = SummaryWriter(str(self.folder))
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {error.strerror}") from error
        self._started = time.monotonic()
        self.log(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {shlex.join(sys.argv)}")
        self.log(f"torch {torch.__version__}, options {json.dumps(values)}")

    def _make_way(self, overwrite: bool) -> None:
        """Refuse the folder of another run, or remove what that wrote."""
        earlier = [path for pattern in WRITTEN for path in self.folder.glob(pattern)]
        if earlier and not overwrite:
            raise InputError(
                f"{self.folder} already holds a run; give this one another --tag, or --overwrite"
            )
        try:
            for path in [*earlier, *self.folder.glob("events.out.tfevents.*")]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise InputError(f"cannot remove {path}: {error.strerror}") from error

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            seconds = duration(time.monotonic() - self._started)
            self.say(f"took {seconds}, at most {peak_memory(self.device)}")
        else:
            self.log(f"stopped: {error or kind.__name__}")
        self.writer.close()
        self._log.close()

    def log(self, text: str) -> None:
        """Write a line to the log alone."""
        self._log.write(text + "\n")
        self._log.flush()

    def say(self, text: str = "") -> None:
        """Print a line beside any progress bar and write it to the log."""
        tqdm.write(text, file=sys.stdout)
        self.log(text)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers to tensorboardX."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Log a picture (H, W, 3) uint8 to tensorboardX."""
        self.writer.add_image(name, image, step, dataformats="HWC")


def duration(seconds: float) -> str:
    """Seconds in words: `1 h 02 min`, `3 min 05 s`, `7 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


def start(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and run `main`; bad input ends in one line and exit status 2."""
    options = parser.parse_args()
    try:
        main(options)
    except InputError as error:
        if options.debug:
            raise
        sys.exit(_fail(f"error: {error}", 2))
    except torch.OutOfMemoryError as error:
        if options.debug:
            raise
        reason = str(error).split(". ")[0]
        sys.exit(_fail(f"error: the GPU's memory is full ({reason}); {LESS_MEMORY}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("stopped by Ctrl-C", 130))


def _fail(message: str, status: int) -> int:
    tqdm.write(message, file=sys.stderr)
    return status
