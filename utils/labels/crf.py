"""Dense CRF refinement of label maps (Kraehenbuehl and Koltun, 2011), through pydensecrf2."""

import argparse
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from datasets.files import InputError
from datasets.images import write_label_map
from datasets.workers import end_with_parent
from utils.inference.collection_cams import Inferred
from utils.labels.pseudo_labels import label_path, without
from utils.runs import distributed, options
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


FOR_PROBABILITIES = CrfConstants(smooth_xy=1.0, colour_xy=67.0, colour_rgb=3.0, colour_weight=4.0)
"""The constants usual for a segmentation network's probabilities. docs/method.md, section 5."""


def add_crf_options(
    parser: argparse.ArgumentParser,
    what: str = "pseudo labels",
    folder: str = "pseudo_labels_crf",
    defaults: CrfConstants | None = None,
    leave_out: Sequence[str] = (),
) -> None:
    """Dense CRF refinement and its constants.

    Args:
        parser: takes the options.
        what: is refined.
        folder: of what comes of it.
        defaults: of the constants.
        leave_out: constants that are no options.
    """
    defaults = defaults or CrfConstants()
    group = parser.add_argument_group("dense CRF (needs the package pydensecrf2)")
    group.add_argument(
        "--crf",
        action="store_true",
        help=f"refine the {what} too, into {folder}/, scored beside the others",
    )
    group.add_argument(
        "--crf_workers",
        type=options.count,
        default=max(1, (os.cpu_count() or 1) // distributed.local_processes()),
        help="processes that refine; under torchrun, of each of its processes",
    )
    for constant in fields(CrfConstants):
        if constant.name not in leave_out:
            group.add_argument(
                f"--crf_{constant.name}",
                type=constant.metadata["type"],
                default=getattr(defaults, constant.name),
                help=constant.metadata["help"],
            )


def crf_constants(args: argparse.Namespace) -> CrfConstants | None:
    """The constants that the options give; None without --crf."""
    if not args.crf:
        return None
    names = [one.name for one in fields(CrfConstants) if hasattr(args, f"crf_{one.name}")]
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
    from pydensecrf.utils import unary_from_labels

    present, compact = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return labels.copy()
    unary = unary_from_labels(
        compact.reshape(labels.shape), len(present), constants.confidence, zero_unsure=False
    )
    return present[mean_field(image, unary, constants)].astype(np.uint8)


def refine_probabilities(
    image: np.ndarray, probabilities: np.ndarray, constants: CrfConstants
) -> np.ndarray:
    """The labels of a photograph by its class probabilities and its colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        probabilities: (n, H, W) float32.
        constants: of the CRF; `confidence` has no part in it.

    Returns:
        (H, W) int64, which of the n classes.
    """
    from pydensecrf.utils import unary_from_softmax

    if len(probabilities) < 2:
        return np.zeros(probabilities.shape[1:], np.int64)
    # Energies stay finite; the published networks are refined with this bound.
    return mean_field(image, unary_from_softmax(probabilities, clip=1e-5), constants)


def mean_field(image: np.ndarray, unary: np.ndarray, constants: CrfConstants) -> np.ndarray:
    """The most probable label of every pixel after mean-field inference.

    Args:
        image: (H, W, 3) uint8 RGB.
        unary: energies (n, H * W) float32, n at least 2.
        constants: of the CRF.

    Returns:
        (H, W) int64, below n.
    """
    from pydensecrf.densecrf import DenseCRF2D

    height, width = image.shape[:2]
    crf = DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(sxy=constants.smooth_xy, compat=constants.smooth_weight)
    crf.addPairwiseBilateral(
        sxy=constants.colour_xy,
        srgb=constants.colour_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=constants.colour_weight,
    )
    return np.argmax(crf.inference(constants.iterations), axis=0).reshape(height, width)


class CrfWorkers:
    """Processes that refine photographs, so that inference goes on; a context manager.

    Args:
        workers: how many; at least one.
    """

    def __init__(self, workers: int) -> None:
        # Forked processes could inherit locks that torch's threads hold; spawned ones start clean.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            max(1, workers), mp_context=context, initializer=end_with_parent
        )
        # Each waiting photograph is held in memory.
        self._room = threading.BoundedSemaphore(4 * max(1, workers))

    def run(self, function: Callable, *arguments: object) -> Future:
        """Call `function(*arguments)` in a process soon, where there is room. See `taken`.

        Raises:
            InputError: a process has died.
        """
        self._room.acquire()
        try:
            future = self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            raise self._died() from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def taken(self, future: Future) -> np.ndarray:
        """Wait for what `run` gave.

        Raises:
            InputError: the files cannot be written, or a process has died.
        """
        try:
            return future.result()
        except BrokenProcessPool:
            raise self._died() from None

    def _died(self) -> InputError:
        return InputError("--crf: a worker process died (out of memory?); give fewer --crf_workers")

    def __enter__(self) -> "CrfWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _refine_and_write(
    paths: list[Path],
    image: np.ndarray,
    labels: np.ndarray,
    uncertain: np.ndarray | None,
    mask: np.ndarray | None,
    num_classes: int,
    constants: CrfConstants,
) -> np.ndarray:
    """In a worker: refine labels (T, H, W), write them; their confusion matrices (T, C, C)."""
    confusion = np.zeros((len(labels), num_classes, num_classes), np.int64)
    for i, path in enumerate(paths):
        refined = refine(image, labels[i], constants)
        write_label_map(path, without(refined, uncertain))
        if mask is not None:
            confusion[i] = confusion_matrix(mask, refined, num_classes)
    return confusion


class Refiner(CrfWorkers):
    """Refines pseudo labels by a dense CRF in worker processes.

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
        super().__init__(workers)
        self.folder, self.thresholds = folder, tuple(thresholds)
        self.num_classes, self.constants = num_classes, constants

    def submit(
        self, found: Inferred, labels: np.ndarray, uncertain: np.ndarray | None = None
    ) -> "Future[np.ndarray]":
        """Refine the labels (thresholds, H, W) of one photograph soon, and write them.

        Where `uncertain` (H, W) bool says so, 255 is written.

        Returns:
            Their confusion matrices (thresholds, C, C), without regard to `uncertain`; zeros
            without a mask. See `taken`.

        Raises:
            InputError: a process has died.
        """
        image = np.ascontiguousarray(found.image.permute(1, 2, 0).numpy())
        arguments = (found.mask, self.num_classes, self.constants)
        paths = self.paths(found.id)
        return self.run(_refine_and_write, paths, image, labels, uncertain, *arguments)

    def paths(self, identifier: str) -> list[Path]:
        """Where the refined labels of a photograph go."""
        return [label_path(self.folder, t, identifier) for t in self.thresholds]

    def complete(self, identifier: str) -> bool:
        """Whether all refined labels of a photograph are there."""
        return all(path.is_file() for path in self.paths(identifier))
