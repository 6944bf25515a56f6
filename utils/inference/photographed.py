"""Photographs before inference, which may be too large for it, and after."""

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


def exceeds(image: Tensor, max_side: int | None) -> bool:
    """Whether the longer side of an image (.., H, W) exceeds a limit; None is no limit."""
    return max_side is not None and max(image.shape[-2:]) > max_side


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
