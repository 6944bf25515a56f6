"""The training loop of every stage."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.files import InputError
from datasets.loading import Plan
from utils.optimisers import PolynomialDecay, trainable
from utils.progress import progress
from utils.run import Run

Losses = dict[str, Tensor]
"""Scalars by name; `loss` is what is minimised."""

READ_EVERY = 20
"""On a GPU the losses are read once in so many steps: reading waits for the device."""


@dataclass
class Stage:
    """What one stage's training needs.

    Attributes:
        model: what is trained; put into training mode before every epoch.
        objective: the losses of a batch on the device.
        optimizer: of the model's parameters.
        decay: of its learning rates.
        clip: the gradient's norm is clipped at this.
        accumulate: a batch is taken in so many parts, whose gradients add up to its mean.
        after_epoch: called with the epoch (from 0) and its mean losses.
    """

    model: nn.Module
    objective: Callable[[dict[str, Tensor]], Losses]
    optimizer: Optimizer
    decay: PolynomialDecay
    after_epoch: Callable[[int, dict[str, float]], None]
    clip: float = math.inf
    accumulate: int = 1


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
        rows = torch.stack(self._waiting).tolist()
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

    def restart_clock(self) -> None:
        """Leave the time since the last reading out of images/s."""
        self._clock = time.monotonic()

    def _not_finite(self, step: int, values: dict[str, float]) -> InputError:
        epoch, position = divmod(step, self.plan.steps_per_epoch)
        return InputError(
            f"loss or gradient is not finite at step {position + 1} of epoch {epoch + 1} "
            f"({shown(values)}); last finite: {shown(self.last) or 'none'}; the checkpoints in "
            f"{self.run.folder} are those of the last whole epoch; try a lower --lr"
        )


def shown(losses: dict[str, float]) -> str:
    """Losses in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on the device, copied without waiting where its memory is pinned."""
    if "error" in batch:
        raise InputError(batch["error"])
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def backward(stage: Stage, batch: dict[str, Tensor]) -> Losses:
    """Add the gradients of a batch to the parameters; its losses, detached."""
    names, parts = (
        list(batch),
        zip(*(v.chunk(stage.accumulate) for v in batch.values()), strict=True),
    )
    size = len(next(iter(batch.values())))
    total: Losses = {}
    for part in parts:
        losses = stage.objective(dict(zip(names, part, strict=True)))
        share = len(part[0]) / size
        (losses["loss"] * share).backward()
        for name, loss in losses.items():
            total[name] = total.get(name, 0) + loss.detach() * share
    return total


def train(run: Run, plan: Plan, batches: Iterable, stage: Stage, device: torch.device) -> None:
    """Train a stage.

    Args:
        run: logs go here.
        plan: how long.
        batches: all batches of the training in order, as dicts of tensors.
        stage: what is trained and how.
        device: batches are moved there.

    Raises:
        InputError: a loss is not finite, or an image cannot be read.
    """
    parameters = trainable(stage.model)
    every = READ_EVERY if device.type == "cuda" else 1
    reader = LossReader(run, plan, stage.optimizer, every)
    batches = iter(batches)
    for epoch in range(plan.epochs):
        stage.model.train()
        reader.restart_clock()
        first = epoch * plan.steps_per_epoch
        steps = range(first, first + plan.steps_per_epoch)
        with progress(steps, f"epoch {epoch + 1}/{plan.epochs}", "step") as bar:
            for step in bar:
                stage.decay.before_step(step)
                stage.optimizer.zero_grad(set_to_none=True)
                losses = backward(stage, to_device(next(batches), device))
                losses["gradient"] = nn.utils.clip_grad_norm_(parameters, stage.clip)
                reader.add(step, losses)  # before the step: what is not finite must not be taken
                stage.optimizer.step()
                bar.set_postfix_str(shown(reader.last), refresh=False)
        reader.read(steps[-1])
        stage.after_epoch(epoch, reader.epoch_means())
