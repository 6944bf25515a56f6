"""The checkpoints that a training keeps: the last one, and the best one where masks tell."""

from typing import Any

from utils import checkpoints
from utils.runs.run import Run

PANELS = 4
"""Photographs that tensorboardX shows whenever checkpoints are written."""


class Kept:
    """`last.pt` and `best.pt` of a run.

    Args:
        run: in whose folder they lie.
        resumed: the run goes on, and may have a best one already.

    Attributes:
        best: mIoU of the best one, -1 where nothing was scored.
    """

    def __init__(self, run: Run, resumed: bool) -> None:
        self.run = run
        self.best = self._best_so_far() if resumed else -1.0

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

    def _best_so_far(self) -> float:
        path = self.run.folder / "best.pt"
        found = checkpoints.read(path).get("miou") if path.is_file() else None
        return float(found) if isinstance(found, int | float) else -1.0
