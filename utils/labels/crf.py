"""Dense CRF refinement of label maps (Kraehenbuehl and Koltun, 2011), through pydensecrf2."""

import argparse
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from datasets.files import InputError, write_label_map
from datasets.palette import voc_palette
from datasets.workers import end_with_parent
from utils.inference.collection_cams import Inferred
from utils.labels.pseudo_labels import label_path
from utils.runs import options
from utils.scores.confusion import confusion_matrix


def _constant(default: float, kind: object, text: str) -> float:
    """A field that is also an option: its type and its line of help."""
    return field(default=default, metadata={"type": kind, "help": text})


@dataclass(frozen=True)
class CrfConstants:
    """Constants of the dense CRF; the defaults are those usual for pseudo labels (as in IRN)."""

    iterations: int = _constant(10, options.count, "of mean-field inference")
    confidence: float = _constant(
        0.7, options.probability, "probability that a pseudo label is right"
    )
    smooth_xy: float = _constant(3.0, options.positive, "reach of the smoothness kernel, pixels")
    smooth_weight: float = _constant(3.0, options.positive, "of the smoothness kernel")
    colour_xy: float = _constant(50.0, options.positive, "reach of the appearance kernel, pixels")
    colour_rgb: float = _constant(
        5.0, options.positive, "reach of the appearance kernel, 8-bit colour levels"
    )
    colour_weight: float = _constant(10.0, options.positive, "of the appearance kernel")


def add_crf_options(parser: argparse.ArgumentParser) -> None:
    """Dense CRF refinement and its constants."""
    group = parser.add_argument_group("dense CRF (needs the package pydensecrf2)")
    group.add_argument(
        "--crf",
        action="store_true",
        help="refine the pseudo labels too, into pseudo_labels_crf/, scored beside the others",
    )
    group.add_argument(
        "--crf_workers", type=options.count, default=os.cpu_count() or 1, help="processes"
    )
    for constant in fields(CrfConstants):
        group.add_argument(
            f"--crf_{constant.name}",
            type=constant.metadata["type"],
            default=constant.default,
            help=constant.metadata["help"],
        )


def crf_constants(args: argparse.Namespace) -> CrfConstants | None:
    """The constants that the options give; None without --crf."""
    if not args.crf:
        return None
    names = [constant.name for constant in fields(CrfConstants)]
    return CrfConstants(**{name: getattr(args, f"crf_{name}") for name in names})


def require_crf() -> None:
    """Raise InputError that names the optional package if it is missing."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        raise InputError(
            "--crf: needs the optional package pydensecrf2; pip install pydensecrf2"
        ) from None


def refine(image: np.ndarray, labels: np.ndarray, constants: CrfConstants) -> np.ndarray:
    """A label map refined by its photograph.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 class indices.
        constants: of the CRF.

    Returns:
        (H, W) uint8; no class appears that was not in `labels`.
    """
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_labels

    present, compact = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return labels.copy()
    height, width = labels.shape
    unary = unary_from_labels(
        compact.reshape(labels.shape), len(present), constants.confidence, zero_unsure=False
    )
    crf = DenseCRF2D(width, height, len(present))
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(sxy=constants.smooth_xy, compat=constants.smooth_weight)
    crf.addPairwiseBilateral(
        sxy=constants.colour_xy,
        srgb=constants.colour_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=constants.colour_weight,
    )
    best = np.argmax(crf.inference(constants.iterations), axis=0).reshape(height, width)
    return present[best].astype(np.uint8)


def _refine_and_write(
    paths: list[Path],
    image: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray | None,
    num_classes: int,
    constants: CrfConstants,
) -> np.ndarray:
    """In a worker: refine labels (T, H, W), write them; their confusion matrices (T, C, C)."""
    confusion = np.zeros((len(labels), num_classes, num_classes), np.int64)
    palette = voc_palette()
    for i, path in enumerate(paths):
        refined = refine(image, labels[i], constants)
        write_label_map(path, refined, palette)
        if mask is not None:
            confusion[i] = confusion_matrix(mask, refined, num_classes)
    return confusion


class Refiner:
    """Refines pseudo labels by a dense CRF in worker processes, so that inference goes on.

    Args:
        folder: the refined labels go to `<folder>/<threshold>/<id>.png`.
        thresholds: of the labels.
        num_classes: C, background included.
        constants: of the CRF.
        workers: processes; at least one.
    """

    def __init__(
        self,
        folder: Path,
        thresholds: Sequence[float],
        num_classes: int,
        constants: CrfConstants,
        workers: int,
    ) -> None:
        self.folder, self.thresholds = folder, tuple(thresholds)
        self.num_classes, self.constants = num_classes, constants
        # Forked processes could inherit locks that torch's threads hold; spawned ones start clean.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            max(1, workers), mp_context=context, initializer=end_with_parent
        )
        # Each waiting photograph is held in memory.
        self._room = threading.BoundedSemaphore(4 * max(1, workers))

    def submit(self, found: Inferred, labels: np.ndarray) -> "Future[np.ndarray]":
        """Refine the labels (thresholds, H, W) of one photograph soon.

        Returns:
            Their confusion matrices (thresholds, C, C); zeros without a mask. See `taken`.

        Raises:
            InputError: a process has died.
        """
        image = np.ascontiguousarray(found.image.permute(1, 2, 0).numpy())
        paths, arguments = self.paths(found.id), (found.mask, self.num_classes, self.constants)
        self._room.acquire()
        try:
            future = self._pool.submit(_refine_and_write, paths, image, labels, *arguments)
        except BrokenProcessPool:
            raise self._died() from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def taken(self, future: "Future[np.ndarray]") -> np.ndarray:
        """Wait for what `submit` gave.

        Raises:
            InputError: the files cannot be written, or a process has died.
        """
        try:
            return future.result()
        except BrokenProcessPool:
            raise self._died() from None

    def _died(self) -> InputError:
        return InputError("--crf: a worker process died (out of memory?); give fewer --crf_workers")

    def paths(self, identifier: str) -> list[Path]:
        """Where the refined labels of a photograph go."""
        return [label_path(self.folder, t, identifier) for t in self.thresholds]

    def complete(self, identifier: str) -> bool:
        """Whether all refined labels of a photograph are there."""
        return all(path.is_file() for path in self.paths(identifier))

    def __enter__(self) -> "Refiner":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
