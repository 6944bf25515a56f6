"""What train_seg.py is told: its options, and the settings they become."""

import argparse
from dataclasses import dataclass

from datasets.files import InputError
from networks.backbone import WEIGHTS
from networks.deeplab import HEADS
from networks.dilated import STRIDES
from utils.checkpoints.training_state import ResumeSettings, add_resume_options
from utils.runs import options
from utils.runs.data import DataSettings, add_data_options, data_settings
from utils.runs.options import RunSettings, run_settings, taken

MASKS = "masks"
"""The value of --pseudo_labels that trains on ground truth."""


@dataclass(frozen=True)
class SegmentationSettings:
    """All that train_seg.py is told; single values are called as the options.

    Raises:
        InputError: steps that cannot be.
    """

    run: RunSettings
    resuming: ResumeSettings
    data: DataSettings
    pseudo_labels: str | None
    labels_from: str
    backbone: str
    backbone_weights: str
    head: str
    stride: int
    steps: int
    batch: int
    accumulate: int
    lr: float
    power: float
    momentum: float
    weight_decay: float
    crop: int
    train_scales: tuple[float, ...]
    clip: float
    amp: bool
    score_every: int
    score_images: int
    score_split: str

    def __post_init__(self) -> None:
        if self.steps % self.score_every:
            raise InputError(
                f"--steps {self.steps}: must be a multiple of --score_every {self.score_every}"
            )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of train_seg.py; the defaults are the published ones."""
    add_data_options(parser, split="train_aug")
    group = parser.add_argument_group("labels")
    group.add_argument(
        "--pseudo_labels",
        metavar="DIR|masks",
        help="folder of label maps <id>.png, 0 background, 255 not learnt from; `masks` trains on "
        "ground truth, the upper bound (default: the best of the run --labels_from)",
    )
    group.add_argument(
        "--labels_from",
        default="eval_image",
        metavar="RUN",
        help="tag of the evaluation whose best pseudo labels are trained on",
    )
    options.add_run_options(parser, tag="seg")
    add_resume_options(parser)
    add_network_options(parser)
    add_schedule_options(parser)
    group = parser.add_argument_group("scoring (needs masks)")
    group.add_argument(
        "--score_every",
        type=options.count,
        default=1000,
        help="steps after which the network is scored and saved",
    )
    group.add_argument("--score_split", default="val", metavar="NAME", help="what is scored")
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=500,
        help="so many photographs of it, evenly spread; 0 for none, fewer on a CPU",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network is trained, and from what."""
    group = parser.add_argument_group("network")
    group.add_argument("--backbone", choices=tuple(WEIGHTS), default="resnet101")
    group.add_argument(
        "--backbone_weights",
        default="imagenet",
        metavar="imagenet|none|FILE",
        help="torchvision's ImageNet weights, training from scratch, or a file: torchvision's, a "
        "published initialisation of DeepLab (Caffe), a classifier of train_cls_*, or a whole "
        "segmentation network",
    )
    group.add_argument(
        "--head",
        choices=tuple(HEADS),
        default="v2",
        help="DeepLab-V2's, the paper's, or torchvision's DeepLab-V3",
    )
    group.add_argument(
        "--stride",
        type=int,
        choices=STRIDES,
        default=8,
        help="pixels between two positions of the logits; 16 is a third of the work, for a CPU",
    )


def add_schedule_options(parser: argparse.ArgumentParser) -> None:
    """How long, how fast and on what crops the network is trained."""
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=options.count, default=20000, help="of the optimiser")
    group.add_argument("--batch", type=options.count, default=10, help="images a step")
    group.add_argument(
        "--accumulate",
        type=options.count,
        default=2,
        help="take a batch in so many parts, one after the other: less memory",
    )
    group.add_argument(
        "--lr", type=options.positive, default=2.5e-4, help="of the ResNet; the head's is 10 times"
    )
    group.add_argument(
        "--power", type=options.not_negative, default=0.9, help="of the polynomial decay of lr"
    )
    group.add_argument("--momentum", type=options.fraction, default=0.9, help="of SGD")
    group.add_argument(
        "--weight_decay", type=options.not_negative, default=5e-4, help="not of the head's biases"
    )
    group.add_argument("--crop", type=options.count, default=321, help="side of crops, pixels")
    group.add_argument(
        "--train_scales",
        type=options.positive,
        nargs="+",
        default=(0.5, 0.75, 1.0, 1.25, 1.5),
        help="of a photograph's sides before it is cropped; one is drawn each time",
    )
    group.add_argument(
        "--clip", type=options.positive, default=1e9, help="gradient norm limit (default: none)"
    )
    group.add_argument(
        "--amp", action="store_true", help="bfloat16 convolutions: less memory, faster on new GPUs"
    )


def settings_of(args: argparse.Namespace) -> SegmentationSettings:
    """What the options of `add_options` say.

    Raises:
        InputError: they contradict each other.
    """
    return taken(
        SegmentationSettings,
        args,
        run=run_settings(args),
        resuming=taken(ResumeSettings, args),
        data=data_settings(args),
    )
