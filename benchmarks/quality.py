"""How good are the cams of differently trained classifiers? What ablation and photographs share.

A benchmark is a list of configurations; each is trained with every seed through the code of the
training scripts, and its cams are scored against the masks of the photographs it was trained on.
Each training is one entry of a results file, written as soon as it is measured: the same command
goes on where it stopped, and measures again what is set differently now.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

import train_cls_image
import train_cls_sal
from benchmarks.bilinear import Bilinear
from benchmarks.measure import table
from datasets.collection import Collection
from datasets.files import write_json
from networks.superpixel import SuperpixelNet
from utils.checkpoints.training_state import TrainingState
from utils.inference.collection_cams import InferenceSettings
from utils.runs import devices, options
from utils.scores.validation import validate
from utils.training.classifier import train_networks
from utils.training.classifier_options import ClassifierSettings, add_options
from utils.training.classifier_options import settings_of as classifier_settings

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(11))
"""Of background; the best one counts, for every training by itself."""


@dataclass(frozen=True)
class Inference:
    """How cams are inferred from a trained classifier.

    Attributes:
        beta: steps of affinity propagation; 0 leaves it out.
        gamma: affinities below this are cut.
        superpixels: upsample with the superpixel network's association; otherwise bilinearly, as
            plain CAM does (without DCR only, which reads that association).
    """

    beta: int = 0
    gamma: float = 0.6
    superpixels: bool = True

    def __str__(self) -> str:
        """In words, as tables and results files have it."""
        upsampling = "superpixels" if self.superpixels else "bilinear"
        return f"{upsampling}, AP gamma {self.gamma:g}" if self.beta else upsampling


PLAIN = Inference(superpixels=False)
"""As in plain CAM: neither superpixels nor AP."""


METHODS = {"image": train_cls_image, "saliency": train_cls_sal}
"""The training scripts: their supervision, and the defaults in which the two differ."""

NO_IPC = ("--ipc_weight", "0", "--beta_train", "0")
"""Arguments without the IPC loss, so that AP would change nothing in training."""


@dataclass(frozen=True)
class Configuration:
    """One way to train, and the ways in which its cams are inferred.

    Attributes:
        name: in the table and in the results file.
        method: the training script: `image` or `saliency`.
        arguments: of the training script.
        inferences: one row of the table each.
        start: changes the untrained classifier, to measure what is no option of the scripts.
    """

    name: str
    method: str
    arguments: tuple[str, ...]
    inferences: tuple[Inference, ...] = (Inference(),)
    start: Callable[[nn.Module], None] | None = None


Networks = Callable[[ClassifierSettings, Collection], tuple[nn.Module, SuperpixelNet]]
"""The classifier to be trained and the superpixel network, for settings and photographs."""


def training_settings(configuration: Configuration, arguments: Sequence[str]) -> ClassifierSettings:
    """What the configuration's training script is told, with further arguments before its own."""
    parser = options.new_parser(f"training of {configuration.name}")
    add_options(parser, **METHODS[configuration.method].DEFAULTS)
    return classifier_settings(parser.parse_args([*arguments, *configuration.arguments]))


def train_and_score(
    configuration: Configuration,
    settings: ClassifierSettings,
    collection: Collection,
    networks: Networks,
    scales: Sequence[float],
) -> dict:
    """Train once and score the last network, the one that is chosen without masks.

    Args:
        configuration: what is trained.
        settings: of its training.
        collection: photographs with masks, to train on and to score.
        networks: builds them.
        scales: of the photographs in inference; they are not mirrored.

    Returns:
        The entry in the results file: seconds of training, mean average precision of the
        classification and, for every inference, the best mIoU (%) and its threshold.
    """
    device = devices.choose(settings.run.device)
    devices.seed_everything(settings.run.seed)
    classifier, scn = networks(settings, collection)
    if configuration.start is not None:
        configuration.start(classifier)
    supervision = METHODS[configuration.method].SUPERVISION
    state = TrainingState(settings.run, settings.resuming, {})
    with state.open_run(device) as run:
        started = time.monotonic()
        both = (classifier, scn)
        kept = train_networks(run, state, settings, supervision, collection, both, device)
        entry: dict = {"seconds": round(time.monotonic() - started), "scores": {}}
        trained, frozen = kept.networks
        for inference in configuration.inferences:
            found = validate(
                collection,
                trained,
                frozen if inference.superpixels else Bilinear(),
                InferenceSettings(tuple(scales), False, inference.beta, inference.gamma),
                THRESHOLDS,
                device,
                settings.run.readers(device),
                run.bad,
            )
            entry["mean_ap"] = round(100 * found.mean_ap, 2)
            entry["scores"][str(inference)] = {
                "miou": round(100 * found.miou, 2),
                "threshold": found.threshold,
            }
    return entry


class Results:
    """The results file: one entry a configuration and seed.

    Args:
        path: JSON; made if it is missing.
        order: names of configurations, in which entries are kept.
    """

    def __init__(self, path: Path, order: Sequence[str] = ()) -> None:
        self.path, self.order = path, list(order)
        self.entries = self._read()

    def _read(self) -> dict[str, dict]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def _place(self, key: str) -> tuple[int, str, int]:
        name, _, seed = key.rpartition(" seed ")
        return self.order.index(name) if name in self.order else len(self.order), name, int(seed)

    def find(self, key: str, settings: dict) -> dict | None:
        """The entry of that key if it was measured with these settings."""
        entry = self.entries.get(key)
        return entry if entry is not None and entry["settings"] == settings else None

    def add(self, key: str, settings: dict, entry: dict) -> None:
        """Add or replace an entry and write the file, with what others have added meanwhile."""
        entries = {**self._read(), key: {"settings": settings, **entry}}
        self.entries = {key: entries[key] for key in sorted(entries, key=self._place)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.entries)


def settings_of(configuration: Configuration, arguments: Sequence[str], **more: object) -> dict:
    """What an entry was measured with, as JSON gives it back: no path of this machine in it."""
    settings = {
        "method": configuration.method,
        "arguments": [*arguments, *configuration.arguments],
        "inference": [str(inference) for inference in configuration.inferences],
        **more,
    }
    return json.loads(json.dumps(settings))


def rows(
    configurations: Sequence[Configuration], settings: Mapping[str, dict], results: Results
) -> list[list[str]]:
    """A row of the table for every configuration and inference that has been measured.

    Args:
        configurations: what is compared.
        settings: of each of them by name; entries that were measured with others are left out.
        results: all entries.
    """
    table = []
    for configuration in configurations:
        name = configuration.name
        entries = [
            entry
            for key, entry in results.entries.items()
            if key.rpartition(" seed ")[0] == name and entry["settings"] == settings[name]
        ]
        for inference in configuration.inferences if entries else ():
            mious = [entry["scores"][str(inference)]["miou"] for entry in entries]
            spread = statistics.stdev(mious) if len(mious) > 1 else float("nan")
            aps = [entry["mean_ap"] for entry in entries]
            table.append(
                [
                    name,
                    str(inference),
                    f"{statistics.mean(mious):.1f}",
                    f"{spread:.1f}",
                    " ".join(f"{miou:.1f}" for miou in mious),
                    f"{statistics.mean(aps):.1f}",
                ]
            )
    return table


HEADER = ("training", "inference", "mIoU", "deviation", "of each seed", "mean AP")
"""Of the table of `rows`: mIoU and mean average precision in percent, means over seeds."""


def parse(description: str, results: str) -> argparse.ArgumentParser:
    """The options that both benchmarks have."""
    parser = options.new_parser(description)
    parser.add_argument("--seeds", type=options.natural, nargs="+", default=(0, 1, 2))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these configurations")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument(
        "--experiments", default="experiments/benchmarks", metavar="DIR", help="holds the runs"
    )
    parser.add_argument("--results", default=results, metavar="FILE", help="one entry a training")
    return parser


def run(
    args: argparse.Namespace,
    configurations: Sequence[Configuration],
    common: Sequence[str],
    paths: Sequence[str],
    collection: Collection,
    networks: Networks,
    scales: Sequence[float],
    **more: str,
) -> None:
    """Measure what is not measured yet, one training after the other, and print the table.

    Args:
        args: the benchmark's options.
        configurations: what is compared.
        common: arguments of all trainings; they are part of an entry's settings.
        paths: arguments of all trainings that say where files lie; they are not.
        collection: photographs with masks.
        networks: builds the networks.
        scales: of inference.
        more: what else the numbers were measured with.
    """
    settings = {c.name: settings_of(c, common, scales=list(scales), **more) for c in configurations}
    chosen = [c for c in configurations if args.only is None or c.name in args.only]
    results = Results(Path(args.results), [configuration.name for configuration in configurations])
    for seed in args.seeds:
        for configuration in chosen:
            key = f"{configuration.name} seed {seed}"
            ours = settings[configuration.name]
            if results.find(key, ours) is None:
                tag = re.sub(r"\W+", "_", f"{Path(args.results).stem} {key}")
                here = ["--experiments", args.experiments, "--tag", tag, "--overwrite"]
                here += ["--device", args.device, "--seed", str(seed), "--score_images", "0"]
                trained = training_settings(configuration, [*common, *paths, *here])
                entry = train_and_score(configuration, trained, collection, networks, scales)
                results.add(key, ours, entry)
            print(f"{key}: {json.dumps(results.entries[key]['scores'])}", flush=True)
    print(
        table(
            "mIoU of cams at the best threshold (%)",
            HEADER,
            rows(configurations, settings, results),
        )
    )
