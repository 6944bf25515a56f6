"""The training loop of every stage."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datasets.files import InputError
from datasets.loading import Crops, Plan, ShuffledBatches, training_loader
from utils.checkpoints.beginning import Beginning
from utils.checkpoints.training_state import GO_ON, TrainingState
from utils.runs import devices, distributed
from utils.runs.progress import progress
from utils.runs.run import Run
from utils.runs.wording import counted
from utils.training.losses import READ_EVERY, Losses, LossReader, in_words
from utils.training.optimisers import polynomial_decay, trainable
from utils.training.training_options import LearningSettings


@dataclass
class Stage:
    """What one stage's training needs.

    Attributes:
        model: what is trained; put into training mode before every epoch.
        learner: the network in it, without wrappers, whose weights a training state holds.
        objective: the losses of a batch on the device.
        optimizer: of the model's parameters.
        after_epoch: called with the epoch (from 0) and its mean losses.
        learning: how the learning rates change, gradients are clipped and batches taken in parts;
            the optimiser has its own learning rates, momentum and weight decay.
        decay_every: steps between two decays of the learning rates.
    """

    model: nn.Module
    learner: nn.Module
    objective: Callable[[dict[str, Tensor]], Losses]
    optimizer: Optimizer
    after_epoch: Callable[[int, dict[str, float]], None]
    learning: LearningSettings
    decay_every: int = 1


def in_steps(plan: Plan) -> str:
    """How long a training takes in words: `12 epochs of 661 steps`."""
    few = " (of fewer photographs than --batch)" if plan.images < plan.batch else ""
    return f"{counted(plan.epochs, 'epoch')} of {counted(plan.steps_per_epoch, 'step')}{few}"


def plan_of(images: int, batch: int, epochs: int, length: int | None = None) -> Plan:
    """The plan of a training; every process takes an equal part of each batch.

    Raises:
        InputError: batches cannot be shared out equally.
    """
    count = distributed.world_size()
    if batch % count:
        raise InputError(f"--batch {batch}: must be a multiple of the {count} processes")
    if images < count:
        raise InputError(f"{images} photographs are too few for {count} processes")
    return Plan(images, min(batch, images // count * count), epochs, length)


def to_device(run: Run, batch: dict[str, Any]) -> dict[str, Tensor]:
    """A batch on the run's device, copied without waiting where its memory is pinned.

    Raises:
        InputError: a photograph in it cannot be read, and is not to be skipped.
    """
    if "error" in batch:
        raise InputError(batch["error"])
    for message in batch.pop("skipped", ()):
        run.bad(message)
    return {name: value.to(run.device, non_blocking=True) for name, value in batch.items()}


def backward(stage: Stage, batch: dict[str, Tensor]) -> Losses:
    """Add the gradients of a batch to the parameters; its losses, detached."""
    names = list(batch)
    parts = list(zip(*(v.chunk(stage.learning.accumulate) for v in batch.values()), strict=True))
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


def batches_of(crops: Crops, plan: Plan, workers: int, pin: bool) -> Batches:
    """This process's part of all batches of crops, read by `workers` processes."""
    part = (distributed.rank(), distributed.world_size())
    return lambda step: training_loader(
        crops, ShuffledBatches(plan, crops.seed, step, part), workers, pin
    )


def _each(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The batches; once this is closed, nothing holds their iterator any more."""
    yield from batches


def drop_gradients(parameters: Iterable[nn.Parameter], finite: Tensor) -> None:
    """Zero all gradients unless `finite` (a boolean scalar), without waiting for the device."""
    lost = ~finite
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(lost, 0)


def train(
    run: Run,
    beginning: Beginning,
    plan: Plan,
    batches: Batches,
    stage: Stage,
) -> None:
    """Train a stage, from its start or from the state that was found.

    Args:
        run: logs go here, batches to its device.
        beginning: the state that was found, if any.
        plan: how long.
        batches: from a step on.
        stage: what is trained and how.

    Raises:
        InputError: a loss is not finite, or an image cannot be read.
        Stopped: by a signal, after the state was saved.
    """
    every = READ_EVERY if run.device.type == "cuda" else 1
    reader = LossReader(run, plan, stage.optimizer, every)
    state = TrainingState(beginning, run, plan, stage.learner, stage.optimizer, reader)
    start, done = beginning.place(plan)
    if (start + 1, done) == (plan.epochs, plan.steps_per_epoch):
        run.say("all steps are done: only what follows the last epoch is done again")
    elif beginning.content is not None:
        run.say(f"going on after step {done}/{plan.steps_per_epoch} of epoch {start + 1}")
    elif beginning.resuming.resume is not None:
        run.say("nothing was saved yet: starting at the beginning")
    first = start * plan.steps_per_epoch + done
    power, warmup = stage.learning.power, stage.learning.warmup
    if warmup >= plan.steps:
        run.note(
            f"--warmup {warmup} does not end within the {plan.steps} steps of the training, so "
            "--lr is never reached; train for more --epochs, or give less"
        )
    decay = polynomial_decay(stage.optimizer, plan.steps, power, stage.decay_every, first, warmup)
    # Closed: an error's traceback would keep the processes that read photographs.
    with closing(_each(batches(first))) as remaining:
        for epoch in range(start, plan.epochs):
            run.interruption.defer()
            train_epoch(state, epoch, done, remaining, stage, decay, reader)
            if done < plan.steps_per_epoch:
                state.save(epoch, plan.steps_per_epoch)
            # Scoring takes long, and is done again after --resume.
            run.interruption.at_once(f"the training of epoch {epoch + 1} is saved; {GO_ON}")
            stage.after_epoch(epoch, reader.epoch_means())
            done = 0
    run.list_skipped()


def train_epoch(
    state: TrainingState,
    epoch: int,
    done: int,
    batches: Iterator[dict[str, Any]],
    stage: Stage,
    decay: LRScheduler,
    reader: LossReader,
) -> None:
    """Train the rest of an epoch of which `done` steps are done."""
    run, plan = state.run, state.plan
    parameters = trainable(stage.model)
    limit = math.inf if stage.learning.clip is None else stage.learning.clip
    stage.model.train()
    reader.restart_clock()
    first, count = epoch * plan.steps_per_epoch, plan.steps_per_epoch
    title = f"epoch {epoch + 1}/{plan.epochs}"
    with progress(range(done, count), title, "step", count, done) as bar:
        for position in bar:
            stage.optimizer.zero_grad(set_to_none=True)
            losses = backward(stage, to_device(run, next(batches)))
            norm = losses["gradient"] = nn.utils.clip_grad_norm_(parameters, limit)
            # What is not finite stops the run at the next reading, and reaches no weight before.
            reader.add(first + position, losses)
            if reader.every > 1:
                drop_gradients(parameters, torch.isfinite(norm))
            stage.optimizer.step()
            decay.step()
            bar.set_postfix_str(in_words(reader.last), refresh=False)
            state.after_step(epoch, position + 1)
    reader.read(first + count - 1)
