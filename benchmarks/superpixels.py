"""Do the network's superpixels follow what people see better than SLIC's?

    python -m benchmarks.superpixels --bsds BSDS500 --scn data/scn_bsds500.pt

Scores of utils.scores.superpixels on BSDS500's validation images, against every annotator of an
image: the mean over its annotators, then over the images. The network sees an image resized to a
grid of 20 x 31 cells; its most probable superpixels are resized back and made connected (pieces
under 64 pixels join a neighbour). SLIC is scikit-image's at each compactness, with its own
connectivity step. Superpixels are counted, not taken from `n_segments`: as that grows SLIC's number
jumps (by a row or column of seeds), so it gets the smallest number that is not below the network's
by more than 2 %. Where it gets more, that is to its advantage.

Every scored image is kept in the JSON at once; a second call goes on from there.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from skimage.segmentation import slic

from benchmarks.measure import table
from datasets import command_line
from datasets.files import InputError, read_bytes, read_json, write_json
from datasets.images import read_photograph
from datasets.listing import list_photographs
from networks.association import hard_labels
from networks.normalisation import normalise
from networks.superpixel import CELL, SuperpixelNet
from utils.checkpoints.weights import load_scn
from utils.scores.superpixels import asa, boundary_recall, connected, undersegmentation_error

SMALLEST = 64
"""Pixels: a quarter of a grid cell; smaller pieces of the network's superpixels join others."""

GRID = (20, 31)
"""Cells along the shorter and the longer side of a 481 x 321 image: 620, which SLIC can meet."""

NEAR = 0.02
"""How far SLIC's mean number of superpixels may be below the network's, as a fraction."""

STEP, EVERY = 10, 10
"""n_segments is a multiple of STEP, and sought on every EVERYth image."""

REPOSITORY = Path(__file__).parents[1]
COLUMNS = ("asa", "boundary_recall", "undersegmentation_error", "superpixels")

Partition = Callable[[np.ndarray], np.ndarray]
"""A photograph (H, W, 3) uint8 -> superpixel ids (H, W)."""


def annotations(path: Path) -> list[np.ndarray]:
    """The segmentations (H, W) int32 by all annotators in one of BSDS500's groundTruth files."""
    people = loadmat(path)["groundTruth"].ravel()
    return [person["Segmentation"][0, 0].astype(np.int32) for person in people]


@torch.no_grad()
def scn_superpixels(image: np.ndarray, scn: SuperpixelNet) -> np.ndarray:
    """Connected superpixels (H, W) of a photograph (H, W, 3) uint8 by a network in evaluation."""
    height, width = image.shape[:2]
    rows, columns = GRID if height <= width else GRID[::-1]
    photograph = normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    resized = F.interpolate(
        photograph, (CELL * rows, CELL * columns), mode="bilinear", align_corners=False
    )
    ids = hard_labels(scn(resized))[0].numpy().astype(np.int32)
    ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)
    return connected(ids, SMALLEST)


def slic_superpixels(image: np.ndarray, compactness: float, segments: int) -> np.ndarray:
    """SLIC's superpixels (H, W) of a photograph (H, W, 3) uint8."""
    return slic(image, n_segments=segments, compactness=compactness, start_label=0)


def count_of(ids: np.ndarray) -> int:
    """How many superpixels there are."""
    return len(np.unique(ids))


def score(ids: np.ndarray, truths: list[np.ndarray]) -> list[float]:
    """ASA, boundary recall and undersegmentation error, means over annotators; the number of ids.

    Args:
        ids: superpixels (H, W).
        truths: (H, W) each.
    """
    scores = (asa, boundary_recall, undersegmentation_error)
    means = [float(np.mean([one(ids, truth) for truth in truths])) for one in scores]
    return [*means, count_of(ids)]


class Record:
    """Scores by run and image, in a JSON file that is written after every image.

    Args:
        path: of the file; what it holds is kept.
        images: id -> photograph.
        truths: folder of groundTruth files.
    """

    def __init__(self, path: Path, images: dict[str, Path], truths: Path) -> None:
        self.path, self.images, self.truths = path, images, truths
        self.content = read_json(path) if path.is_file() else {"columns": COLUMNS, "runs": {}}

    def means(self, run: str, partition: Partition) -> list[float]:
        """The mean of each column over the images; those the file lacks are scored now."""
        scored = self.content["runs"].setdefault(run, {})
        for identifier, path in self.images.items():
            if identifier not in scored:
                ids = partition(read_photograph(path))
                scored[identifier] = score(ids, annotations(self.truths / f"{identifier}.mat"))
                write_json(self.path, self.content)
        return np.mean([scored[identifier] for identifier in self.images], axis=0).tolist()

    def mean_count(self, run: str, chosen: list[str]) -> float:
        """The mean number of superpixels of a scored run on some of the images."""
        return float(np.mean([self.content["runs"][run][identifier][-1] for identifier in chosen]))


def segments_for(images: list[np.ndarray], compactness: float, count: float) -> int:
    """The smallest n_segments, in steps, that gives SLIC at least about `count` superpixels.

    Args:
        images: photographs (H, W, 3) uint8.
        compactness: SLIC's.
        count: superpixels, a mean over the images.

    Raises:
        InputError: not even four times as many segments do.
    """

    def enough(segments: int) -> bool:
        found = [count_of(slic_superpixels(image, compactness, segments)) for image in images]
        return float(np.mean(found)) >= (1 - NEAR) * count

    low, high = 0, -(-4 * int(count) // STEP)
    if not enough(high * STEP):
        raise InputError(f"SLIC of compactness {compactness:g} never gave {count:.0f} superpixels")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle * STEP) else (middle, high)
    return high * STEP


def network_row(record: Record, path: Path) -> dict:
    """The means of a superpixel network in a file."""
    scn = SuperpixelNet()
    load_scn(scn, path)
    digest = hashlib.sha256(read_bytes(path)).hexdigest()[:16]
    run = f"scn {digest}"
    means = record.means(run, partial(scn_superpixels, scn=scn.eval()))
    return {"method": "scn", "run": run, **dict(zip(COLUMNS, means, strict=True))}


def summarise(record: Record, networks: list[Path], compactness: list[float]) -> list[dict]:
    """Score the networks, then SLIC with as many superpixels as the first; a row of means each."""
    rows = [network_row(record, path) for path in networks]
    chosen = list(record.images)[::EVERY]
    sample = [read_photograph(record.images[identifier]) for identifier in chosen]
    wanted = record.mean_count(rows[0]["run"], chosen)
    for value in compactness:
        segments = segments_for(sample, value, wanted)
        partition = partial(slic_superpixels, compactness=value, segments=segments)
        run = f"slic compactness {value:g} n_segments {segments}"
        means = record.means(run, partition)
        row = {"method": "slic", "run": run, "compactness": value, "n_segments": segments}
        rows.append({**row, **dict(zip(COLUMNS, means, strict=True))})
    return rows


def choose(folder: Path, limit: int | None) -> tuple[dict[str, Path], Path]:
    """The first validation photographs of a BSDS500 folder, and the folder of ground truth.

    Raises:
        InputError: none is there, or one is without ground truth.
    """
    truths = folder / "groundTruth" / "val"
    photographs = list_photographs(folder / "images" / "val")
    images = dict(sorted(photographs.items())[:limit])
    if not images:
        raise InputError(f"{folder / 'images' / 'val'}: no photographs in it")
    lacking = [i for i in images if not (truths / f"{i}.mat").is_file()]
    if lacking:
        raise InputError(f"{truths}: no ground truth {lacking[0]}.mat")
    return images, truths


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_line.new_parser(__doc__, prog="python -m benchmarks.superpixels")
    parser.add_argument("--bsds", type=Path, required=True, metavar="DIR", help="holds images/ ..")
    shipped = REPOSITORY / "data" / "scn_bsds500.pt"
    parser.add_argument("--scn", type=Path, default=shipped, metavar="FILE", help="the network")
    parser.add_argument(
        "--more_scn",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="trained in the same way with other seeds: the spread",
    )
    parser.add_argument("--compactness", type=float, nargs="+", default=[10, 20, 30], help="SLIC's")
    parser.add_argument("--images", type=int, help="the first so many only")
    results = REPOSITORY / "benchmarks" / "results"
    parser.add_argument("--output", type=Path, default=results / "superpixels.json")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def compare(given: argparse.Namespace) -> int:
    """Score, keep the summary in the JSON and print it as a table; the exit status."""
    images, truths = choose(given.bsds, given.images)
    record = Record(given.output, images, truths)
    rows = summarise(record, [given.scn, *given.more_scn], given.compactness)
    record.content |= {"images": len(images), "summary": rows}
    write_json(given.output, record.content)
    names = [
        "SCN" if row["method"] == "scn" else f"SLIC, compactness {row['compactness']:g}"
        for row in rows
    ]
    lines = [[name, *(row[c] for c in COLUMNS)] for name, row in zip(names, rows, strict=True)]
    print(table(f"{len(images)} validation images of BSDS500", ["", *COLUMNS], lines))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    return command_line.run(compare, options().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
