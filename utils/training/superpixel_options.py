"""What train_scn.py is told: its options, and the settings they become."""

import argparse
from dataclasses import dataclass

from utils.checkpoints.beginning import ResumeSettings, add_resume_options
from utils.runs import options
from utils.runs.data import DataSettings, add_data_options, data_settings, refuse_beside_images
from utils.runs.options import RunSettings, run_settings, settings_from
from utils.training.training_options import LearningSettings, Schedule, add_schedule_options

SPLIT = "train_aug"
"""The split that the paper trains on."""

TERMS = {"reconstruction": ("loss", "colour", "position"), "clustering": ("loss",)}
"""What each objective logs; `loss` is what is minimised."""


@dataclass(frozen=True)
class SuperpixelSettings:
    """All that train_scn.py is told; single values are named after the options."""

    run: RunSettings
    resuming: ResumeSettings
    data: DataSettings
    schedule: Schedule
    learning: LearningSettings
    images: str | None
    position_weight: float
    objective: str
    chroma_weight: float
    amp: bool
    score_images: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of train_scn.py."""
    add_data_options(parser, SPLIT)
    parser.add_argument(
        "--images", metavar="DIR", help="all photographs of this folder, in place of a data set"
    )
    options.add_run_options(parser, tag="scn")
    add_resume_options(parser)
    group = add_schedule_options(parser, epochs=50, lr=5e-5, crop=512, power=0.0)
    group.add_argument(
        "--position_weight",
        type=options.not_negative,
        default=0.003,
        help="m: weight of position against colour; higher makes superpixels more compact",
    )
    group.add_argument(
        "--objective",
        choices=tuple(TERMS),
        default="reconstruction",
        help="the paper's loss, or cross entropy against three rounds of clustering",
    )
    group.add_argument(
        "--chroma_weight",
        type=options.positive,
        default=1.0,
        help="weight of Lab's a and b against L, in 8-bit values; 2.55 is CIE's proportion",
    )
    group = parser.add_argument_group("scoring after each epoch (needs masks)")
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=50,
        help="so many photographs with a mask, evenly spread, 0 for none; logged as ASA, boundary "
        "recall and undersegmentation error. Masks have no part in the training",
    )


def settings_of(args: argparse.Namespace) -> SuperpixelSettings:
    """What the options of `add_options` say.

    Raises:
        InputError: they contradict each other.
    """
    refuse_beside_images(args, SPLIT)
    return settings_from(
        SuperpixelSettings,
        args,
        run=run_settings(args),
        resuming=settings_from(ResumeSettings, args),
        data=data_settings(args),
        schedule=settings_from(Schedule, args),
        learning=LearningSettings(args.lr, args.power),
    )
