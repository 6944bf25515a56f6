"""How long, and on what crops, a network is trained."""

import argparse
from dataclasses import dataclass

from datasets.files import InputError
from utils.runs.options import count, positive


@dataclass(frozen=True)
class Schedule:
    """The options of `add_schedule_options`.

    Attributes:
        epochs: passes over the photographs.
        batch: photographs a step.
        lr: learning rate.
        crop: side of the crops, pixels.
        long_side: range of the longer side after random resizing, pixels.

    Raises:
        InputError: crops or lengths that cannot be.
    """

    epochs: int
    batch: int
    lr: float
    crop: int
    long_side: tuple[int, int]

    def __post_init__(self) -> None:
        if self.crop % 16 or self.crop < 32:
            raise InputError(
                f"--crop {self.crop}: must be a multiple of the superpixel cell, 16, and at least "
                "32"
            )
        if self.long_side[0] > self.long_side[1]:
            raise InputError(f"--long_side {' '.join(map(str, self.long_side))}: LOW exceeds HIGH")


def add_schedule_options(
    parser: argparse.ArgumentParser, epochs: int, lr: float, crop: int
) -> argparse._ArgumentGroup:
    """How long and on what crops a network is trained."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=count, default=epochs, help="passes over the images")
    group.add_argument("--batch", type=count, default=16, help="images a step")
    group.add_argument("--lr", type=positive, default=lr, help="learning rate")
    group.add_argument("--crop", type=count, default=crop, help="side of the crops, pixels")
    group.add_argument(
        "--long_side",
        type=count,
        nargs=2,
        default=(320, 640),
        metavar=("LOW", "HIGH"),
        help="the longer side is resized to a random length in this range before cropping, pixels",
    )
    return group
