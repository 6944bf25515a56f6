"""What every run is told: types of options, and the options themselves.

Options are read once, in a script. What they say goes on as small frozen settings classes, whose
fields are named after the options; see `settings_from`.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from datasets.command_line import number
from datasets.files import InputError
from utils.runs import distributed

Settings = TypeVar("Settings")


count = number(int, 1)
natural = number(int, 0)
positive = number(float, 0, open_low=True)
not_negative = number(float, 0)
fraction = number(float, 0, 1)
probability = number(float, 1e-6, 1 - 1e-6)
seed = number(int, 0, 2**63 - 1)


def settings_from(kind: type[Settings], args: argparse.Namespace, **others: Any) -> Settings:
    """A settings class filled from the parsed options that its fields are named after.

    `others` are fields that no option gives as it is.
    """
    named = {one.name for one in fields(kind)} - set(others)
    return kind(**{name: getattr(args, name) for name in named}, **others)


def option_values(args: argparse.Namespace) -> dict[str, Any]:
    """Parsed options as JSON holds them."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    return json.loads(json.dumps(plain))


@dataclass(frozen=True)
class RunSettings:
    """Where a run writes, what it runs on, and what it does about files that are in its way.

    Attributes:
        experiments: folder of all runs.
        tag: name of the run and of its folder.
        overwrite: replace a run of the same tag.
        seed: of all random numbers.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that read photographs; None for the device's usual number.
        skip_bad: go on without photographs that cannot be read.
        options: all options as JSON holds them, to be kept with the results.

    Raises:
        InputError: the tag would leave the folder of all runs.
    """

    experiments: str = "experiments"
    tag: str = "run"
    overwrite: bool = False
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    skip_bad: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tag = Path(self.tag)
        if not tag.parts or tag.is_absolute() or ".." in tag.parts:
            raise InputError(f"--tag {self.tag!r}: must name a folder inside --experiments")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.experiments) / self.tag

    def workers_for(self, device: torch.device) -> int:
        """How many processes read photographs."""
        if self.workers is not None:
            return self.workers
        return 1 if device.type == "cpu" else min(8, distributed.own_cores())


def run_settings(args: argparse.Namespace) -> RunSettings:
    """What the options of `add_run_options` say."""
    return settings_from(RunSettings, args, options=option_values(args))


def add_run_options(parser: argparse.ArgumentParser, tag: str) -> None:
    """Where a run writes and what it runs on."""
    group = parser.add_argument_group("run")
    group.add_argument("--tag", default=tag, help="name of the run and of its folder")
    group.add_argument("--experiments", default="experiments", metavar="DIR", help="holds the runs")
    group.add_argument("--overwrite", action="store_true", help="replace a run of the same tag")
    group.add_argument("--seed", type=seed, default=0, help="of all random numbers")
    group.add_argument(
        "--device",
        default="auto",
        help="auto (all visible CUDA GPUs, else the CPU), cpu, cuda, cuda:N",
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
    cut = group.add_mutually_exclusive_group()
    cut.add_argument(
        "--gamma",
        type=number(float, 0, 0.999),
        default=0.6,
        help="affinities below this are cut to 0; they are clamped at 0.999 themselves",
    )
    cut.add_argument(
        "--gamma_keep",
        type=number(float, 0, 1, open_low=True),
        metavar="SHARE",
        help="in place of --gamma: keep this share of all pairs in a photograph, those with the "
        "greatest affinity",
    )


def existing_file(path: str | Path, option: str, remedy: str) -> Path:
    """The file an option names.

    Raises:
        InputError: it does not exist, and `remedy` says how to get it; or it is a folder.
    """
    if Path(path).is_dir():
        usual = Path(path) / "last.pt"
        such = f" in it, such as {usual}" if usual.is_file() else ""
        raise InputError(f"{option} {path}: is a folder; name a file{such}")
    if not Path(path).is_file():
        raise InputError(f"{option} {path}: no such file; {remedy}")
    return Path(path)


def checkpoint_of(experiments: str | Path, tag: str) -> Path:
    """Where the run `tag` left its best checkpoint, else its last."""
    folder = Path(experiments) / tag
    return folder / ("best.pt" if (folder / "best.pt").is_file() else "last.pt")
