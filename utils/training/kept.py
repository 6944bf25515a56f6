"""The checkpoints that a training keeps: the last one, and the best one where masks tell."""

from pathlib import Path
from typing import Any

from utils import checkpoints
from utils.runs import distributed
from utils.runs.run import Run

PANELS = 4
"""Photographs that tensorboardX shows whenever checkpoints are written."""


class Kept:
    """`last.pt` and `best.pt` of a run.

    Args:
        run: in whose folder they lie.
        resume: what --resume names; the best one there, if any, is the best so far.

    Attributes:
        best: mIoU of the best one, -1 where nothing was scored.
    """

    def __init__(self, run: Run, resume: str | None) -> None:
        self.run = run
        self.best = -1.0 if resume is None else self._best_so_far(Path(resume or run.folder))

    def save(self, content: dict[str, Any], found: dict[str, Any] | None) -> None:
        """Write a checkpoint as the last one, and as the best one if it is.

        Args:
            content: of the checkpoint.
            found: what scoring with masks found, its `miou` and more; None where nothing is scored.
        """
        # Without what was found with masks: the last checkpoint is the one that uses none.
        checkpoints.save(self.run.folder / "last.pt", content)
        if found is not None and found["miou"] > self.best:
            self.best = found["miou"]
            checkpoints.save(self.run.folder / "best.pt", {**content, **found})

    def say_which(self, chosen_by: str, next_script: str, *options: str, take_best: bool) -> None:
        """Say what the checkpoints are, and what to run next with which.

        Args:
            chosen_by: what chose best.pt, a sentence.
            next_script: takes the checkpoint.
            options: what else it needs.
            take_best: whether that is best.pt, if there is one.
        """
        chosen = self.best > -1
        if chosen:
            self.run.say(f"{chosen_by} last.pt is not chosen by masks.")
        name = "best.pt" if chosen and take_best else "last.pt"
        self.run.say_next(next_script, "--checkpoint", self.run.folder / name, *options)

    def _best_so_far(self, resumed: Path) -> float:
        """The mIoU of the best checkpoint of a run, -1 without one; another run's is copied."""
        path = (resumed if resumed.is_dir() else resumed.parent) / "best.pt"
        content = checkpoints.read(path) if path.is_file() else {}
        found = content.get("miou")
        if not isinstance(found, int | float):
            return -1.0
        if path.parent.resolve() != self.run.folder.resolve() and distributed.is_first():
            checkpoints.save(self.run.folder / "best.pt", content)
        return float(found)
