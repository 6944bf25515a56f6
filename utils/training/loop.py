"""The training loop of every stage."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.files import InputError
from datasets.loading import Plan, ShuffledBatches, TrainingCrops, training_loader
from utils.checkpoints.resuming import GO_ON, Saved, StateKeeper
from utils.runs import devices, distributed
from utils.runs.progress import progress
from utils.runs.run import Run
from utils.training.losses import READ_EVERY, Losses, LossReader, shown
from utils.training.optimisers import PolynomialDecay, trainable


@dataclass
class Stage:
    """What one stage's training needs.

    Attributes:
        model: what is trained; put into training mode before every epoch.
        learner: the network in it, without wrappers, whose weights a training state holds.
        objective: the losses of a batch on the device.
        optimizer: of the model's parameters.
        decay: of its learning rates.
        after_epoch: called with the epoch (from 0) and its mean losses.
        clip: the gradient's norm is clipped at this.
        accumulate: a batch is taken in so many parts, whose gradients add up to its mean.
        made_from: fingerprints of what the training is made from, by name.
    """

    model: nn.Module
    learner: nn.Module
    objective: Callable[[dict[str, Tensor]], Losses]
    optimizer: Optimizer
    decay: PolynomialDecay
    after_epoch: Callable[[int, dict[str, float]], None]
    clip: float = math.inf
    accumulate: int = 1
    made_from: Mapping[str, str] = field(default_factory=dict)


def plan_of(images: int, batch: int, epochs: int) -> Plan:
    """The plan of a training; every process takes an equal part of each batch.

    Raises:
        InputError: batches cannot be shared out equally.
    """
    count = distributed.processes()
    if batch % count:
        raise InputError(f"--batch {batch}: must be a multiple of the {count} processes")
    if images < count:
        raise InputError(f"{images} photographs are too few for {count} processes")
    return Plan(images, min(batch, images // count * count), epochs)


def to_device(run: Run, batch: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
    """A batch on the device, copied without waiting where its memory is pinned.

    Raises:
        InputError: a photograph in it cannot be read, and is not to be skipped.
    """
    if "error" in batch:
        raise InputError(batch["error"])
    for message in batch.pop("skipped", ()):
        run.bad(message)
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def backward(stage: Stage, batch: dict[str, Tensor]) -> Losses:
    """Add the gradients of a batch to the parameters; its losses, detached."""
    names = list(batch)
    parts = list(zip(*(v.chunk(stage.accumulate) for v in batch.values()), strict=True))
    size = len(next(iter(batch.values())))
    total: Losses = {}
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        with nullcontext() if last else devices.without_synchronisation(stage.model):
            losses = stage.objective(dict(zip(names, part, strict=True)))
            share = len(part[0]) / size
            (losses["loss"] * share).backward()
        for name, loss in losses.items():
            total[name] = total.get(name, 0) + loss.detach() * share
    return total


Batches = Callable[[int], Iterable[dict[str, Any]]]
"""All batches of a training from a step on, in order."""


def batches_of(crops: TrainingCrops, plan: Plan, workers: int, pin: bool) -> Batches:
    """This process's part of all batches of crops, read by `workers` processes."""
    part = (distributed.rank(), distributed.processes())
    return lambda step: training_loader(
        crops, ShuffledBatches(plan, crops.seed, step, part), workers, pin
    )


def train(
    run: Run,
    plan: Plan,
    batches: Batches,
    stage: Stage,
    device: torch.device,
    saved: Saved | None = None,
) -> None:
    """Train a stage, from its beginning or from a state that was kept.

    Args:
        run: logs and training states go here.
        plan: how long.
        batches: from a step on.
        stage: what is trained and how.
        device: batches are moved there.
        saved: the state to go on from.

    Raises:
        InputError: a loss is not finite, or an image cannot be read.
        Stopped: by a signal, after the state was kept.
    """
    reader = LossReader(run, plan, stage.optimizer, READ_EVERY if device.type == "cuda" else 1)
    keeper = StateKeeper(run, plan, stage.made_from, stage.learner, stage.optimizer, reader)
    start, done = (0, 0) if saved is None else saved.place(plan)
    if saved is not None:
        keeper.restore(saved)
        run.say(f"going on after step {done}/{plan.steps_per_epoch} of epoch {start + 1}")
    elif run.options.resume is not None:
        run.say("nothing was kept yet: starting at the beginning")
    remaining = iter(batches(start * plan.steps_per_epoch + done))
    for epoch in range(start, plan.epochs):
        run.interruption.wait()
        train_epoch(run, plan, epoch, done, remaining, stage, reader, keeper, device)
        if done < plan.steps_per_epoch:
            keeper.keep(epoch, plan.steps_per_epoch)
        # Scoring takes long, and is done again after --resume.
        run.interruption.strike(f"the training of epoch {epoch + 1} is kept; {GO_ON}")
        stage.after_epoch(epoch, reader.epoch_means())
        done = 0
    run.list_skipped()


def train_epoch(
    run: Run,
    plan: Plan,
    epoch: int,
    done: int,
    batches: Iterator[dict[str, Any]],
    stage: Stage,
    reader: LossReader,
    keeper: StateKeeper,
    device: torch.device,
) -> None:
    """Train the rest of an epoch of which `done` steps are done."""
    parameters = trainable(stage.model)
    stage.model.train()
    reader.restart_clock()
    first, count = epoch * plan.steps_per_epoch, plan.steps_per_epoch
    title = f"epoch {epoch + 1}/{plan.epochs}"
    with progress(range(done, count), title, "step", count, done) as bar:
        for position in bar:
            step = first + position
            stage.decay.before_step(step)
            stage.optimizer.zero_grad(set_to_none=True)
            losses = backward(stage, to_device(run, next(batches), device))
            losses["gradient"] = nn.utils.clip_grad_norm_(parameters, stage.clip)
            reader.add(step, losses)  # before the step: what is not finite must not be taken
            stage.optimizer.step()
            bar.set_postfix_str(shown(reader.last), refresh=False)
            keeper.after_step(epoch, position + 1)
    reader.read(first + count - 1)
