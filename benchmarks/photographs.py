"""Is the whole method better than plain CAM on real photographs with ImageNet features?

    python -m benchmarks.photographs --voc_root DIR --steps 300
    python -m benchmarks.photographs --voc_root DIR --half choice --set="--lr 0.05"

EfficientNet-Lite0 (requirements-optional.txt) on a small data set in VOC layout, its train and
val photographs together. They are split into two halves by a hash of their ids: settings are chosen
on the half `choice`, and numbers are quoted from the half `report`. A training learns and is scored
on one half, as pseudo labels are. Its learning rate decays over the whole of it: a budget is a
training of its own. The saliency method (--only "saliency method") needs maps by a detector,
--voc_sal_root: where they are made from the masks, its numbers exercise code and say nothing of
quality. What such maps give without training by them, --by_saliency says of any training.

Photographs that played no part in any choice come from another root: `--test_root DIR` scores the
networks on them that were trained on the half, and `--voc_root DIR --half all` trains on them with
settings as they are.

300 steps take six minutes of one CPU core, the dense CRF (--crf) 70 s per inference on two.
`python -m benchmarks.readme` writes tables with intervals and a figure from the results files of
the half `report`.
"""

import argparse
import hashlib
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace

from benchmarks import quality
from benchmarks.quality import NO_IPC, Configuration, named
from benchmarks.scoring import PLAIN, Inference
from datasets.collection import Collection, with_masks
from datasets.command_line import number
from datasets.files import InputError, read_bytes
from utils import checkpoints
from utils.runs import options
from utils.runs.data import DataSettings, open_split
from utils.runs.start import start
from utils.training.classifier import require_saliency

HALVES = ("choice", "report")

BATCH = 8

LEARNING = ("--lr", "0.4", "--warmup", "42")
"""Chosen on the half `choice`, in 300 steps; docs/experiments.md says how."""

CONFIGURATIONS = (
    Configuration("plain CAM", "image", ("--no_dcr", *NO_IPC, *LEARNING)),
    Configuration("DCR", "image", (*NO_IPC, *LEARNING)),
    Configuration("image method", "image", LEARNING),
    Configuration("saliency method", "saliency", LEARNING),
)
"""What is compared."""

USUAL = ("plain CAM", "DCR", "image method")
"""Trained unless others are named."""


def configurations(args: argparse.Namespace) -> list[Configuration]:
    """Those asked for, varied by --set, with the inferences asked for."""
    chosen = [configuration for configuration in CONFIGURATIONS if configuration.name in args.only]
    varied = []
    for one in chosen:
        inferences = inferences_of(args, plain="--no_dcr" in one.arguments)
        arguments = (*one.arguments, *shlex.split(args.set))
        name = f"{one.name} {args.set}".strip()
        varied.append(replace(one, name=name, arguments=arguments, inferences=inferences))
    return varied


def inferences_of(args: argparse.Namespace, plain: bool) -> tuple[Inference, ...]:
    """All ways to infer: without AP and with it; bilinearly too where that can be (no DCR)."""
    spread = [Inference(args.beta, gamma) for gamma in args.gamma]
    spread += [Inference(args.beta, keep=share) for share in args.gamma_keep]
    whole = [PLAIN, *spread] if plain else spread
    more = tuple(args.more_scales)
    finer = [replace(one, scales=more) for one in whole] if more else []
    refined = [replace(one, crf=True) for one in finer or whole] if args.crf else []
    best = [one for one in finer if one.superpixels] or spread or [Inference()]
    cut = [replace(one, by_saliency=True) for one in best]
    ways = [*spread, *finer, *refined, *(cut if args.by_saliency else [])]
    return (*([PLAIN] if plain else []), Inference(), *ways)


def half_of(identifier: str) -> str:
    """The half that a photograph belongs to, whatever others there are."""
    # Of SHA-256's bytes the second splits the 234 photographs of docs/experiments.md most evenly.
    even = hashlib.sha256(identifier.encode()).digest()[1] % 2 == 0
    return "report" if even else "choice"


def everything(data: DataSettings) -> Collection:
    """The train and val photographs that have masks, as one collection."""
    train, val = (open_split(replace(data, split=split)) for split in ("train", "val"))
    both = replace(
        train,
        split="train and val",
        ids=train.ids + val.ids,
        images=train.images | val.images,
        labels=train.labels | val.labels,
    )
    return both.subset(with_masks(both))


def half_taken(photographs: Collection, half: str) -> Collection:
    """The photographs of a half, or all.

    Raises:
        InputError: there are none.
    """
    ids = [one for one in photographs.ids if half in ("all", half_of(one))]
    if not ids:
        raise InputError(f"--half {half}: none of the photographs with a mask is in it")
    return photographs.subset(ids)


def reads_maps(chosen: Sequence[Configuration]) -> bool:
    """Whether saliency maps have a part in any of these."""
    return any(one.method == "saliency" or one.inferences[-1].by_saliency for one in chosen)


def maps_of(photographs: Collection) -> dict[str, str]:
    """A hash of the photographs' saliency maps: what a results file says of them.

    Raises:
        InputError: some are missing.
    """
    require_saliency(photographs)
    digest = hashlib.sha256()
    for identifier in photographs.ids:
        digest.update(read_bytes(photographs.saliency_path(identifier)))
    return {"saliency maps": digest.hexdigest()[:16]}


def main(args: argparse.Namespace) -> None:
    """Measure and print the table."""
    scn = options.existing_file(args.scn, "--scn", "train one first")
    paths = ["--voc_root", args.voc_root, "--scn", str(scn)]
    paths += ["--voc_sal_root", args.voc_sal_root] if args.voc_sal_root else []
    data = quality.training_settings(CONFIGURATIONS[0], paths).data
    photographs = half_taken(everything(data), args.half)
    chosen = configurations(args)
    others, tested = None, {}
    if args.test_root:
        if args.by_saliency:
            raise InputError("--by_saliency: does not go with --test_root, which has other maps")
        others = everything(replace(data, root=args.test_root))
        tested = {"tested": named(others)}
    a_pass = max(1, len(photographs.ids) // BATCH)
    epochs = math.ceil(args.steps / a_pass)
    print(f"{len(photographs.ids)} photographs, {epochs} epochs of {a_pass} steps", flush=True)
    common = ["--backbone", "efficientnet_lite0", "--batch", str(BATCH), "--crop", str(args.crop)]
    common += ["--long_side", str(args.crop), str(args.crop * 25 // 16)]
    common += ["--epochs", str(epochs)]
    args.results = args.results or results_file(args)
    experiment = quality.Experiment(
        chosen,
        common,
        paths,
        photographs,
        scn,
        scales=(args.scale,),
        scored=others,
        maps=maps_of(photographs) if reads_maps(chosen) else {},
        about={
            "half": args.half,
            "photographs": named(photographs),
            **tested,
            "budget": args.steps,
            "steps": epochs * a_pass,
            "scn": hashlib.sha256(read_bytes(scn)).hexdigest()[:16],
        },
    )
    quality.run(args, experiment, [configuration.name for configuration in CONFIGURATIONS])


def results_file(args: argparse.Namespace) -> str:
    """One for each half and budget."""
    tested = "_tested" if args.test_root else ""
    return f"benchmarks/results/photographs_{args.half}{tested}_{args.steps}.json"


if __name__ == "__main__":
    parser = quality.new_parser(__doc__, None, CONFIGURATIONS, seeds=(0, 1, 2, 3, 4))
    parser.set_defaults(only=USUAL)
    parser.add_argument("--voc_root", required=True, metavar="DIR", help="VOC layout, with masks")
    parser.add_argument(
        "--voc_sal_root",
        metavar="DIR",
        help="a detector's saliency maps (default: saliency_map in the root)",
    )
    parser.add_argument(
        "--half",
        choices=(*HALVES, "all"),
        default="report",
        help="photographs to train on and to score; all where nothing was chosen on any",
    )
    parser.add_argument(
        "--test_root", metavar="DIR", help="score on all photographs of this VOC root instead"
    )
    parser.add_argument(
        "--steps", type=options.count, default=300, help="of every training, rounded up to epochs"
    )
    parser.add_argument(
        "--set",
        default="",
        metavar="ARGUMENTS",
        help="more arguments of all trainings, which become part of their names, such as "
        "--set='--lr 0.05 --patches 4'",
    )
    parser.add_argument("--beta", type=options.count, default=8, help="steps of AP in inference")
    parser.add_argument(
        "--gamma",
        type=number(float, 0, 0.999),
        nargs="*",
        default=(0.6,),
        help="infer with AP cut at each of these",
    )
    parser.add_argument(
        "--gamma_keep",
        type=number(float, 0, 1, open_low=True),
        nargs="+",
        default=(),
        metavar="SHARE",
        help="infer with AP that keeps each of these shares",
    )
    parser.add_argument(
        "--more_scales",
        type=options.positive,
        nargs="+",
        default=(),
        help="infer the whole at these scales too, mirrored",
    )
    parser.add_argument("--crf", action="store_true", help="infer with a dense CRF at the end too")
    parser.add_argument(
        "--by_saliency",
        action="store_true",
        help="infer the whole with background where the saliency map is below the threshold, in "
        "place of the strongest cam, too",
    )
    parser.add_argument("--scn", default=checkpoints.SHIPPED, metavar="FILE", help="superpixels")
    parser.add_argument("--crop", type=options.count, default=256, help="side of crops, pixels")
    parser.add_argument("--scale", type=options.positive, default=0.5, help="of inference")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
