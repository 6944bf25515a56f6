"""How good are the cams of differently trained classifiers? What ablation and photographs share.

A benchmark is a list of configurations; each is trained with every seed through the code of the
training scripts, and its cams are scored against the masks of the photographs it was trained on.
Each training is one entry of a results file, written as soon as it is measured. The same command
goes on where it stopped, in the middle of a training too; it measures again what is set differently
now, and infers in a new way what is trained already. (Trainings are kept in `--experiments`, where
only their settings name them: remove them when the code of a training has changed.)
"""

import argparse
import hashlib
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import train_cls_image
import train_cls_sal
from benchmarks.measure import table
from benchmarks.scoring import Inference, Scorer
from datasets import command_line
from datasets.collection import Collection
from datasets.files import write_json
from utils.checkpoints.beginning import Beginning
from utils.runs import devices, options
from utils.training.classifier import build_networks, train_networks
from utils.training.classifier_options import ClassifierSettings, add_options
from utils.training.classifier_options import settings_of as classifier_settings

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
        inferences: one row of the table each, where they have been measured.
    """

    name: str
    method: str
    arguments: tuple[str, ...] = ()
    inferences: tuple[Inference, ...] = (Inference(),)


@dataclass(frozen=True)
class Experiment:
    """Trainings that are compared, and on what.

    Attributes:
        configurations: what is compared.
        common: arguments of all trainings; they are part of an entry's settings.
        paths: arguments of all trainings that say where files lie; they are not.
        photographs: with masks, to train on and to score.
        scn: file of the superpixel network.
        scales: of the photographs in inference; they are not mirrored.
        scored: photographs to score in place of those trained on.
        maps: the saliency maps, a part of the saliency method's settings, and of the scores of
            inferences by saliency.
        about: what else all numbers were measured with.
    """

    configurations: Sequence[Configuration]
    common: Sequence[str]
    paths: Sequence[str]
    photographs: Collection
    scn: Path
    scales: Sequence[float]
    scored: Collection | None = None
    maps: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, object] = field(default_factory=dict)

    def settings(self, configuration: Configuration) -> dict:
        """What an entry was measured with, as JSON gives it back: no path of this machine in it."""
        settings = {
            "method": configuration.method,
            "arguments": [*self.common, *configuration.arguments],
            "scales": list(self.scales),
            **self.about,
            **(self.maps if configuration.method == "saliency" else {}),
        }
        return json.loads(json.dumps(settings))


def training_settings(configuration: Configuration, arguments: Sequence[str]) -> ClassifierSettings:
    """What the configuration's training script is told, with further arguments before its own."""
    parser = command_line.new_parser(f"training of {configuration.name}")
    add_options(parser, **METHODS[configuration.method].DEFAULTS)
    return classifier_settings(parser.parse_args([*arguments, *configuration.arguments]))


def train_and_score(
    experiment: Experiment,
    configuration: Configuration,
    settings: ClassifierSettings,
    inferences: Sequence[Inference],
    start_seed: int | None = None,
) -> dict:
    """Train, or take up a training, and score the last network: the one chosen without masks.

    Args:
        experiment: photographs, superpixel network and scales.
        configuration: what is trained.
        settings: of its training.
        inferences: in these ways.
        start_seed: of the networks' start; by default the training's.

    Returns:
        The entry in the results file: seconds of training (since it was last taken up), ids of the
        photographs that were scored, a line each, mean average precision of the classification
        and, for every inference, what `Scorer.score` says.
    """
    device = devices.choose(settings.run.device)
    devices.seed_everything(settings.run.seed if start_seed is None else start_seed)
    collection, scored = experiment.photographs, experiment.scored or experiment.photographs
    classifier, scn = build_networks(settings.networks, experiment.scn, collection.num_classes)
    supervision = METHODS[configuration.method].SUPERVISION
    beginning = Beginning(settings.run, settings.resuming, {})
    with beginning.open_run(device) as run:
        started = time.monotonic()
        both = (classifier, scn)
        kept = train_networks(run, beginning, settings, supervision, collection, both)
        seconds = round(time.monotonic() - started)
        networks = kept.networks
        scorer = Scorer(scored, *networks, experiment.scales, run.reader)
        scores = {str(inference): scorer.score(inference) for inference in inferences}
    return {
        "seconds": seconds,
        "photographs": "\n".join(scorer.ranking),
        "mean_ap": scorer.mean_ap(),
        "scores": scores,
    }


def named(photographs: Collection) -> str:
    """How many photographs, and a hash of their ids: what a results file says of them."""
    digest = hashlib.sha256("\n".join(photographs.ids).encode()).hexdigest()[:16]
    return f"{len(photographs.ids)}, {digest}"


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
        for inference in map(str, configuration.inferences):
            measured = [entry for entry in entries if inference in entry["scores"]]
            if not measured:
                continue
            mious = [entry["scores"][inference]["miou"] for entry in measured]
            spread = statistics.stdev(mious) if len(mious) > 1 else float("nan")
            aps = [entry["mean_ap"] for entry in measured]
            table.append(
                [
                    name,
                    inference,
                    f"{statistics.mean(mious):.1f}",
                    f"{spread:.1f}",
                    " ".join(f"{miou:.1f}" for miou in mious),
                    f"{statistics.mean(aps):.1f}",
                ]
            )
    return table


HEADER = ("training", "inference", "mIoU", "deviation", "of each seed", "mean AP")
"""Of the table of `rows`: mIoU and mean average precision in percent, means over seeds."""


def new_parser(
    description: str,
    results: str | None,
    configurations: Sequence[Configuration],
    seeds: Sequence[int] = (0, 1, 2),
) -> argparse.ArgumentParser:
    """The options that both benchmarks have."""
    parser = command_line.new_parser(description)
    names = [configuration.name for configuration in configurations]
    parser.add_argument("--seeds", type=options.natural, nargs="+", default=seeds)
    parser.add_argument(
        "--start_seed",
        type=options.natural,
        help="of the networks' start alone, which becomes part of the trainings' names "
        "(default: the training's seed)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"{'|'.join(names)} (default: all)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument(
        "--workers",
        type=options.natural,
        help="processes that read photographs (default: 1 for the CPU, up to 8 for a GPU)",
    )
    parser.add_argument(
        "--experiments", default="experiments/benchmarks", metavar="DIR", help="holds the runs"
    )
    parser.add_argument("--results", default=results, metavar="FILE", help="one entry a training")
    return parser


def run(args: argparse.Namespace, experiment: Experiment, order: Sequence[str] = ()) -> None:
    """Measure what is not measured yet, one training after the other, and print the table.

    Args:
        args: the benchmark's options.
        experiment: what is compared.
        order: names, in which the results file keeps its entries.
    """
    configurations, maps = experiment.configurations, experiment.maps
    if args.start_seed is not None:
        start = f"start {args.start_seed}"
        configurations = [replace(c, name=f"{c.name} {start}") for c in configurations]
    settings = {c.name: experiment.settings(c) for c in configurations}
    results = Results(Path(args.results), order)
    for seed in args.seeds:
        for configuration in configurations:
            key = f"{configuration.name} seed {seed}"
            ours = settings[configuration.name]
            found = results.find(key, ours) or {"scores": {}}
            scored = {i: found["scores"].get(str(i)) for i in configuration.inferences}
            missing = [i for i, score in scored.items() if not is_of(maps, i, score)]
            if missing:
                here = arguments_of_run(args, tag_of(results.path, key, ours), seed)
                arguments = [*experiment.common, *experiment.paths, *here]
                given = (configuration, training_settings(configuration, arguments), missing)
                entry = train_and_score(experiment, *given, args.start_seed)
                for inference in missing:
                    entry["scores"][str(inference)] |= maps if inference.by_saliency else {}
                scores = {"scores": {**found["scores"], **entry["scores"]}}
                results.add(key, ours, {**entry, **found, **scores})
            print(f"{key}: {in_words(results.entries[key]['scores'])}", flush=True)
    measured = rows(configurations, settings, results)
    print(table("mIoU of cams at the best threshold (%)", HEADER, measured))


def is_of(maps: Mapping[str, str], inference: Inference, score: dict | None) -> bool:
    """Whether a score was measured, and if it is by saliency, with these maps."""
    if score is None or not inference.by_saliency:
        return score is not None
    return all(score.get(name) == value for name, value in maps.items())


def arguments_of_run(args: argparse.Namespace, tag: str, seed: int) -> list[str]:
    """Arguments of a training that change nothing of its result but by the seed."""
    arguments = ["--experiments", args.experiments, "--device", args.device, "--tag", tag]
    arguments += ["--resume", "--seed", str(seed), "--score_images", "0"]
    return arguments + ([] if args.workers is None else ["--workers", str(args.workers)])


def tag_of(results: Path, key: str, settings: dict) -> str:
    """The name of a training's run: another one wherever its settings are others."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return re.sub(r"\W+", "_", f"{results.stem} {key} {digest}")


def in_words(scores: Mapping[str, dict]) -> str:
    """mIoU and threshold of every inference."""
    return "; ".join(f"{i} {s['miou']:.2f} at {s['threshold']:g}" for i, s in scores.items())
