"""What the results of every inference hold of their photograph."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Photographed:
    """A photograph and its name.

    Attributes:
        id: of the photograph.
        image: (3, H, W) uint8 on the CPU.
    """

    id: str
    image: Tensor

    @property
    def photograph(self) -> np.ndarray:
        """The image as (H, W, 3) uint8."""
        return np.ascontiguousarray(self.image.permute(1, 2, 0).numpy())
