"""Does the evaluator wait for files, for small batches, for anything but the networks?

    python -m benchmarks.evaluator [--device cuda]

Photographs/s of the evaluator's own loop (decoded by worker processes, cams, PNGs of seven
thresholds written by threads, scored), of inference on photographs in memory, and of the bare
forward passes of the two networks, mirrored, in batches of several photographs. The loop runs on
photographs of one size and of many: those of one size share a batch, and a GPU's library prepares
for every shape. Then where the time of a photograph goes. Networks are random, folded as the
evaluator folds them. A CPU takes scale 1 alone, which makes waiting show the more; a GPU takes all
four.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.loader import make_photographs
from benchmarks.measure import Report, Spread, compare
from benchmarks.options import parse
from benchmarks.steps import seconds_of
from datasets.collection import Collection
from datasets.files import write_bytes
from datasets.images import encode_jpeg, read_photograph, write_label_map
from networks.association import upsample
from networks.backbone import build_backbone
from networks.classifier import Classifier, cam
from networks.normalisation import normalise
from networks.superpixel import SuperpixelNet
from utils.inference.cams import SCALES, InferenceSettings, infer_batch, resize, round_up, views
from utils.inference.collection_cams import (
    Inferred,
    infer_collection,
    taken_together,
)
from utils.inference.folding import fold
from utils.inference.label_maps import label_maps
from utils.labels.cam_evaluation_options import THRESHOLDS
from utils.labels.pseudo_labels import OutputSettings, PseudoLabelWriter
from utils.runs.devices import keep_freed_memory, parallel
from utils.runs.options import RunSettings
from utils.runs.reader import Reader

BATCHES = (1, 2, 4, 8, 16)
"""Photographs of a size that the bare forward passes take at a time, each with its mirror image."""

BLOCKS = 5
"""Of photographs, in the whole loop: the first holds the start of the workers, and while the last
one is handed out a GPU has nothing more to infer, so these are not timed."""

SIZE = (375, 500)
"""(height, width) of the photographs of one size, pixels."""

BETA = 8


def fail(message: str) -> None:
    """The photographs here are made to be readable."""
    raise RuntimeError(message)


class Workload:
    """Photographs with masks, and the networks.

    Args:
        folder: photographs are made here, and pseudo labels written.
        given: the options.
    """

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        tiny, self.device = given.size == "tiny", torch.device(given.device)
        on_gpu = self.device.type == "cuda"
        self.folder, self.block = folder, taken_together(self.device)[0] if on_gpu else 4
        self.scales = SCALES if on_gpu else (0.25,) if tiny else (1.0,)
        self.workers = RunSettings().workers_for(self.device)
        backbone = "resnet18" if tiny else "resnet50"
        classifier = Classifier(build_backbone(backbone), 21).eval()
        classifier.classifier.weight.data.abs_()  # random classes, but cams that are not all zero
        self.classifier = parallel(fold(classifier), self.device)
        self.scn = parallel(fold(SuperpixelNet().eval()), self.device)
        self.labels = np.zeros(20, np.uint8)
        self.labels[:2] = 1
        self.files = list(make_photographs(folder).values())
        self.image = normalise(self.read().to(self.device))

    def collection(self, folder: Path, many_sizes: bool) -> Collection:
        """Photographs for the whole loop, with masks of noise: all of one size, or every second."""
        rng = np.random.default_rng(0)
        paths = {}
        for i in range(BLOCKS * self.block):
            file, size = self.files[i % len(self.files)], SIZE
            if many_sizes and i % 2:
                size = tuple(rng.permutation([500, rng.integers(250, 500)]))
                image = cv2.resize(read_photograph(file), size[::-1])
                file = folder / f"{i}.jpg"
                write_bytes(file, encode_jpeg(image))
            paths[f"photograph_{i}"] = file
            mask = rng.integers(0, 3, size, dtype=np.uint8)
            write_label_map(folder / "masks" / f"photograph_{i}.png", mask)
        labels, classes = dict.fromkeys(paths, self.labels), tuple(map(str, range(20)))
        return Collection("custom", "train", classes, tuple(paths), paths, labels, folder / "masks")

    def read(self) -> torch.Tensor:
        """A decoded photograph, (3, 375, 500) uint8."""
        return torch.from_numpy(read_photograph(self.files[0])).permute(2, 0, 1)

    def infer(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The cams of a photograph that is on the device."""
        labels = torch.from_numpy(self.labels)
        networks = self.classifier, self.scn
        return infer_batch(self.image[None], [labels], *networks, InferenceSettings(self.scales))[0]

    def inferred(self) -> Inferred:
        """The same as the evaluator takes it, on the CPU."""
        classes, cams, scores = (value.cpu().numpy() for value in self.infer())
        mask = np.zeros(self.image.shape[1:], np.uint8)
        return Inferred("one", self.read(), classes, cams, scores, mask)

    def whole(self, many_sizes: bool) -> list[float]:
        """Seconds of a photograph in the whole loop, block by block."""
        folder = self.folder / f"many_sizes_{many_sizes}"
        collection = self.collection(folder, many_sizes)
        settings, times = InferenceSettings(scales=self.scales), []
        where = (Reader(self.device, self.workers, fail), "cams")
        networks = self.classifier, self.scn
        with PseudoLabelWriter(folder, OutputSettings(THRESHOLDS), 21) as out:
            for i, found in enumerate(infer_collection(collection, *networks, settings, *where)):
                if i % self.block == 0:
                    times.append(time.perf_counter())
                out.take(found)
        return [(b - a) / self.block for a, b in pairwise(times[1:])]

    def alone(self) -> list[float]:
        """Seconds of a photograph in inference alone, one at a time."""
        self.infer()
        return [seconds_of(self.infer) for _ in range(BLOCKS)]

    @torch.no_grad()
    def bare(self, photographs: int) -> None:
        """The two networks at all scales on so many photographs and their mirror images."""
        photograph = self.image[None]
        for scale in self.scales:
            images = views(photograph.expand(photographs, -1, -1, -1), scale, flip=True)[1]
            self.classifier(images, self.scn(images), BETA)


def rates(work: Workload, given: argparse.Namespace) -> Iterator[list[object]]:
    """Photographs/s, and what share of the fastest bare forward passes that is."""
    passes = {f"bare, {n} a batch": n for n in (BATCHES[:2] if given.size == "tiny" else BATCHES)}
    runs = {name: partial(work.bare, count) for name, count in passes.items()}
    times = compare(runs, given.repeats, warmup=1)
    best = max(count / times.median(name) for name, count in passes.items())
    for name, count in passes.items():
        yield [name, times.rate(name, count), count / times.median(name) / best]
    # Not in turn: while inference went on alone, workers would read ahead.
    loops: dict[str, Callable[[], list[float]]] = {
        "inference alone": work.alone,
        "evaluator": partial(work.whole, many_sizes=False),
        "evaluator, every second photograph of a size of its own": partial(
            work.whole, many_sizes=True
        ),
    }
    for name, run in loops.items():
        rate = Spread.of([1 / seconds for seconds in run()])
        yield [name, rate, rate.median / best]


@torch.no_grad()
def stages(work: Workload, given: argparse.Namespace) -> Iterator[list[object]]:
    """Milliseconds of every stage of one photograph, each by itself."""
    size = work.image.shape[1:]
    full = (round_up(size[0]), round_up(size[1]))
    images = [views(work.image[None], scale, flip=True)[1] for scale in work.scales]
    maps = [work.scn(one) for one in images]
    logits = [work.classifier(*both)[0][:, 1:3] for both in zip(images, maps, strict=True)]
    total = torch.rand(1, 2, *full, device=work.device)
    found = work.inferred()
    labels = label_maps(found.classes, found.cams, THRESHOLDS)
    out = PseudoLabelWriter(work.folder, OutputSettings(THRESHOLDS), 21)
    sweep = out.sweep

    def over_scales(beta: int) -> None:
        for one, q in zip(images, maps, strict=True):
            work.classifier(one, q, beta)

    runs = {
        "decoding (in workers)": work.read,
        "to the device, normalised": lambda: normalise(found.image.to(work.device)),
        "views": lambda: [views(work.image[None], scale, flip=True) for scale in work.scales],
        "superpixel network": lambda: [work.scn(one) for one in images],
        "classifier without AP": lambda: over_scales(0),
        "classifier with AP": lambda: over_scales(BETA),
        "upsampling": lambda: [
            resize(upsample(few, q), full) for few, q in zip(logits, maps, strict=True)
        ],
        "cams, to the CPU": lambda: resize(cam(total), size)[0].cpu().numpy(),
        "all inference": work.infer,
        "thresholds": lambda: label_maps(found.classes, found.cams, THRESHOLDS),
        "scoring": lambda: sweep.add_present(found.classes, found.cams, found.mask),
        "PNGs (in threads)": lambda: out.write(found, labels),
    }
    times = compare(runs, given.repeats, warmup=1)
    for name in runs:
        yield [name, times.spread(name, 1e3)]


def main() -> None:
    """Print the tables."""
    given = parse(__doc__)
    keep_freed_memory()
    cv2.setNumThreads(1)  # as in a worker process
    with tempfile.TemporaryDirectory() as folder:
        work, report = Workload(Path(folder), given), Report(given)
        scales = f"375x500, scales {' '.join(f'{scale:g}' for scale in work.scales)}, mirrored"
        header = ["photographs", "photographs/s", "of the best bare passes"]
        report.add(f"Evaluator, {scales}", header, rates(work, given))
        header = ["a photograph", "ms"]
        report.add(f"Where the time goes, {scales}", header, stages(work, given))


if __name__ == "__main__":
    main()
