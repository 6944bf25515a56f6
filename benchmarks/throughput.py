"""Does training wait for its crops, or for the losses that are read?

    python -m benchmarks.throughput --device cuda

Images/s of the real training loop (utils.training.loop.train_epoch: gradients, clipping, optimiser,
losses read) on one batch that already lies on the device, and on crops that worker processes read.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from benchmarks import scn_training, segmentation, training
from benchmarks.loader import make_photographs
from benchmarks.measure import Report, Times
from benchmarks.options import parse
from benchmarks.steps import Make, Way, Workload
from datasets.collection import Collection
from datasets.loading import Crops, Plan, SegmentationCrops, TrainingCrops
from utils.checkpoints.beginning import Beginning, ResumeSettings
from utils.checkpoints.training_state import TrainingState
from utils.runs.options import RunSettings
from utils.training.loop import Batches, Stage, batches_of, train_epoch
from utils.training.losses import READ_EVERY, LossReader
from utils.training.optimisers import polynomial_decay, sgd, trainable
from utils.training.segmentation import TRAINING_SCALES
from utils.training.training_options import LearningSettings


def rate_of(work: Workload, batches: Batches, plan: Plan, every: int, device: str) -> float:
    """Images/s of the second of two epochs; in the first, workers start and read ahead."""
    parameters = trainable(work.model)
    learning = LearningSettings(lr=1e-6, power=0.5, momentum=0.9, clip=1.0)
    optimizer = sgd([{"params": parameters, "lr": learning.lr}], learning.momentum)
    stage = Stage(work.model, work.learner, work.objective, optimizer, lambda *_: None, learning)
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(experiments=folder)
        beginning = Beginning(settings, ResumeSettings(checkpoint_minutes=0), {})
        with beginning.open_run(torch.device(device)) as run:
            reader = LossReader(run, plan, optimizer, every)
            state = TrainingState(beginning, run, plan, work.learner, optimizer, reader)
            decay = polynomial_decay(optimizer, plan.steps, learning.power)
            remaining = iter(batches(0))
            for epoch in range(2):
                start = time.perf_counter()
                train_epoch(state, epoch, 0, remaining, stage, decay, reader)
            return plan.batch * plan.steps_per_epoch / (time.perf_counter() - start)


def rows_of(
    name: str, work: Workload, crops: Crops, steps: int, given: argparse.Namespace
) -> Iterator[list[object]]:
    """One stage: its batch on the device, losses read at every step, and crops from workers."""
    on_gpu = given.device != "cpu"
    batch = len(work.batch["image"])
    plan = Plan(len(crops), batch, 2, steps)
    usual = READ_EVERY if on_gpu else 1
    work.way.switch()
    rate = partial(rate_of, work, plan=plan, device=given.device)
    ways = {
        "on the device": partial(rate, lambda _: repeat(dict(work.batch)), every=usual),
        "on the device, losses read in every step": partial(
            rate, lambda _: repeat(dict(work.batch)), every=1
        ),
    }
    for workers in (8, 16) if on_gpu else (1,):
        source = batches_of(crops, plan, workers, pin=on_gpu)
        ways[f"from {workers} workers"] = partial(rate, source, every=usual)
    rounds = [{way: 1 / run() for way, run in ways.items()} for _ in range(min(2, given.repeats))]
    found = Times({way: [one[way] for one in rounds] for way in ways})
    for way in ways:
        yield [f"{name}, {way}", found.rate(way, 1), found.ratio("on the device", way)]


def stages(
    collection: Collection, given: argparse.Namespace
) -> Iterator[tuple[str, Make, Crops, int]]:
    """Name, workload, crops and steps an epoch of all stages; epochs outlast what is read ahead."""
    tiny = given.size == "tiny"
    steps = 2 if tiny else 60
    batch, side = (2, 64) if tiny else (16, 480)
    backbone = "resnet18" if tiny else "resnet50"
    make: Make = partial(
        training.Workload, batch=batch, side=side, backbone=backbone, device=given.device
    )
    crops: Crops = TrainingCrops(collection, side, (320, 640), 0, ("labels",))
    yield "classifier", make, crops, steps
    batch, side = (2, 64) if tiny else (16, 512)
    make = partial(scn_training.Workload, batch=batch, side=side, device=given.device)
    crops = TrainingCrops(collection, side, (320, 640), 0, ("lab",))
    yield "superpixel network", make, crops, steps
    batch, side = (2, 65) if tiny else (10, 321)
    backbone = "resnet18" if tiny else "resnet101"
    make = partial(
        segmentation.Workload, batch=batch, side=side, backbone=backbone, device=given.device
    )
    crops = SegmentationCrops(collection, side, TRAINING_SCALES, 0)
    yield "segmentation network", make, crops, steps


def main() -> None:
    """Print the table."""
    given = parse(__doc__)
    report = Report(given)
    with tempfile.TemporaryDirectory() as name:
        paths = make_photographs(Path(name))
        labels = {identifier: np.ones(20, np.uint8) for identifier in paths}
        classes = tuple(map(str, range(20)))
        collection = Collection(
            "custom", "train", classes, tuple(paths), paths, labels, masks=Path(name)
        )
        way = Way("bfloat16")  # the fastest: whoever waits at all waits most here

        def rows() -> Iterator[list[object]]:
            for stage, make, crops, steps in stages(collection, given):
                yield from rows_of(stage, make(way), crops, steps, given)

        header = ["batches", "images/s", "of those on the device"]
        report.add(f"Throughput of training, {way}", header, rows())


if __name__ == "__main__":
    main()
