"""Dense CRF refinement of label maps (Kraehenbuehl and Koltun, 2011), through pydensecrf2."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from datasets.files import InputError
from utils.runs import distributed, options


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
        default=distributed.own_cores(),
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
