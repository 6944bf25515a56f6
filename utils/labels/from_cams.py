"""Pseudo labels from cams that lie in files, of this project or of any other method.

    python -m utils.labels.from_cams --cams DIR --gt DIR --out DIR

DIR holds <id>.npz as `--save_cams npz` writes them: `cams` (n, H, W), as large as the photograph,
0 to 1, and `classes` (n,), 0-based without background. With ground truth the labels are scored at
every background threshold; OUT/<threshold>/<id>.png are what train_seg.py --pseudo_labels takes.
docs/outputs.md has the lines that turn IRN's or PSA's files into these.
"""

import argparse
import shlex
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.classes import named_classes
from datasets.collection import png_path
from datasets.command_line import new_parser
from datasets.files import InputError, read_json, write_json
from datasets.images import read_label_map, write_label_map
from datasets.listing import list_ids, read_id_list
from utils.inference.label_maps import USUAL_THRESHOLD, label_maps
from utils.labels.cam_evaluation_options import THRESHOLDS, require_folders
from utils.runs import options
from utils.runs.best_labels import evaluated_classes, require_same_classes
from utils.runs.progress import progress
from utils.runs.run import EVALUATION, OPTIONS, same_place
from utils.runs.start import start
from utils.runs.wording import counted
from utils.scores.tables import score_table
from utils.scores.threshold_sweep import ThresholdSweep

ROUNDING = 1e-3
"""By so much cams may lie outside of 0..1."""

MOST_BYTES = 2**32
"""Of the cams of one photograph, unpacked."""


def read_cams(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n,) int64 and cams (n, H, W) float32 in an npz file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(one.file_size for one in archive.infolist()) > MOST_BYTES:
                raise InputError(f"{path}: cams of more than {MOST_BYTES} bytes; refused")
        with np.load(path, allow_pickle=False) as content:
            classes, cams = content["classes"], content["cams"]
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # damaged bytes surface as whatever the step stumbles over
        raise InputError(
            f"{path}: holds no cams ({error}); write arrays named cams and classes with np.savez"
        ) from None
    fits = cams.ndim == 3 and 0 not in cams.shape[1:] and classes.shape == (len(cams),)
    if not fits or classes.dtype.kind not in "iu" or cams.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: cams {cams.dtype} {cams.shape} and classes {classes.dtype} {classes.shape}, "
            "where numbers (n, H, W) and integers (n,) are needed"
        )
    outside = classes[(classes < 0) | (classes >= num_classes - 1)]
    if len(outside):
        raise InputError(
            f"{path}: holds class {outside[0]}; without background there are 0 to "
            f"{num_classes - 2} (--classes)"
        )
    cams = cams.astype(np.float32)
    if not ((cams > -ROUNDING) & (cams < 1 + ROUNDING)).all():  # nor NaN
        raise InputError(f"{path}: cams from {cams.min():g} to {cams.max():g}; scale them to 0..1")
    return classes.astype(np.int64), cams


@dataclass(frozen=True)
class Folders:
    """Where cams and ground truth lie, and where labels go; None for what there is not."""

    cams: Path
    truth: Path | None
    out: Path | None


def label(identifier: str, folders: Folders, sweep: ThresholdSweep) -> np.ndarray | None:
    """Write the labels of one photograph at the thresholds of a sweep; its counts for that.

    Returns:
        None without ground truth.

    Raises:
        InputError: a file cannot be read, or sizes differ.
    """
    path = folders.cams / f"{identifier}.npz"
    classes, cams = read_cams(path, sweep.num_classes)
    if folders.out is not None:
        labels = label_maps(classes, cams, sweep.thresholds)
        for threshold, one in zip(sweep.thresholds, labels, strict=True):
            write_label_map(folders.out / f"{threshold:g}" / f"{identifier}.png", one)
    truth_path = None if folders.truth is None else png_path(folders.truth, identifier)
    if truth_path is None or not truth_path.is_file():
        return None
    truth = read_label_map(truth_path)
    if cams.shape[1:] != truth.shape:
        raise InputError(
            f"{path}: cams of {cams.shape[2]} x {cams.shape[1]} pixels, but the ground truth has "
            f"{truth.shape[1]} x {truth.shape[0]}"
        )
    try:
        return sweep.count(classes, cams, truth)
    except ValueError as error:
        raise InputError(f"{truth_path}: {error} (--classes)") from None


def classes_of(named: str | None, evaluation: Path) -> tuple[str, ...]:
    """The foreground classes of cams: those named, else those of their evaluation, else VOC's.

    Raises:
        InputError: the evaluation, if there is one, is of other classes than those named.
    """
    if named is None:
        return evaluated_classes(evaluation) or named_classes("voc12")
    classes = named_classes(named)
    require_same_classes(evaluation, classes)
    return classes


def dataset_of(named: str | None, evaluation: Path) -> str:
    """The options that name the data set of cams to a training, as far as it is known."""
    if (evaluation / EVALUATION).is_file():
        return same_place(read_json(evaluation / OPTIONS))
    if named in (None, "voc12"):
        return ""
    return " --dataset coco" if named == "coco" else " --dataset custom --root DIR"


def label_all(args: argparse.Namespace) -> None:
    """Write and score the labels of all cams, or of those in the list."""
    if args.gt is None and args.out is None:
        raise InputError("give --gt DIR to score the labels, --out DIR to write them, or both")
    if args.json and args.gt is None:
        raise InputError(f"--json {args.json}: gets scores, which need --gt DIR")
    truth, out = (None if path is None else Path(path) for path in (args.gt, args.out))
    there = list_ids(args.cams, ".npz")
    ids = sorted(there) if args.list is None else read_id_list(args.list, there)
    if not ids:
        raise InputError(f"{args.cams}: holds no cams <id>.npz")
    evaluation = Path(args.cams).resolve().parent  # if they are of one here
    classes = classes_of(args.classes, evaluation)
    dataset = dataset_of(args.classes, evaluation)
    usual = (USUAL_THRESHOLD,) if args.gt is None else THRESHOLDS
    thresholds = tuple(sorted(set(args.thresholds or usual)))
    require_folders(thresholds)
    sweep, scored = ThresholdSweep(len(classes) + 1, thresholds), 0
    one = partial(label, folders=Folders(Path(args.cams), truth, out), sweep=sweep)
    with ThreadPoolExecutor() as pool:
        for counts in progress(pool.map(one, ids), "labels", "image", len(ids)):
            if counts is not None:
                sweep.counts += counts
                scored += 1
    best = min(thresholds, key=lambda threshold: abs(threshold - USUAL_THRESHOLD))
    if args.gt is not None:
        if not scored:
            raise InputError(f"{args.gt}: holds no ground truth <id>.png of these cams")
        table = score_table(classes, thresholds, sweep.result())
        best = thresholds[table.best]
        print(table.table())
        print(f"scored: {counted(scored, 'photograph')} of {len(ids)}")
        if args.json:
            write_json(args.json, {**table.as_json(), "images": scored})
    if out is not None:
        command = ["python", "train_seg.py", "--pseudo_labels", str(out / f"{best:g}")]
        print(f"next: {shlex.join(command)}{dataset}")


if __name__ == "__main__":
    parser = new_parser(__doc__, prog="python -m utils.labels.from_cams")
    parser.add_argument("--cams", required=True, metavar="DIR", help="holds <id>.npz")
    parser.add_argument("--out", metavar="DIR", help="gets <threshold>/<id>.png")
    parser.add_argument("--gt", metavar="DIR", help="<id>.png of ground truth")
    parser.add_argument(
        "--list", metavar="FILE", help="ids or names of photographs, one a line (default: all)"
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="voc12, coco, or a labels.txt (default: those of the evaluation that wrote the cams, "
        "else voc12)",
    )
    parser.add_argument(
        "--thresholds",
        type=options.fraction,
        nargs="+",
        help=f"of background (default: with ground truth {' '.join(map(str, THRESHOLDS))}, else "
        f"{USUAL_THRESHOLD})",
    )
    parser.add_argument("--json", metavar="FILE", help="write the scores as JSON too")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(label_all, parser)
