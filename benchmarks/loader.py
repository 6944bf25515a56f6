"""How many training crops a second does one core read, with classes and with label maps?

    python -m benchmarks.loader [--size full]

The photographs are 500 pixels long, as VOC's: generated once, with the detail of photographs. The
floor is decoding the JPEG files alone. `full` adds worker processes.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.measure import Report, compare
from benchmarks.options import parse
from benchmarks.plain_pipeline import load_crop
from datasets.collection import Collection
from datasets.images import write_label_map
from datasets.loading import (
    Plan,
    SegmentationCrops,
    ShuffledBatches,
    TrainingCrops,
    training_loader,
)
from utils.training.segmentation import TRAINING_SCALES

COUNT = 64


def make_photographs(folder: Path) -> dict[str, Path]:
    """Write photographs of 500 x 375 pixels with detail at all scales, about 100 kB each.

    Beside each is a label map whose objects follow its brightness.
    """
    rng = np.random.default_rng(0)
    paths = {}
    for i in range(COUNT):
        image = np.zeros((375, 500, 3), np.float32)
        for octave in range(7):
            grid = rng.standard_normal((3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
            image += cv2.resize(grid, (500, 375), interpolation=cv2.INTER_CUBIC) * 0.7**octave
        path = folder / f"{i}.jpg"
        cv2.imwrite(str(path), (128 + 45 * image).clip(0, 255).astype(np.uint8))
        labels = cv2.blur(image[..., 0], (25, 25)) > 0.5
        write_label_map(path.with_suffix(".png"), labels.astype(np.uint8))
        paths[str(i)] = path
    return paths


def main() -> None:
    """Print the tables."""
    given = parse(__doc__)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photographs(Path(folder))
        labels = {name: np.ones(20, np.uint8) for name in paths}
        names = tuple(map(str, range(20)))
        collection = Collection("custom", "train", names, tuple(paths), paths, labels)
        crops = TrainingCrops(collection, 480, (320, 640), 0, ("labels",))
        rng = np.random.default_rng(0)
        runs = {
            "plain": lambda: [load_crop(path, 480, rng) for path in paths.values()],
            "ours": lambda: [crops.crop_of(0, i) for i in range(COUNT)],
            "decoding": lambda: [cv2.imread(str(path)) for path in paths.values()],
        }
        labelled = SegmentationCrops(
            replace(collection, masks=Path(folder)), 321, TRAINING_SCALES, seed=0
        )
        masks = [path.with_suffix(".png") for path in paths.values()]
        with_labels = {
            "ours": lambda: [labelled.crop_of(0, i) for i in range(COUNT)],
            "decoding": lambda: [cv2.imread(str(path)) for path in (*paths.values(), *masks)],
        }
        report = Report(given)
        rows = []
        for name, what in (("480", runs), ("321, with labels", with_labels)):
            times = compare(what, given.repeats, warmup=1)
            rates = [times.rate(run, COUNT) if run in what else "" for run in runs]
            rows.append([f"500x375 JPEG to a crop of {name}", *rates])
        header = ["images/s of one core", "plain", "ours", "decoding alone"]
        report.add("Loader", header, rows)
        if given.size == "full":
            rows = ([workers, rate_with(crops, workers)] for workers in (0, 1, 2, 4))
            report.add("Loader with worker processes", ["workers", "images/s"], rows)


def rate_with(crops: TrainingCrops, workers: int) -> float:
    """Images/s of whole batches of 16 through the DataLoader, its start left out."""
    plan = Plan(COUNT, 16, 12)
    batches = iter(training_loader(crops, ShuffledBatches(plan, 0), workers, pin=False))
    next(batches)
    start = time.perf_counter()
    steps = sum(1 for _ in batches)
    return 16 * steps / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
