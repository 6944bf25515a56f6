"""Where a training begins: at its start, or where an earlier process of it stopped."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.files import InputError
from datasets.loading import Plan
from utils.checkpoints import files
from utils.checkpoints.pickles import COPY_AGAIN
from utils.runs import distributed, options
from utils.runs.changes import HARMLESS, changed_options
from utils.runs.options import RunSettings
from utils.runs.run import EVALUATION, Run

FILE = "training.pt"
"""Holds the state of a training, in the folder of its run."""


@dataclass(frozen=True)
class ResumeSettings:
    """When the state of a training is saved, and from which one it goes on.

    Attributes:
        resume: None starts anew; a file or folder goes on from the state there, an empty string
            from that of the run itself.
        force: go on although options or data have changed.
        checkpoint_minutes: the state is saved that often, 0 for after every epoch only.
    """

    resume: str | None = None
    force: bool = False
    checkpoint_minutes: float = 15.0


def add_resume_options(parser: argparse.ArgumentParser) -> None:
    """When training state is saved, and how a training goes on from there."""
    group = parser.add_argument_group("stopping and resuming")
    group.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE|DIR",
        help="go on where this run stopped, or from another run's folder or training.pt; a run "
        "that has saved nothing yet starts at its beginning",
    )
    group.add_argument(
        "--force", action="store_true", help="resume although options or data have changed"
    )
    group.add_argument(
        "--checkpoint_minutes",
        type=options.not_negative,
        default=15.0,
        help="save the training state that often (and after every epoch; 0: only then). SIGTERM "
        "and Ctrl-C save it too",
    )


class Beginning:
    """The training state to go on from, or none.

    Args:
        settings: of the run.
        resuming: whether and from where the training goes on.
        made_from: fingerprints of what it is made from, by name; see `also_made_from`.

    Attributes:
        settings, resuming, made_from: see Args.
        path: of the state to go on from.
        content: of that file; None where the training begins at its start.

    Raises:
        InputError: the file to go on from is missing, no training state, or was made with other
            options or data (unless forced).
    """

    def __init__(
        self, settings: RunSettings, resuming: ResumeSettings, made_from: Mapping[str, str]
    ) -> None:
        self.settings, self.resuming, self.made_from = settings, resuming, dict(made_from)
        self.path, self.content = settings.folder / FILE, None
        if resuming.resume is None:
            return
        if settings.overwrite:
            raise InputError("--overwrite: removes what --resume needs; give one of them")
        found = self._find() if distributed.is_first() else None
        self.path, self.content = distributed.broadcast(found) or (self.path, None)
        self._refuse_changes(self.made_from)

    def also_made_from(self, more: Mapping[str, str]) -> None:
        """Fingerprints of what is known only after the start, such as networks that are built.

        Raises:
            InputError: the file to go on from was made with others (unless forced).
        """
        self.made_from |= more
        self._refuse_changes(more)

    def _find(self) -> tuple[Path, dict[str, Any]] | None:
        """The file to go on from and its content; None where nothing was saved yet."""
        named = self.resuming.resume
        path = Path(named) if named else self.settings.folder
        path = path / FILE if path.is_dir() or not named else path
        if not named and not path.is_file():
            if any(path.parent.glob("*.pt")):
                raise InputError(
                    f"{path}: no such file, so the run there cannot go on; give another --tag, or "
                    "--overwrite"
                )
            return None
        return path, read_state(path)

    def _refuse_changes(self, made_from: Mapping[str, str]) -> None:
        if self.content is None:
            return
        changes = changed_options(self.content, self.settings.options, made_from, HARMLESS)
        if changes and not self.resuming.force:
            raise InputError(
                f"{self.path}: the run was started otherwise: {'; '.join(changes)}. Give what it "
                "was started with, --force to go on all the same, or another --tag for a new run"
            )

    def open_run(self, device: torch.device) -> Run:
        """The run's folder, going on there if the state is the folder's own.

        Raises:
            InputError: the folder holds an evaluation; or see Run.
        """
        folder = self.settings.folder
        own = self.content is not None and self.path.resolve().parent == folder.resolve()
        # --overwrite would remove labels to learn from.
        if (folder / EVALUATION).is_file() and not own:
            raise InputError(
                f"{folder}: holds an evaluation, and a training has a folder of its own; give it "
                "another --tag"
            )
        # With another batch (--force) steps count otherwise; then no event is hidden.
        batch = self.settings.options.get("batch")
        same = own and self.content["options"].get("batch") == batch
        step = self.content["step"] if same else None
        return Run(self.settings, device, continues=own, first_step=step)

    def place(self, plan: Plan) -> tuple[int, int]:
        """The epoch that was under way, from 0, and how many of its steps are done.

        Raises:
            InputError: the training was longer.
        """
        if self.content is None:
            return 0, 0
        epoch, position = self.content["epoch"], self.content["position"]
        if epoch >= plan.epochs:
            raise InputError(
                f"{self.path}: is in epoch {epoch + 1}, which is more than is asked for; train "
                "longer"
            )
        return epoch, min(position, plan.steps_per_epoch)


def read_state(path: Path) -> dict[str, Any]:
    """The content of a training state, its numbers and options checked.

    Raises:
        InputError: no training state, or damaged.
    """
    content = files.read(path)
    wanted = {"kind", "script", "options", "fingerprints", "epoch", "position", "model", "step"}
    if content.get("kind") != "training" or not wanted <= set(content):
        raise InputError(f"{path}: not a training state; --resume needs a run's {FILE}")
    try:
        for name in ("epoch", "position", "step"):
            content[name] = range(1 << 40)[content[name]]  # an integer, and no absurd one
        content["script"] = str(content["script"])
        for name in ("options", "fingerprints"):
            content[name] = json.loads(json.dumps(content[name]))
            content[name].items()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise InputError(f"{path}: a damaged training state; {COPY_AGAIN}") from None
    return content
