"""Losses on their way from the device to the log."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from datasets.files import InputError
from datasets.loading import Plan
from utils.runs import distributed
from utils.runs.run import Run

Losses = dict[str, Tensor]
"""Scalars by name; `loss` is what is minimised."""


READ_EVERY = 20
"""On a GPU the losses are read once in so many steps: reading waits for the device."""


class LossReader:
    """Reads losses off the device, stops a run whose loss or gradient is not finite, and logs.

    Args:
        run: logs go here.
        plan: names epochs and steps.
        optimizer: its learning rates are logged.
        every: steps between readings.
    """

    def __init__(self, run: Run, plan: Plan, optimizer: Optimizer, every: int) -> None:
        self.run, self.plan, self.optimizer, self.every = run, plan, optimizer, every
        self.last: dict[str, float] = {}
        self._waiting: list[Tensor] = []
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._clock = time.monotonic()

    def add(self, step: int, losses: Losses) -> None:
        """Take the losses of a step; read those that wait if it is time."""
        self._names = list(losses)
        self._waiting.append(torch.stack(list(losses.values())))
        if len(self._waiting) >= self.every:
            self.read(step)

    def read(self, step: int) -> None:
        """Read the losses of the steps up to `step`.

        Raises:
            InputError: one is not finite.
        """
        if not self._waiting:
            return
        rows = distributed.all_reduce_mean(torch.stack(self._waiting)).tolist()
        for i, row in enumerate(rows):
            values = dict(zip(self._names, row, strict=True))
            if not all(map(math.isfinite, row)):
                raise self._not_finite(step - len(rows) + 1 + i, values)
            self.last = values
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            self._steps += 1
        now = time.monotonic()
        rate = len(rows) * self.plan.batch / max(now - self._clock, 1e-9)
        self._clock = now
        self._waiting.clear()
        scalars = {f"train/{name}": value for name, value in self.last.items()}
        scalars["train/lr"] = self.optimizer.param_groups[0]["lr"]
        scalars["train/images_per_second"] = rate
        self.run.scalars(scalars, step)

    def epoch_means(self) -> dict[str, float]:
        """Mean losses since the last call."""
        means = {name: value / self._steps for name, value in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """What has been read in this epoch."""
        return {"sums": dict(self._sums), "steps": self._steps, "last": dict(self.last)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo `state`."""
        self._sums = {str(name): float(value) for name, value in state["sums"].items()}
        self.last = {str(name): float(value) for name, value in state["last"].items()}
        self._steps = int(state["steps"])

    def restart_clock(self) -> None:
        """Leave the time since the last reading out of images/s."""
        self._clock = time.monotonic()

    def _not_finite(self, step: int, values: dict[str, float]) -> InputError:
        epoch, position = divmod(step, self.plan.steps_per_epoch)
        return InputError(
            f"loss or gradient is not finite at step {position + 1} of epoch {epoch + 1} "
            f"({in_words(values)}); last finite: {in_words(self.last) or 'none'}; the checkpoints "
            f"in {self.run.folder} are from before; try a lower --lr"
        )


def in_words(losses: dict[str, float]) -> str:
    """Losses in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
