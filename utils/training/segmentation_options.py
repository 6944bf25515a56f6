"""What train_seg.py is told: its options, and the settings they become."""

import argparse
from dataclasses import dataclass

from datasets.files import InputError
from networks.deeplab import SCALES
from networks.dilated import STRIDES, strides_of
from utils.checkpoints.beginning import ResumeSettings, add_resume_options
from utils.runs import options
from utils.runs.data import DataSettings, add_data_options, data_settings
from utils.runs.options import RunSettings, run_settings, settings_from
from utils.training.training_options import (
    LearningSettings,
    add_backbone_options,
    add_sgd_options,
    add_step_options,
)

SCORE_EVERY = 1000
"""Steps: the default of --score_every where it divides --steps."""

MASKS = "masks"
"""The value of --pseudo_labels that trains on ground truth."""


@dataclass(frozen=True)
class SegmentationSettings:
    """All that train_seg.py is told; single values are named after the options.

    Raises:
        InputError: steps or a stride that cannot be.
    """

    run: RunSettings
    resuming: ResumeSettings
    data: DataSettings
    learning: LearningSettings
    pseudo_labels: str | None
    labels_from: str
    backbone: str
    backbone_weights: str
    stride: int
    steps: int
    batch: int
    crop: int
    amp: bool
    score_every: int
    score_images: int

    def __post_init__(self) -> None:
        if self.steps % self.score_every:
            raise InputError(
                f"--score_every {self.score_every}: must divide --steps {self.steps}; leave it out "
                f"to score {'at the end' if self.steps % SCORE_EVERY else f'every {SCORE_EVERY}'}"
            )
        if self.stride not in strides_of(self.backbone):
            raise InputError(
                f"--stride {self.stride}: {self.backbone} has only stride "
                f"{strides_of(self.backbone)[0]}; leave --stride out"
            )
        if self.backbone_weights == "none" and self.crop * min(SCALES) < self.stride + 1:
            raise InputError(
                f"--crop {self.crop}: at the smallest scale, {min(SCALES)}, it is one position of "
                f"features, too few to learn batch statistics; take {2 * self.stride + 2} or more"
            )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of train_seg.py; the defaults are the published ones."""
    add_data_options(parser, split="train_aug")
    group = parser.add_argument_group("labels").add_mutually_exclusive_group()
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
        help="tag, or folder, of the evaluation whose best pseudo labels are trained on",
    )
    options.add_run_options(parser, tag="seg")
    add_resume_options(parser)
    add_network_options(parser)
    group = parser.add_argument_group("training (the head learns 10 times as fast)")
    group.add_argument("--steps", type=options.count, default=20000, help="of the optimiser")
    add_step_options(group, batch=10, lr=2.5e-4, crop=321, power=0.9)
    add_sgd_options(group, momentum=0.9, weight_decay=5e-4, clip=None, accumulate=2)
    group = parser.add_argument_group("scoring (needs masks)")
    group.add_argument(
        "--score_every",
        type=options.count,
        metavar="STEPS",
        help="after which the network is scored and saved (default: "
        f"{SCORE_EVERY}, or all of them where --steps is no multiple of it)",
    )
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=500,
        help="so many photographs of val, evenly spread; 0 for none, give fewer on a CPU",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network is trained, and from what."""
    group = parser.add_argument_group("network")
    files = (
        "a file: the backbone's published one, a published initialisation of DeepLab (Caffe), a "
        "classifier of train_cls_*, or a whole segmentation network"
    )
    add_backbone_options(group, "resnet101", files)
    group.add_argument(
        "--stride",
        type=int,
        choices=STRIDES,
        help="pixels between two positions of the logits; 16 is several times faster on a CPU "
        "(default: 8 for ResNets, 16 for all others, which have no 8)",
    )


def settings_of(args: argparse.Namespace) -> SegmentationSettings:
    """What the options of `add_options` say.

    Raises:
        InputError: they contradict each other.
    """
    # Here, not as None in the settings: what a run keeps of its options is what it took.
    args.stride = args.stride or strides_of(args.backbone)[0]
    usual = args.steps if args.steps % SCORE_EVERY else SCORE_EVERY
    args.score_every = args.score_every or usual
    return settings_from(
        SegmentationSettings,
        args,
        run=run_settings(args),
        resuming=settings_from(ResumeSettings, args),
        data=data_settings(args),
        learning=settings_from(LearningSettings, args),
    )
