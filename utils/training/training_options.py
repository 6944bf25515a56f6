"""How long, on what crops, and how fast a network is trained."""

import argparse
from dataclasses import dataclass

from datasets.files import InputError
from networks.backbone import NAMES, is_backbone
from utils.runs.options import count, fraction, natural, not_negative, positive

LR_HELP = "learning rate"


@dataclass(frozen=True)
class Schedule:
    """The options of `add_schedule_options`.

    Attributes:
        epochs: passes over the photographs.
        batch: photographs a step.
        crop: side of the crops, pixels.
        long_side: range of the longer side after random resizing, pixels.

    Raises:
        InputError: crops or lengths that cannot be.
    """

    epochs: int
    batch: int
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


@dataclass(frozen=True)
class LearningSettings:
    """How fast, and how carefully, an optimiser learns.

    The options of `add_sgd_options`, and two of `add_step_options`.

    Attributes:
        lr: learning rate.
        power: of its polynomial decay; 0 for none.
        warmup: steps over which it rises at first.
        momentum: of SGD.
        weight_decay: of weights, not of biases.
        clip: limit of the gradient's norm, None for none.
        accumulate: a batch is taken in so many parts, whose gradients add up to its mean.
    """

    lr: float
    power: float = 0.0
    warmup: int = 0
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    accumulate: int = 1


def add_schedule_options(
    parser: argparse.ArgumentParser,
    epochs: int,
    lr: float | None,
    crop: int,
    power: float,
    lr_help: str = LR_HELP,
) -> argparse._ArgumentGroup:
    """How long and on what crops a network of superpixels or classes is trained."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=count, default=epochs, help="passes over the images")
    add_step_options(group, 16, lr, crop, power, lr_help)
    group.add_argument(
        "--long_side",
        type=count,
        nargs=2,
        default=(320, 640),
        metavar=("LOW", "HIGH"),
        help="the longer side is resized to a random length in this range before cropping, pixels",
    )
    return group


def add_step_options(
    group: argparse._ArgumentGroup,
    batch: int,
    lr: float | None,
    crop: int,
    power: float,
    lr_help: str = LR_HELP,
) -> None:
    """What every training takes for a step, and how fast it learns."""
    group.add_argument("--batch", type=count, default=batch, help="images a step")
    group.add_argument("--lr", type=positive, default=lr, help=lr_help)
    group.add_argument(
        "--power",
        type=not_negative,
        default=power,
        help="of the polynomial decay of lr; 0 keeps it constant",
    )
    group.add_argument("--crop", type=count, default=crop, help="side of the crops, pixels")
    group.add_argument(
        "--amp", action="store_true", help="bfloat16 convolutions: less memory, faster on new GPUs"
    )


def add_sgd_options(
    group: argparse._ArgumentGroup,
    momentum: float,
    weight_decay: float,
    clip: float | None,
    accumulate: int,
) -> None:
    """How SGD takes a step."""
    group.add_argument(
        "--warmup",
        type=natural,
        default=0,
        metavar="STEPS",
        help="over which the learning rate rises to where it should be: a high one may throw a "
        "network off in its first steps",
    )
    group.add_argument("--momentum", type=fraction, default=momentum, help="of SGD")
    group.add_argument(
        "--weight_decay", type=not_negative, default=weight_decay, help="of weights, not biases"
    )
    limit = "gradient norm limit" if clip else "gradient norm limit (default: none)"
    group.add_argument("--clip", type=positive, default=clip, help=limit)
    group.add_argument(
        "--accumulate",
        type=count,
        default=accumulate,
        help="take a batch in so many parts, one after the other: less memory. Batch statistics "
        "and the sums that a loss divides by are then those of a part",
    )


def backbone_name(text: str) -> str:
    """An argparse type: the name of a backbone."""
    if not is_backbone(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be one of {NAMES}")
    return text


def add_backbone_options(group: argparse._ArgumentGroup, backbone: str, files: str) -> None:
    """A backbone and its weights.

    Args:
        group: takes the options.
        backbone: by default.
        files: which files of weights can be given, in words.
    """
    group.add_argument(
        "--backbone", type=backbone_name, default=backbone, metavar="NAME", help=NAMES
    )
    group.add_argument(
        "--backbone_weights",
        default="imagenet",
        metavar="imagenet|none|FILE",
        help="ImageNet weights (torchvision's are fetched, efficientnet_lite0's are in a package; "
        f"of timm its own, fetched), training from scratch, or {files}",
    )
