"""One run, one folder: options, a readable log, tensorboardX events, and what the run writes."""

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets import roots
from datasets.files import InputError, remove_unfinished, write_json
from utils.runs import distributed
from utils.runs.devices import peak_memory
from utils.runs.events import open_events
from utils.runs.interruption import Interruption
from utils.runs.options import RunSettings
from utils.runs.reader import Reader
from utils.runs.wording import counted

OPTIONS = "options.json"
"""What a run was told; in the folder of every run."""

EVALUATION = "evaluation.json"
"""What an evaluation evaluates; written first."""

RESULT = "result.json"
"""What an evaluation found; written last."""

PREDICTED_FILE = "predicted.csv"
"""The classes that --labels predicted has found."""

WRITTEN = (
    "*.pt",
    RESULT,
    "done-*.jsonl",
    PREDICTED_FILE,
    "contact_sheet.png",
    "report.html",
    "report",
    "pseudo_labels",
    "pseudo_labels_crf",
    "masks",
    "masks_crf",
    "overlays",
    "cams",
    "cams_irn",
    "cams_psa",
)
"""What makes a folder that of a run; options, log and events alone are left of a failed start."""


AGAIN = "start again, a training with --resume"


class Run:
    """The folder `experiments/<tag>/` of one run.

    Holds `options.json`, `log.txt`, tensorboardX events, and whatever the run adds. As a context
    manager it ends the log, with the error if there is one, and listens to SIGTERM and Ctrl-C.
    Of several processes the first alone writes and prints.

    Args:
        settings: the folder, what to do with an earlier run in it, and the options to keep there.
        device: what the run computes on.
        continues: the folder holds this run's beginning; the log goes on.
        first_step: of a training that continues: what events say of later steps is hidden.

    Attributes:
        settings, device: see Args.
        folder: of the run.
        skipped: messages about photographs that were left out (--skip_bad), each once.
        interruption: the signals that were heard.

    Raises:
        InputError: the folder holds another run, is in use, or cannot be written.
    """

    def __init__(
        self,
        settings: RunSettings,
        device: torch.device,
        continues: bool = False,
        first_step: int | None = None,
    ) -> None:
        self.settings, self.device = settings, device
        self.folder = settings.folder
        self.skipped: dict[str, None] = {}
        self.interruption = Interruption()
        self._started = time.monotonic()
        self._log = self._events = None
        if distributed.is_first():
            self._open(continues, first_step)

    @property
    def workers(self) -> int:
        """How many processes read photographs."""
        return self.settings.workers_for(self.device)

    @property
    def reader(self) -> Reader:
        """Reads photographs for inference."""
        return Reader(self.device, self.workers, self.bad)

    def _open(self, continues: bool, first_step: int | None) -> None:
        values = dict(self.settings.options)
        self._refuse_other_files()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._log = open(  # noqa: SIM115
                self.folder / "log.txt", "a", encoding="utf-8", errors="backslashreplace"
            )
            self._lock()
            if not continues:
                self._make_way(self.settings.overwrite)
                self._log.truncate(0)
            remove_unfinished(self.folder)
        except OSError as error:
            raise InputError(
                f"cannot write into {self.folder}: {error.strerror}; make room, or name another "
                "folder with --experiments"
            ) from error
        write_json(self.folder / OPTIONS, {"script": Path(sys.argv[0]).name, **values})
        self._events = open_events(self.folder, first_step if continues else None)
        self.log(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {shlex.join(sys.argv)}")
        self.log(f"torch {torch.__version__}, options {json.dumps(values)}")
        if self._events is None:
            self.note("tensorboardX is not installed: no events are written")

    def _lock(self) -> None:
        """Refuse a folder into which another process writes; its end, however, frees the folder."""
        if os.name != "posix":
            return
        import fcntl  # Unix only

        try:
            # Unlike flock's, this lock is not inherited by workers that may outlive a killed run.
            fcntl.lockf(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(
                f"{self.folder}: another process writes there at the moment; wait for it, or give "
                "this run another --tag"
            ) from None
        except OSError:  # a file system without locks
            return

    def _refuse_other_files(self) -> None:
        """Refuse a folder that is no run's and holds files which a run would replace."""
        if (self.folder / OPTIONS).is_file():
            return
        for pattern in (*WRITTEN, "events.out.tfevents.*", "log.txt"):
            for path in self.folder.glob(pattern):
                if path.name != "log.txt" or path.stat().st_size:  # a start that failed at once
                    raise InputError(
                        f"{self.folder}: holds {path.name} but no {OPTIONS}, so it is no run's "
                        "folder; give this run another --tag"
                    )

    def _make_way(self, overwrite: bool) -> None:
        """Refuse the folder of another run, or remove what that wrote."""
        earlier = [path for pattern in WRITTEN for path in self.folder.glob(pattern)]
        if earlier and not overwrite:
            stopped = (self.folder / "training.pt").is_file()
            goes_on = "--resume goes on with it; or " if stopped else ""
            raise InputError(
                f"{self.folder} already holds a run; {goes_on}give this one another --tag, or "
                "--overwrite"
            )
        try:
            for path in [*earlier, *self.folder.glob("events.out.tfevents.*")]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise InputError(f"cannot remove {path}: {error.strerror}") from error

    def __enter__(self) -> "Run":
        self.interruption.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.interruption.__exit__()
        if self._log is None:
            return
        try:
            if error is None:
                seconds = duration(time.monotonic() - self._started)
                self.say(f"took {seconds}, at most {peak_memory(self.device)}")
            else:
                with contextlib.suppress(InputError):  # a full disk must not hide the first error
                    self.log(f"ended: {error or kind.__name__}")
        finally:
            if self._events is not None:
                self._events.close()
            with contextlib.suppress(OSError):
                self._log.close()
        if error is None and self._events is not None:
            self._events.check()  # what waited until now may not have fitted on the disk

    def log(self, text: str) -> None:
        """Write a line to the log alone.

        Raises:
            InputError: the disk is full.
        """
        if self._log is None:
            return
        try:
            self._log.write(text + "\n")
            self._log.flush()
        except OSError as error:
            raise InputError(
                f"cannot write {self.folder / 'log.txt'}: {error.strerror}; make room and {AGAIN}"
            ) from error

    def say(self, text: str = "") -> None:
        """Print a line beside any progress bar and write it to the log."""
        if self._log is None:
            return
        try:
            tqdm.write(text, file=sys.stdout)
        except OSError as error:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the flush at exit would fail too)
            raise InputError(f"cannot write to standard output: {error.strerror}") from error
        self.log(text)

    def note(self, *texts: str) -> None:
        """Say what is worth knowing, a line each."""
        for text in texts:
            self.say(f"note: {text}")

    def say_next(self, script: str, *options: str | Path) -> None:
        """Say what to run next with which options, on the same data."""
        command = shlex.join(["python", script, *map(str, options)])
        self.say(f"next: {command}{same_place(self.settings.options)}")

    def bad(self, message: str) -> None:
        """A photograph that cannot be read is left out with --skip_bad, and ends the run without.

        Raises:
            InputError: with the message.
        """
        if not self.settings.skip_bad:
            raise InputError(f"{message} (--skip_bad goes on without such photographs)")
        if message not in self.skipped:
            self.skipped[message] = None
            self.say(f"skipped: {message}")

    def list_skipped(self) -> list[str]:
        """Say which photographs were left out, in whatever process; the messages."""
        found = distributed.gather(list(self.skipped))
        messages = sorted({message for part in found for message in part})
        if messages:
            skipped = counted(len(messages), "photograph was", "photographs were")
            self.say(f"{skipped} skipped because they cannot be read:")
            for message in messages:
                self.say(f"  {message}")
        return messages

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers to tensorboardX."""
        if self._events is not None:
            for name, value in values.items():
                self._events.writer.add_scalar(name, value, step)
            self._events.check()

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Log a picture (H, W, 3) uint8 to tensorboardX."""
        if self._events is not None:
            self._events.writer.add_image(name, image, step, dataformats="HWC")


def same_place(options: Mapping[str, Any]) -> str:
    """The options of a run that the next one needs too: where data and runs lie."""
    dataset = options.get("dataset", "voc12")
    root = roots.OPTIONS[dataset][0]
    usual = {"dataset": "voc12", "experiments": "experiments", root: roots.standing(root)}
    return "".join(
        f" --{name} {shlex.quote(str(options[name]))}"
        for name in ("dataset", root, "labels_file", "experiments")
        if options.get(name) and options[name] != usual.get(name)
    )


def duration(seconds: float) -> str:
    """Seconds in words: `1 h 02 min`, `3 min 05 s`, `7 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
