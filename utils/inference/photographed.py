"""Photographs before inference, which may be too large for it, and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch.nn.functional as F
from torch import Tensor

MAX_SIDE = 1024
"""A longer side is scaled down to this for inference, pixels. Photographs of VOC and COCO have at
most 640, and in training all are brought to 320 to 640: larger objects than those are new to the
network, and memory grows with the pixels."""


@dataclass(frozen=True)
class Photographed:
    """A photograph and its name: what the results of every inference hold.

    Attributes:
        id: of the photograph.
        image: (3, H, W) uint8 on the CPU.
        shrunk: whether it was scaled down for inference.
    """

    id: str
    image: Tensor
    shrunk: bool = field(default=False, kw_only=True)

    @property
    def photograph(self) -> np.ndarray:
        """The image as (H, W, 3) uint8."""
        return np.ascontiguousarray(self.image.permute(1, 2, 0).numpy())


def require_normalised(images: Tensor) -> None:
    """Refuse images as they are read.

    Raises:
        ValueError: they hold integers.
    """
    if not images.is_floating_point():
        raise ValueError(
            f"images must be normalised, got {images.dtype}; see networks.normalisation"
        )


def require_scales(scales: Sequence[float]) -> None:
    """Refuse scales at which nothing can be inferred.

    Raises:
        ValueError: there is none, or one is not above 0.
    """
    if not len(scales) or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales must be above 0, and at least one, got {scales}")


def exceeds(image: Tensor, max_side: int | None) -> bool:
    """Whether the longer side of an image (.., H, W) exceeds a limit; None or 0 is no limit."""
    return bool(max_side) and max(image.shape[-2:]) > max_side


def shrink(image: Tensor, max_side: int | None) -> Tensor:
    """A photograph (3, H, W) whose longer side is at most `max_side`.

    A larger one is scaled down, bilinearly with antialiasing; integers become float32.
    """
    if not exceeds(image, max_side):
        return image
    factor = max_side / max(image.shape[1:])
    size = [max(1, round(side * factor)) for side in image.shape[1:]]
    given = image[None] if image.is_floating_point() else image[None].float()
    return F.interpolate(given, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
