"""What a train_cls script is told: its options, and the settings they become."""

import argparse
import math
from dataclasses import dataclass
from functools import partial

from datasets.command_line import number
from datasets.files import InputError
from networks.superpixel import CELL
from networks.timm_backbones import PREFIX, TRANSFORMERS, family_of
from utils.checkpoints import built
from utils.checkpoints.beginning import ResumeSettings, add_resume_options
from utils.runs import options
from utils.runs.data import DataSettings, add_data_options, data_settings
from utils.runs.options import RunSettings, run_settings, settings_from
from utils.training.training_options import (
    LearningSettings,
    Schedule,
    add_backbone_options,
    add_schedule_options,
    add_sgd_options,
)

LR, LR_ADAMW = 0.1, 0.01
"""Learning rates by default: the paper's, and that of networks of timm which their authors train
with AdamW or without batch normalisation."""

ADAMW = (*TRANSFORMERS, "convnext", "inception_next", "nfnet")
"""The families of those networks."""

LR_HELP = f"learning rate (default: {LR}; {LR_ADAMW} for timm's {', '.join(ADAMW)})"


@dataclass(frozen=True)
class NetworkSettings:
    """Which networks are trained, and from what; attributes are named after the options.

    `scn` is None for that of the run scn, else the shipped one.
    """

    scn: str | None = None
    backbone: str = "resnet50"
    backbone_weights: str = "imagenet"
    no_dcr: bool = False


@dataclass(frozen=True)
class ClassifierSettings:
    """All that a train_cls script is told; single values are named after the options.

    Raises:
        InputError: patches that cannot be.
    """

    run: RunSettings
    resuming: ResumeSettings
    data: DataSettings
    schedule: Schedule
    learning: LearningSettings
    networks: NetworkSettings
    amp: bool
    ipc_weight: float
    patch: int
    patches: int | None
    ipc_threshold: float
    beta: int
    beta_train: int
    gamma: float
    gamma_keep: float | None
    score_images: int

    def __post_init__(self) -> None:
        crop, side = self.schedule.crop, self.patches_a_side
        if self.patches is not None and side * side != self.patches:
            raise InputError(
                f"--patches {self.patches}: must be a square number, such as 1, 4 or 9"
            )
        if crop // CELL < 2 * side:
            given = f"--patches {self.patches}" if self.patches else f"--patch {self.patch}"
            raise InputError(
                f"--crop {crop}: too small for {given}; a patch of one superpixel has nothing to "
                f"contrast, so take --crop {2 * side * CELL} or more, or fewer patches"
            )

    @property
    def patches_a_side(self) -> int:
        """The root of how many patches the IPC loss cuts a crop into."""
        if self.patches is not None:
            return math.isqrt(self.patches)
        return max(1, round(self.schedule.crop / CELL / self.patch))


def add_options(
    parser: argparse.ArgumentParser,
    tag: str,
    patch: int,
    threshold: float,
    power: float,
    beta_train: int,
) -> None:
    """The options of a train_cls script; the arguments are what differs between the two."""
    add_data_options(parser, split="train_aug")
    options.add_run_options(parser, tag)
    add_resume_options(parser)
    group = add_schedule_options(parser, 12, None, crop=480, power=power, lr_help=LR_HELP)
    add_sgd_options(group, momentum=4e-5, weight_decay=4e-5, clip=1.0, accumulate=1)
    add_network_options(parser)
    group = parser.add_argument_group("IPC loss")
    group.add_argument("--ipc_weight", type=options.not_negative, default=0.3, help="lambda")
    group.add_argument(
        "--patch",
        type=number(int, 2),
        default=patch,
        help="side of a patch in superpixels, about: a crop is cut into the number of patches a "
        "side that comes nearest, at least one",
    )
    group.add_argument(
        "--patches",
        type=options.count,
        metavar="N",
        help="how many patches a crop is cut into, a square number (default: by --patch)",
    )
    group.add_argument(
        "--ipc_threshold",
        type=options.fraction,
        default=threshold,
        help="a patch counts if background and foreground both exceed this somewhere",
    )
    options.add_affinity_options(parser, beta=8, beta_train=beta_train)
    group = parser.add_argument_group("scoring after each epoch (needs masks)")
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=600,
        help="first images of the split with a mask to score, and first of val for the mAP of "
        "the classification; 0 for none, give fewer on a CPU",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which networks are trained, and from what."""
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--scn",
        metavar="FILE",
        help="superpixel network (default: that of the run scn, else data/scn_bsds500.pt)",
    )
    add_backbone_options(group, "resnet50", "a file of weights")
    group.add_argument("--no_dcr", action="store_true", help="plain CAM network, for comparison")


def settings_of(args: argparse.Namespace) -> ClassifierSettings:
    """What the options of `add_options` say.

    Raises:
        InputError: they contradict each other, or timm has no such backbone.
    """
    # Here, not as None in the settings: what a run keeps of its options is what it took.
    args.lr = args.lr or learning_rate(args.backbone)
    return settings_from(
        ClassifierSettings,
        args,
        run=run_settings(args),
        resuming=settings_from(ResumeSettings, args),
        data=data_settings(args),
        schedule=settings_from(Schedule, args),
        learning=settings_from(LearningSettings, args),
        networks=settings_from(NetworkSettings, args),
    )


def learning_rate(backbone: str) -> float:
    """The default of --lr for a backbone.

    Raises:
        InputError: timm has no such backbone, or none that can be one here, or is missing.
    """
    if not backbone.startswith(PREFIX):
        return LR
    family = built(partial(family_of, backbone), f"--backbone {backbone}")
    return LR_ADAMW if family in ADAMW else LR
