"""What the segmentation network's evaluator is told: its options, and the settings they become."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from datasets.files import InputError
from utils.inference.photographed import MAX_SIDE
from utils.inference.segmentation import SCALES, SegmentationInferenceSettings
from utils.labels.crf import FOR_PROBABILITIES, CrfConstants, add_crf_options, crf_constants
from utils.labels.photographs import (
    PREDICTED,
    PhotographSettings,
    add_photograph_options,
    add_report_option,
    photograph_settings,
)
from utils.runs import options
from utils.runs.options import RunSettings, run_settings

SPLIT = "val"
"""The split that published numbers of segmentation networks are of."""

TRAINED_BY = "seg"
"""The run whose checkpoint is evaluated unless one is named."""


@dataclass(frozen=True)
class MaskEvaluationSettings:
    """All that the segmentation network's evaluator is told.

    Attributes:
        run: of the run.
        photographs: what is segmented.
        checkpoint: the segmentation network.
        inference: how photographs are segmented.
        crf: constants of the dense CRF that refines the masks too, or None.
        crf_workers: processes that do so.
        report_images: photographs in the report.
        submission: an archive for VOC's test server, or None.
    """

    run: RunSettings
    photographs: PhotographSettings
    checkpoint: Path
    inference: SegmentationInferenceSettings
    crf: CrfConstants | None
    crf_workers: int
    report_images: int
    submission: Path | None

    @property
    def overlays(self) -> bool:
        """Whether masks are drawn on the photographs too."""
        return self.photographs.images is not None


def settings_of(args: argparse.Namespace) -> MaskEvaluationSettings:
    """What the options of `add_options` say; without --checkpoint, that of the run TRAINED_BY.

    Raises:
        InputError: the checkpoint is missing, or options do not go together.
    """
    if args.labels == PREDICTED:
        raise InputError("--labels predicted: the segmentation network finds classes by itself")
    # Not the best one: that was chosen on val, on which numbers are usually quoted.
    checkpoint = args.checkpoint or Path(args.experiments) / TRAINED_BY / "last.pt"
    return MaskEvaluationSettings(
        run=run_settings(args),
        photographs=photograph_settings(args, SPLIT),
        checkpoint=options.existing_file(checkpoint, "--checkpoint", "train one with train_seg.py"),
        inference=SegmentationInferenceSettings(
            args.scales,
            args.flip,
            restrict=args.restrict or args.labels is not None,
            probabilities=args.crf,
            max_side=args.max_side,
        ),
        crf=crf_constants(args),
        crf_workers=args.crf_workers,
        report_images=args.report_images,
        submission=None if args.submission is None else Path(args.submission),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the segmentation network's evaluator."""
    add_photograph_options(
        parser,
        SPLIT,
        "FILE.csv|NAMES",
        "classes that alone may appear in them: a CSV with lines `id,class,class,..`, or names "
        "such as dog,sofa for all of them",
    )
    options.add_run_options(parser, tag="eval_seg")
    group = parser.add_argument_group("network and inference")
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=f"segmentation network (default: the last of the run {TRAINED_BY}; its best.pt was "
        "chosen on val, so its score there is too high)",
    )
    group.add_argument(
        "--scales",
        type=options.positive,
        nargs="+",
        default=SCALES,
        help="of the photograph, on top of the three that the network itself looks at",
    )
    group.add_argument(
        "--max_side",
        type=options.natural,
        help="pixels: a longer side is scaled down to this for inference (0: never); masks keep "
        "the photograph's size (default: the longest in training, as it was scaled there; "
        f"{MAX_SIDE} where the file does not say)",
    )
    group.add_argument("--flip", action="store_true", help="average over mirror images too")
    group.add_argument(
        "--restrict",
        action="store_true",
        help="allow only background and the classes in a photograph's image-level labels, those of "
        "the split or of --labels_file",
    )
    group = parser.add_argument_group("what is written")
    add_report_option(group)
    group.add_argument(
        "--submission",
        metavar="FILE.tar.gz",
        help="with --dataset voc12 --split test: write the masks (with --crf, the refined ones) as "
        "the archive that VOC's test server takes",
    )
    add_crf_options(parser, "masks", "masks_crf", FOR_PROBABILITIES, leave_out=("confidence",))
