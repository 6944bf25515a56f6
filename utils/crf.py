"""Dense CRF refinement of label maps (Kraehenbuehl and Koltun, 2011), through pydensecrf2."""

import argparse
import os
from dataclasses import dataclass, field, fields

import numpy as np

from datasets.files import InputError
from utils import options


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


def add_options(parser: argparse.ArgumentParser) -> None:
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


def constants(given: argparse.Namespace) -> CrfConstants:
    """The constants that the options give."""
    names = [constant.name for constant in fields(CrfConstants)]
    return CrfConstants(**{name: getattr(given, f"crf_{name}") for name in names})


def require() -> None:
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
