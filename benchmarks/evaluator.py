"""Does the evaluator wait for files?

    python -m benchmarks.evaluator

Photographs are inferred once straight from memory (nothing read, nothing written) and once by the
evaluator's own loop: decoding in a worker process, PNGs of seven thresholds written in threads.
Networks are random; one scale keeps the run short, which makes waiting show the more.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.loader import COUNT, make_photographs
from benchmarks.measure import compare, machine, table
from benchmarks.options import parse
from datasets.collection import Collection
from datasets.files import read_photograph, write_label_map
from datasets.palette import voc_palette
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.normalisation import normalise
from networks.superpixel import SuperpixelNet
from utils.cams import infer_with_scores
from utils.devices import keep_freed_memory, parallel
from utils.evaluation import THRESHOLDS
from utils.folding import fold
from utils.inference import Settings, infer_collection
from utils.metrics import ThresholdSweep
from utils.pseudo_labels import PseudoLabels
from utils.writing import BackgroundWriter


def main() -> None:
    """Print the table."""
    given = parse(__doc__)
    keep_freed_memory()
    torch.manual_seed(0)
    device = torch.device(given.device)
    classifier = parallel(fold(Classifier(build_backbone("resnet50"), 21).eval()), device)
    scn = parallel(fold(SuperpixelNet().eval()), device)
    settings = Settings(scales=(1.0,))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = dict(list(make_photographs(folder).items())[: COUNT // 8])
        rng = np.random.default_rng(0)
        for identifier in paths:
            mask = rng.integers(0, 3, (375, 500), dtype=np.uint8)
            write_label_map(folder / "masks" / f"{identifier}.png", mask, voc_palette())
        vector = np.zeros(20, np.uint8)
        vector[:2] = 1
        labels = dict.fromkeys(paths, vector)
        classes = tuple(map(str, range(20)))
        collection = Collection(
            "custom", "train", classes, tuple(paths), paths, labels, folder / "masks"
        )
        loaded = [
            torch.from_numpy(read_photograph(path)).permute(2, 0, 1) for path in paths.values()
        ]

        def bare() -> None:
            for image in loaded:
                given_labels = torch.from_numpy(vector)
                infer_with_scores(
                    normalise(image.to(device)), given_labels, classifier, scn, (1.0,)
                )

        def whole() -> None:
            sweep = ThresholdSweep(21, THRESHOLDS)
            with BackgroundWriter() as writer:
                out = PseudoLabels(folder, THRESHOLDS, (), writer)
                for found in infer_collection(
                    collection, classifier, scn, settings, device, 1, "cams"
                ):
                    out.write(found)
                    sweep.add_present(found.classes, found.cams, found.mask)

        times = compare({"bare": bare, "whole": whole}, given.repeats, warmup=1)
        start = time.perf_counter()
        list(infer_collection(collection.subset(()), classifier, scn, settings, device, 1, ""))
        starting = time.perf_counter() - start
        rates = [len(paths) / times.median(run) for run in ("bare", "whole")]
        header = ["evaluator", "inference alone, images/s", "whole, images/s", "whole / alone"]
        print(machine())
        row = ["375x500, 1 scale, mirrored", *rates, str(times.ratio("whole", "bare"))]
        print(
            table(f"Evaluator end to end (worker start {starting:.2f} s included)", header, [row])
        )


if __name__ == "__main__":
    main()
