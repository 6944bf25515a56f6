"""What an evaluator of the classifier is told: its options, and the settings they become."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.files import InputError
from utils.inference.cams import SCALES, InferenceSettings
from utils.inference.label_maps import USUAL_THRESHOLD
from utils.inference.photographed import MAX_SIDE
from utils.labels.cam_formats import CAM_FORMATS
from utils.labels.crf import add_crf_options, crf_constants
from utils.labels.photographs import (
    PREDICTED,
    PhotographSettings,
    add_photograph_options,
    add_report_option,
    photograph_settings,
)
from utils.labels.pseudo_labels import OutputSettings
from utils.runs import options
from utils.runs.options import RunSettings, run_settings

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)

SPLIT = "train"
"""The split that published numbers of cams are of."""

SCORE_THRESHOLD = 0.5
"""The probability from which a class counts as present where labels are predicted."""


@dataclass(frozen=True)
class CamEvaluationSettings:
    """All that an evaluator of the classifier is told.

    Attributes:
        run: of the run.
        photographs: what is evaluated.
        checkpoint: the classification network.
        scn: the superpixel network, if not the checkpoint's.
        inference: how cams are inferred.
        outputs: what is written, at the thresholds that are asked for, or none.
        threshold: the one that is asked for, or None; see `thresholds_to_write`.
        export_deeplab: a folder for deeplab-pytorch, or None.
    """

    run: RunSettings
    photographs: PhotographSettings
    checkpoint: Path
    scn: Path | None
    inference: InferenceSettings
    outputs: OutputSettings
    threshold: float | None
    export_deeplab: Path | None


def settings_of(args: argparse.Namespace, trained_by: str) -> CamEvaluationSettings:
    """What the options of `add_options` say; without --checkpoint, that of the run `trained_by`.

    Raises:
        InputError: the checkpoint is missing, or options do not go together.
    """
    if args.labels != PREDICTED and args.score_threshold != SCORE_THRESHOLD:
        raise InputError(f"--score_threshold {args.score_threshold:g}: needs --labels predicted")
    checkpoint = args.checkpoint or options.checkpoint_of(args.experiments, trained_by)
    remedy = "train one with train_cls_image.py or train_cls_sal.py"
    predict_from = args.score_threshold if args.labels == PREDICTED else None
    return CamEvaluationSettings(
        run=run_settings(args),
        photographs=photograph_settings(args, SPLIT),
        checkpoint=options.existing_file(checkpoint, "--checkpoint", remedy),
        scn=args.scn and options.existing_file(args.scn, "--scn", "train one with train_scn.py"),
        inference=InferenceSettings(
            scales=args.scales,
            flip=not args.no_flip,
            beta=args.beta,
            gamma=args.gamma,
            predict_from=predict_from,
            keep=args.gamma_keep,
            max_side=args.max_side,
        ),
        outputs=OutputSettings(
            thresholds=tuple(args.thresholds or ()),
            save_cams=tuple(args.save_cams),
            overlays=args.images is not None,
            uncertain=uncertain_bounds(args.uncertain),
            report_images=args.report_images,
            crf=crf_constants(args),
            crf_workers=args.crf_workers,
        ),
        threshold=args.threshold,
        export_deeplab=None if args.export_deeplab is None else Path(args.export_deeplab),
    )


def require_folders(thresholds: Sequence[float]) -> None:
    """Refuse thresholds of which two would share a folder of labels.

    Raises:
        InputError: there are such.
    """
    if len({f"{threshold:g}" for threshold in thresholds}) < len(thresholds):
        raise InputError("--thresholds: two of them agree in six digits and would share a folder")


def uncertain_bounds(bounds: list[float] | None) -> tuple[float, float] | None:
    """The bounds that --uncertain gives, if any.

    Raises:
        InputError: there is nothing between them.
    """
    if bounds is None:
        return None
    low, high = bounds
    if low >= high:
        raise InputError(f"--uncertain {low:g} {high:g}: give the lower bound first")
    return low, high


def add_options(parser: argparse.ArgumentParser, tag: str, trained_by: str) -> None:
    """The options of an evaluator."""
    group = add_photograph_options(
        parser,
        SPLIT,
        "FILE.csv|NAMES|predicted",
        "their classes: a CSV with lines `id,class,class,..`; names such as dog,sofa that are in "
        "all of them; or the classes that the network finds (also for a split without labels)",
    )
    group.add_argument(
        "--score_threshold",
        type=options.fraction,
        default=SCORE_THRESHOLD,
        help="with --labels predicted: the probability from which a class counts as present",
    )
    options.add_run_options(parser, tag)
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=f"classification network (default: the best of the run {trained_by}, else its last)",
    )
    group.add_argument(
        "--scn", metavar="FILE", help="superpixel network (default: the one in the checkpoint)"
    )
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--scales", type=options.positive, nargs="+", default=SCALES, help="of the photograph"
    )
    group.add_argument(
        "--max_side",
        type=options.natural,
        default=MAX_SIDE,
        help="pixels: a longer side is scaled down to this for inference (0: never); "
        "labels keep the photograph's size",
    )
    group.add_argument("--no_flip", action="store_true", help="leave mirror images out")
    options.add_affinity_options(parser, beta=8)
    add_output_options(parser)
    add_crf_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What an evaluator writes."""
    group = parser.add_argument_group("pseudo labels")
    group.add_argument(
        "--thresholds",
        type=options.fraction,
        nargs="+",
        help="of background: labels are written, and scored where there are masks, at all of these "
        f"(default, where there are masks: {' '.join(map(str, THRESHOLDS))})",
    )
    group.add_argument(
        "--threshold",
        type=options.fraction,
        help="of background, where there are no masks (default: the best in training, else "
        f"{USUAL_THRESHOLD}); beside --thresholds, one more of them",
    )
    group.add_argument(
        "--save_cams",
        nargs="+",
        choices=tuple(CAM_FORMATS),
        default=(),
        help="write the cams too: npz (cams/<id>.npz: `cams` (n, H, W) float16, `classes` (n,) "
        "0-based), irn or psa (cams_irn/ and cams_psa/<id>.npy, as IRN and AffinityNet read them)",
    )
    group.add_argument(
        "--uncertain",
        type=options.fraction,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="write 255, which no training counts, where the strongest cam lies above LOW and not "
        "above HIGH; scores stay those of all labels",
    )
    add_report_option(group)
    group.add_argument(
        "--export_deeplab",
        metavar="DIR",
        help="write the best pseudo labels as a tree for deeplab-pytorch's VOCAug data set",
    )
