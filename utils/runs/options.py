"""Command line options that several scripts share, in groups, and what they open."""

import argparse
import os
from pathlib import Path

import torch

from datasets import roots
from datasets.collection import Collection
from datasets.command_line import Parser, number
from datasets.files import InputError
from datasets.prepare import load_collection
from utils.runs import distributed

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, shows defaults where there are any, and short metavars."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = "(default:" in (action.help or "")
        shown = action.default not in (None, "", (), False, argparse.SUPPRESS) and not told
        return f"{action.help or ''}{' (default: %(default)s)' if shown else ''}"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "NAME" if action.type is None else "N"


def parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows defaults and keeps the description's lines.

    What it refuses ends in one line and exit status 2.
    """
    return Parser(description=description, formatter_class=_Formatter, allow_abbrev=False)


count = number(int, 1)
natural = number(int, 0)
positive = number(float, 0, open_low=True)
not_negative = number(float, 0)
fraction = number(float, 0, 1)
probability = number(float, 1e-6, 1 - 1e-6)
seed = number(int, 0, 2**63 - 1)


def add_data_options(parser: argparse.ArgumentParser, split: str) -> None:
    """Which photographs, and where they lie; COCO knows no `train_aug`, so `train` is taken."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset", choices=("voc12", "coco", "custom"), default="voc12", help="layout of the data"
    )
    group.add_argument("--split", help=f"train, train_aug or val (default: {split}; train of coco)")
    parser.set_defaults(default_split=split)
    roots.add_options(group)


def collection(options: argparse.Namespace, split: str | None = None) -> Collection:
    """The photographs that the data options name, prepared by the first process where need be.

    Args:
        options: the data options.
        split: instead of the one that they name.
    """
    root, saliency = roots.chosen(options)
    usual = "train" if options.dataset == "coco" else options.default_split
    with distributed.first_goes_ahead():
        return load_collection(
            options.dataset,
            root,
            split or options.split or usual,
            saliency=saliency,
            labels_file=options.labels_file,
            quiet=not distributed.is_first(),
        )


def add_run_options(parser: argparse.ArgumentParser, tag: str) -> None:
    """Where a run writes and what it runs on."""
    group = parser.add_argument_group("run")
    group.add_argument("--tag", default=tag, help="name of the run and of its folder")
    group.add_argument("--experiments", default="experiments", metavar="DIR", help="holds the runs")
    group.add_argument("--overwrite", action="store_true", help="replace a run of the same tag")
    group.add_argument("--seed", type=seed, default=0, help="of all random numbers")
    group.add_argument(
        "--device", default="auto", help="auto (all visible CUDA GPUs, else the CPU), cpu, cuda:N"
    )
    group.add_argument(
        "--workers",
        type=natural,
        help="processes that read images (default: 1 for the CPU, up to 8 for GPUs)",
    )
    group.add_argument(
        "--skip_bad",
        action="store_true",
        help="go on without photographs of which a file cannot be read, and list them at the end",
    )
    group.add_argument("--debug", action="store_true", help="show tracebacks of errors")


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


def check_schedule(options: argparse.Namespace) -> None:
    """Refuse crops and lengths that cannot be.

    Raises:
        InputError: naming the option.
    """
    if options.crop % 16 or options.crop < 32:
        raise InputError(
            f"--crop {options.crop}: must be a multiple of the superpixel cell, 16, and at least 32"
        )
    if options.long_side[0] > options.long_side[1]:
        raise InputError(f"--long_side {' '.join(map(str, options.long_side))}: LOW exceeds HIGH")


def add_affinity_options(
    parser: argparse.ArgumentParser, beta: int, beta_train: int | None = None
) -> None:
    """How affinity propagation (AP) acts; `beta_train` where there is training."""
    group = parser.add_argument_group("affinity propagation")
    group.add_argument("--beta", type=natural, default=beta, help="steps in inference")
    if beta_train is not None:
        group.add_argument(
            "--beta_train", type=natural, default=beta_train, help="steps in training"
        )
    group.add_argument(
        "--gamma", type=fraction, default=0.6, help="affinities below this are cut to 0"
    )


def workers(options: argparse.Namespace, device: torch.device) -> int:
    """How many processes read images."""
    if options.workers is not None:
        return options.workers
    return 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def existing_file(path: str | Path, option: str, remedy: str) -> Path:
    """The file an option names.

    Raises:
        InputError: it does not exist; `remedy` says how to get it.
    """
    if not Path(path).is_file():
        raise InputError(f"{option} {path}: no such file; {remedy}")
    return Path(path)


def checkpoint_of(given: argparse.Namespace, tag: str) -> Path:
    """Where the run `tag` among the experiments left its best checkpoint, else its last."""
    folder = Path(given.experiments) / tag
    return folder / ("best.pt" if (folder / "best.pt").is_file() else "last.pt")
