"""Writing and scoring pseudo labels; what the two evaluators share. METHOD section 3."""

import argparse
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.collection import Collection
from datasets.files import InputError, encode_png, write_bytes, write_json, write_label_map
from datasets.folder import folder_collection
from datasets.palette import voc_palette
from utils import checkpoints, devices, options
from utils.cams import SCALES, label_map
from utils.inference import Inferred, Settings, infer_collection
from utils.metrics import Scores, ThresholdSweep, scores
from utils.pictures import contact_sheet, heat_map, overlay, superpixels, with_boundaries
from utils.run import Run
from utils.writing import BackgroundWriter

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
USUAL_THRESHOLD = 0.25
"""Taken where neither an option nor the checkpoint names one."""

SHEET_ROWS = 8
"""Photographs in the contact sheet."""


def add_options(parser: argparse.ArgumentParser, tag: str, trained_by: str) -> None:
    """The options of an evaluator."""
    options.add_data_options(parser, split="train")
    group = parser.add_argument_group("your own photographs instead of a split")
    group.add_argument("--images", metavar="DIR", help="a folder of photographs, without masks")
    group.add_argument(
        "--labels", metavar="CSV", help="their image-level labels, lines `id,class,class,..`"
    )
    options.add_run_options(parser, tag)
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--checkpoint",
        default=f"experiments/{trained_by}/best.pt",
        metavar="FILE",
        help="classification network, as a train_cls script wrote it",
    )
    group.add_argument(
        "--scn", metavar="FILE", help="superpixel network (default: the one in the checkpoint)"
    )
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--scales", type=options.positive, nargs="+", default=SCALES, help="of the photograph"
    )
    group.add_argument("--no_flip", action="store_true", help="leave mirror images out")
    options.add_affinity_options(parser, beta=8)
    group = parser.add_argument_group("pseudo labels")
    group.add_argument(
        "--thresholds",
        type=options.fraction,
        nargs="+",
        default=THRESHOLDS,
        help="of background: all are scored and written where there are masks",
    )
    group.add_argument(
        "--threshold",
        type=options.fraction,
        help="of background, where there are no masks (default: the best in training, else "
        f"{USUAL_THRESHOLD})",
    )
    group.add_argument(
        "--save_cams",
        action="store_true",
        help="write cams/<id>.npz: `cams` (n, H, W) float16 and `classes` (n,), 0-based",
    )


def open_collection(given: argparse.Namespace, classes: tuple[str, ...] | None) -> Collection:
    """The photographs to infer: a split, or a folder with labels."""
    if given.images is None:
        if given.labels is not None:
            raise InputError("--labels: goes with --images; a split has labels of its own")
        return options.collection(given)
    if given.labels is None:
        raise InputError(f"--images {given.images}: give their classes with --labels FILE.csv")
    return folder_collection(given.images, given.labels, classes)


def same_classes(collection: Collection, trained: checkpoints.Trained, path: Path) -> None:
    """Refuse a checkpoint that was trained on other classes.

    Raises:
        InputError: it was.
    """
    has, needs = trained.classifier.num_classes - 1, len(collection.classes)
    if has != needs:
        raise InputError(
            f"{path}: trained on {has} classes, but {collection.name} has {needs}; "
            "name the data set it was trained on"
        )
    if trained.classes is not None and trained.classes != collection.classes:
        raise InputError(
            f"{path}: trained on other classes ({', '.join(trained.classes[:3])}, ..) than those "
            f"of {collection.name} ({', '.join(collection.classes[:3])}, ..)"
        )


class PseudoLabels:
    """Writes the pseudo labels of photographs, and their cams where asked for.

    Args:
        folder: of the run.
        thresholds: one folder of PNGs is written for each.
        save_cams: whether cams are written too.
        writer: writes in the background.
    """

    def __init__(
        self, folder: Path, thresholds: Sequence[float], save_cams: bool, writer: BackgroundWriter
    ) -> None:
        self.folder, self.thresholds, self.save_cams = folder, tuple(thresholds), save_cams
        self.writer, self.palette = writer, voc_palette()

    def path(self, identifier: str, threshold: float) -> Path:
        """Where the pseudo label of a photograph goes."""
        return self.folder / "pseudo_labels" / f"{threshold:g}" / f"{identifier}.png"

    def write(self, found: Inferred) -> None:
        """Write everything about one photograph."""
        for threshold in self.thresholds:
            labels = label_map(found.classes, found.cams, threshold)
            path = self.path(found.id, threshold)
            self.writer.submit(write_label_map, path, labels, self.palette)
        if self.save_cams:
            self.writer.submit(write_cams, self.folder / "cams" / f"{found.id}.npz", found)


def write_cams(path: Path, found: Inferred) -> None:
    """Write `cams` (n, H, W) float16 and `classes` (n,) int64, 0-based foreground indices."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, cams=found.cams.astype(np.float16), classes=found.classes)
    write_bytes(path, buffer.getvalue())


@dataclass(frozen=True)
class Sweep:
    """Scores for every threshold.

    Attributes:
        classes: names, background first.
        thresholds: of background.
        scores: one for each threshold.
        confusion: (thresholds, C, C) int64, rows ground truth.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    scores: tuple[Scores, ...]
    confusion: np.ndarray

    @property
    def best(self) -> int:
        """Index of the best threshold."""
        return int(np.argmax([found.miou for found in self.scores]))

    def as_json(self) -> dict:
        """What result.json says of the scores; null where a class never occurs."""
        return {
            "classes": list(self.classes),
            "best": {
                "threshold": self.thresholds[self.best],
                "miou": self.scores[self.best].miou,
            },
            "thresholds": [
                {
                    "threshold": threshold,
                    "miou": found.miou,
                    "iou": _with_null(found.iou),
                    "precision": _with_null(found.precision),
                    "recall": _with_null(found.recall),
                    "confusion": confusion.tolist(),
                }
                for threshold, found, confusion in zip(
                    self.thresholds, self.scores, self.confusion, strict=True
                )
            ],
        }

    def table(self) -> str:
        """IoU per class for every threshold, the means, and precision and recall at the best."""
        best = self.scores[self.best]
        head = "".join(f"{f'{t:g}':>7}" for t in self.thresholds)
        lines = [f"{'IoU (%) at threshold':<22}{head}{'precision':>11}{'recall':>8}"]
        for i, name in enumerate(self.classes):
            row = "".join(_percent(found.iou[i], 7) for found in self.scores)
            ends = _percent(best.precision[i], 11) + _percent(best.recall[i], 8)
            lines.append(f"{name:<22}{row}{ends}")
        for name, values in (
            ("mIoU", [found.miou for found in self.scores]),
            ("mean precision", [_mean(found.precision) for found in self.scores]),
            ("mean recall", [_mean(found.recall) for found in self.scores]),
        ):
            lines.append(f"{name:<22}" + "".join(_percent(value, 7) for value in values))
        at = f"{self.thresholds[self.best]:g}"
        lines.append(f"best: mIoU {100 * best.miou:.2f} at threshold {at}")
        lines.append(f"(the last two columns are at threshold {at}; classes that never occur: -)")
        return "\n".join(lines)


def _percent(value: float, width: int) -> str:
    return f"{'-':>{width}}" if np.isnan(value) else f"{100 * value:>{width}.1f}"


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _with_null(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def evaluate_sweep(sweep: ThresholdSweep, classes: Sequence[str]) -> Sweep:
    """The scores of a finished sweep."""
    matrices = sweep.result()
    return Sweep(
        classes=("background", *classes),
        thresholds=sweep.thresholds,
        scores=tuple(scores(matrix) for matrix in matrices),
        confusion=matrices,
    )


def sheet_row(found: Inferred, scn: torch.nn.Module, threshold: float) -> list[np.ndarray | None]:
    """Photo, superpixel boundaries, CAM, pseudo label and ground truth of one photograph."""
    image = found.image.permute(1, 2, 0).numpy()
    device = next(scn.parameters()).device
    palette = voc_palette()
    cam = found.cams.max(0) if len(found.cams) else np.zeros(image.shape[:2], np.float32)
    labels = label_map(found.classes, found.cams, threshold)
    return [
        image,
        with_boundaries(image, superpixels(found.image.to(device), scn)),
        heat_map(image, cam),
        overlay(image, labels, palette),
        None if found.mask is None else overlay(image, found.mask, palette),
    ]


def write_contact_sheet(
    path: Path,
    shown: Sequence[Inferred],
    scn: torch.nn.Module,
    threshold: float,
    classes: Sequence[str],
) -> None:
    """Write the pictures of some photographs as one PNG."""
    titles = ("photo", "superpixels", "CAM", f"pseudo label ({threshold:g})", "ground truth")
    rows = [
        (
            f"{found.id}: {', '.join(classes[k] for k in found.classes)}",
            sheet_row(found, scn, threshold),
        )
        for found in shown
    ]
    write_bytes(path, encode_png(contact_sheet(titles, rows)))


def thresholds_to_write(
    given: argparse.Namespace, trained: checkpoints.Trained, scored: bool
) -> tuple[float, ...]:
    """All thresholds where they can be compared; else the one given, or the best in training."""
    if scored:
        return tuple(given.thresholds)
    choices = (given.threshold, trained.threshold, USUAL_THRESHOLD)
    return (next(choice for choice in choices if choice is not None),)


def infer_and_write(
    given: argparse.Namespace,
    run: Run,
    collection: Collection,
    trained: checkpoints.Trained,
    sweep: ThresholdSweep,
    device: torch.device,
) -> list[Inferred]:
    """Infer every photograph, write its files, count it in the sweep where it has a mask.

    Returns:
        A few photographs, evenly spread, for the contact sheet.
    """
    networks = [devices.parallel(net, device) for net in (trained.classifier, trained.scn)]
    settings = Settings(given.scales, not given.no_flip, given.beta, given.gamma)
    every = max(1, len(collection.ids) // SHEET_ROWS)
    shown: list[Inferred] = []
    with BackgroundWriter() as writer:
        out = PseudoLabels(run.folder, sweep.thresholds, given.save_cams, writer)
        inferred = infer_collection(
            collection, *networks, settings, device, options.workers(given, device), "cams"
        )
        for i, found in enumerate(inferred):
            out.write(found)
            if found.mask is not None:
                sweep.add_present(found.classes, found.cams, found.mask)
            if i % every == 0 and len(shown) < SHEET_ROWS:
                shown.append(found)
    return shown


def description(given: argparse.Namespace, collection: Collection, seconds: float) -> dict:
    """What result.json says besides the scores."""
    return {
        "dataset": collection.name,
        "split": collection.split,
        "images": len(collection.ids),
        "checkpoint": str(given.checkpoint),
        "scales": list(given.scales),
        "flip": not given.no_flip,
        "beta": given.beta,
        "gamma": given.gamma,
        "seconds": round(seconds, 2),
        "images_per_second": round(len(collection.ids) / seconds, 3),
    }


def evaluate(given: argparse.Namespace) -> None:
    """Infer, write and, where there are masks, score the pseudo labels of a collection."""
    device = devices.choose(given.device)
    path = options.existing_file(
        given.checkpoint, "--checkpoint", "train one with train_cls_image.py or train_cls_sal.py"
    )
    trained = checkpoints.open_trained(path, given.scn)
    collection = open_collection(given, trained.classes)
    same_classes(collection, trained, path)
    run = Run(given)
    scored = collection.masks is not None
    run.say(
        f"pseudo labels for {len(collection.ids)} photographs of {collection.name} "
        f"{collection.split}, on {devices.describe(device)}; "
        f"{'scored against masks' if scored else 'no masks, so not scored'}; "
        f"writing to {run.folder}"
    )
    thresholds = thresholds_to_write(given, trained, scored)
    sweep = ThresholdSweep(collection.num_classes, thresholds)
    started = time.monotonic()
    shown = infer_and_write(given, run, collection, trained, sweep, device)
    result = description(given, collection, time.monotonic() - started)
    threshold = thresholds[0]
    if scored:
        table = evaluate_sweep(sweep, collection.classes)
        run.say(table.table())
        threshold = table.thresholds[table.best]
        result |= table.as_json()
    write_json(run.folder / "result.json", result)
    sheet = run.folder / "contact_sheet.png"
    write_contact_sheet(sheet, shown, trained.scn, threshold, collection.classes)
    run.say(f"{result['images_per_second']:.2f} images/s; pictures: {sheet}")
    best = run.folder / "pseudo_labels" / f"{threshold:g}"
    run.say(f"next: train a segmentation network on the photographs and {best}")
    run.close()
