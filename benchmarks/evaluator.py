"""Does the evaluator wait for files?

    python -m benchmarks.evaluator

In turn, four photographs through the evaluator's own loop (decoded by a worker process, PNGs of
seven thresholds written by threads, scored) and four straight from memory (nothing read, nothing
written), in one process, the start of the worker left out. Networks are random; one scale keeps the
run short, which makes waiting show the more.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.loader import COUNT, make_photographs
from benchmarks.measure import Times, machine, table
from benchmarks.options import parse
from datasets.collection import Collection
from datasets.files import read_photograph, write_label_map
from datasets.palette import voc_palette
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.normalisation import normalise
from networks.superpixel import SuperpixelNet
from utils.inference.cams import infer_with_scores
from utils.inference.collection_cams import InferenceSettings, infer_collection
from utils.inference.folding import fold
from utils.inference.label_maps import label_maps
from utils.labels.evaluation_options import THRESHOLDS
from utils.labels.pseudo_labels import PseudoLabels
from utils.runs.background import BackgroundWriter
from utils.runs.devices import keep_freed_memory, parallel
from utils.scores.threshold_sweep import ThresholdSweep

BLOCK = 4
"""Photographs timed together."""


def fail(message: str) -> None:
    """The photographs here are made to be readable."""
    raise RuntimeError(message)


def main() -> None:
    """Print the table."""
    given = parse(__doc__)
    keep_freed_memory()
    torch.manual_seed(0)
    device = torch.device(given.device)
    classifier = parallel(fold(Classifier(build_backbone("resnet50"), 21).eval()), device)
    scn = parallel(fold(SuperpixelNet().eval()), device)
    settings = InferenceSettings(scales=(1.0,))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = dict(list(make_photographs(folder).items())[: COUNT // 2])
        rng = np.random.default_rng(0)
        for identifier in paths:
            mask = rng.integers(0, 3, (375, 500), dtype=np.uint8)
            write_label_map(folder / "masks" / f"{identifier}.png", mask, voc_palette())
        vector = np.zeros(20, np.uint8)
        vector[:2] = 1
        labels_of_all = dict.fromkeys(paths, vector)
        classes = tuple(map(str, range(20)))
        collection = Collection(
            "custom", "train", classes, tuple(paths), paths, labels_of_all, folder / "masks"
        )
        loaded = [
            torch.from_numpy(read_photograph(path)).permute(2, 0, 1) for path in paths.values()
        ]

        sweep = ThresholdSweep(21, THRESHOLDS)
        rounds: dict[str, list[float]] = {"whole": [], "alone": []}
        with BackgroundWriter() as writer:
            out = PseudoLabels(folder, THRESHOLDS, ())
            inferred = infer_collection(
                collection, classifier, scn, settings, device, 1, "cams", fail
            )
            for block in range(0, COUNT // 2, BLOCK):
                start = time.perf_counter()
                for _ in range(BLOCK):
                    found = next(inferred)
                    labels = label_maps(found.classes, found.cams, THRESHOLDS)
                    writer.submit(out.write, found, labels)
                    sweep.add_present(found.classes, found.cams, found.mask)
                between = time.perf_counter()
                for image in loaded[block : block + BLOCK]:
                    labels_of = torch.from_numpy(vector)
                    infer_with_scores(
                        normalise(image.to(device)), labels_of, classifier, scn, (1.0,)
                    )
                if block:  # the first holds the start of the worker
                    rounds["whole"].append(between - start)
                    rounds["alone"].append(time.perf_counter() - between)
        times = Times(rounds)
        rates = [BLOCK / times.median(run) for run in ("alone", "whole")]
        header = ["evaluator", "inference alone, images/s", "whole, images/s", "whole / alone"]
        print(machine())
        row = ["375x500, 1 scale, mirrored", *rates, str(times.ratio("whole", "alone"))]
        print(table("Evaluator end to end", header, [row]))


if __name__ == "__main__":
    main()
