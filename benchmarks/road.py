"""What part of full supervision is reached: the whole road from image-level labels to a network.

Segmentation networks of the same budget are trained on the pseudo labels of plain CAM, of the image
method and of the saliency method, and on masks, and scored on photographs that no stage has seen.
The measure is weak / full: their mIoU over that of the network trained on masks. Each step is the
project's own script, so plain CAM is upsampled by superpixels too.

A step that is finished is not run again: the same command goes on where it stopped.

    python -m benchmarks.road   # generated scenes: 240 to train on, 200 others to test
    python -m benchmarks.road --voc_root DIR   # photographs: its train split, tested on its val
    python -m benchmarks.road --voc_root DIR --test_root DIR2
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.measure import table
from benchmarks.quality import Results, named
from datasets import command_line
from datasets.demo import generate
from datasets.files import InputError, read_json
from utils.runs import options
from utils.runs.data import DataSettings, open_split
from utils.runs.start import start


@dataclass(frozen=True)
class Labels:
    """One kind of labels to train on.

    Attributes:
        name: in the table and in the results file.
        script: that trains the classifier: image, sal, or none for masks.
        training: arguments of its training.
        inference: arguments of its evaluation.
    """

    name: str
    script: str = ""
    training: str = ""
    inference: str = ""


PLAIN = Labels("plain CAM", "image", "--no_dcr --ipc_weight 0 --beta_train 0", "--beta 0")
MASKS = Labels("masks")


@dataclass(frozen=True)
class Recipe:
    """Arguments of the stages: as little as possible besides the scripts' defaults.

    Attributes:
        kinds: of labels.
        superpixels: of train_scn.py; nothing takes the network that comes with the project.
        classifier: of train_cls_image.py and train_cls_sal.py.
        cams: of their evaluators.
        network: of train_seg.py.
        steps: of train_seg.py, unless --steps is given.
        start: all networks begin with the backbone that was trained on these labels; by default
            with what `network` says.
    """

    kinds: tuple[Labels, ...]
    superpixels: str
    classifier: str
    cams: str
    network: str
    steps: int
    start: Labels | None = None


CROPS = "--batch 8 --crop 112"
SCRATCH = "--backbone resnet18 --backbone_weights none"
SCENES = Recipe(
    kinds=(
        PLAIN,
        replace(
            PLAIN,
            name="plain CAM, CRF",
            inference=f"{PLAIN.inference} --crf --thresholds 0.1 0.15 0.2 0.3",
        ),
        Labels("image method", "image"),
        Labels("image method, CRF", "image", inference="--crf --thresholds 0.3 0.4 0.5"),
        Labels("image method, uncertain left out", "image", inference="--uncertain 0.35 0.55"),
        Labels("saliency method", "sal"),
        MASKS,
    ),
    superpixels=f"{CROPS} --long_side 96 144 --epochs 6 --lr 1e-3",
    classifier=f"{CROPS} {SCRATCH} --long_side 96 144 --epochs 15 --lr 0.02 --momentum 0.9 "
    "--clip 10 --gamma 0.98",
    cams="--scales 1 1.5 --gamma 0.98 --thresholds 0.1 0.15 0.2 0.3 0.4 0.5 0.6",
    network=f"{CROPS} --backbone resnet18 --stride 16 --accumulate 1 --lr 3e-3 --clip 10",
    steps=600,
    start=PLAIN,
)
"""Generated scenes: as scripts/demo.sh has it. Classifiers are trained from scratch, and networks
begin with that of plain CAM, where others begin with ImageNet weights."""

IMAGENET = "--backbone efficientnet_lite0 --backbone_weights imagenet"
PHOTOGRAPHS = Recipe(
    kinds=(PLAIN, Labels("image method", "image"), MASKS),
    superpixels="",
    classifier=f"{IMAGENET} --batch 8 --crop 256 --long_side 256 400 --epochs 12",
    cams="--scales 0.5",
    network=f"{IMAGENET} --stride 16 --batch 8 --accumulate 1 --crop 192 --lr 2e-3 --clip 10",
    steps=240,
)
"""Photographs, from ImageNet features. (Without saliency maps: those at hand come from masks.)"""


class Road:
    """Runs the scripts of one seed.

    Args:
        args: the benchmark's options.
        recipe: of the stages.
        train, test: arguments that name the data, and the split.
        seed: of all stages.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        recipe: Recipe,
        train: Sequence[str],
        test: Sequence[str],
        seed: int,
    ) -> None:
        self.recipe, self.train, self.test = recipe, train, test
        self.steps, self.amp = args.steps or recipe.steps, ["--amp"] if args.amp else []
        self.seed, self.folder = seed, Path(args.experiments)
        self.run = ["--experiments", args.experiments, "--device", args.device]
        self.run += ["--seed", str(seed)]

    def call(self, name: str, script: str, *arguments: str) -> Path:
        """Run a script unless that was done; the run's folder.

        Its tag is made of the arguments, and these name the folders of the stages before, so that
        whatever is set differently is run anew, and what follows it.
        """
        digest = hashlib.sha256(" ".join([script, *arguments]).encode()).hexdigest()[:8]
        folder = self.folder / f"{name.replace(' ', '_')}_{self.seed}_{digest}"
        if not (folder / "finished").is_file():
            resume = ["--resume"] if script.startswith("train") else []
            command = [sys.executable, script, *self.run, "--tag", folder.name, *arguments, *resume]
            if subprocess.run(command).returncode:
                raise InputError(f"{script} --tag {folder.name}: failed; its message is above")
            (folder / "finished").touch()
        return folder

    def measure(self, labels: Labels) -> dict:
        """Train on one kind of labels: its entry in the results file."""
        entry: dict = {}
        kind = ["--pseudo_labels", "masks"]
        if labels.script:
            made = self.make(labels)
            entry["labels"] = percent(made)
            kind = ["--labels_from", made.name]
        steps = ["--steps", str(self.steps), "--score_every", str(self.steps), *self.amp]
        arguments = [*self.train, *self.recipe.network.split(), *steps, *kind]
        if self.recipe.start is not None:
            begun = self.classifier(self.recipe.start) / "last.pt"
            arguments += ["--backbone_weights", str(begun)]
        network = self.call(f"seg {labels.name}", "train_seg.py", *arguments, "--score_images", "0")
        scored = [*self.test, "--report_images", "0", "--checkpoint", str(network / "last.pt")]
        entry["miou"] = percent(self.call(f"test {labels.name}", "evaluator_seg.py", *scored))
        return entry

    def make(self, labels: Labels) -> Path:
        """Write a classifier's pseudo labels: the folder of the evaluation."""
        arguments = [*self.train, *self.recipe.cams.split(), *labels.inference.split()]
        checkpoint = str(self.classifier(labels) / "last.pt")
        arguments += ["--checkpoint", checkpoint, "--report_images", "0"]
        script = f"evaluator_cls_{labels.script}.py"
        return self.call(f"labels {labels.name}", script, *arguments)

    def classifier(self, labels: Labels) -> Path:
        """Train a classifier: the folder of its run."""
        recipe, superpixels = self.recipe, []
        if recipe.superpixels:
            scn = self.call("scn", "train_scn.py", *self.train, *recipe.superpixels.split())
            superpixels = ["--scn", str(scn / "last.pt")]
        arguments = [*self.train, *recipe.classifier.split(), *labels.training.split()]
        arguments += [*superpixels, *self.amp, "--score_images", "0"]
        script = f"train_cls_{labels.script}.py"
        # What follows the comma is the evaluator's matter: the classifier is the same.
        return self.call(f"cls {labels.name.partition(',')[0]}", script, *arguments)


def percent(evaluation: Path) -> float:
    """The best mIoU of an evaluation, of refined labels where there are any and they are better."""
    found = read_json(evaluation / "result.json")
    mious = [scores["best"]["miou"] for scores in (found, found.get("crf")) if scores]
    return round(100 * max(mious), 2)


def settings_of(recipe: Recipe, labels: Labels, **more: object) -> dict:
    """All that an entry of the results file was measured with, but for its seed."""
    recipe_of_all = {k: v for k, v in asdict(recipe).items() if k not in ("kinds", "steps")}
    return {"labels": asdict(labels), **recipe_of_all, **more}


def rows(results: Results, settings: dict[str, dict]) -> list[list[str]]:
    """A row for every kind of labels: label mIoU, network mIoU and weak / full of each seed.

    Args:
        results: of all seeds.
        settings: of each kind of labels, by name; entries measured with others are left out.
    """
    found: dict[str, dict[str, dict]] = {name: {} for name in settings}
    for key, entry in results.entries.items():
        name, _, seed = key.rpartition(" seed ")
        if entry["settings"] == settings.get(name):
            found[name][seed] = entry
    full = {seed: entry["miou"] for seed, entry in found[MASKS.name].items()}
    return [
        [
            name,
            " ".join(f"{e['labels']:.1f}" if "labels" in e else "-" for e in mine.values()),
            " ".join(f"{e['miou']:.1f}" for e in mine.values()),
            " ".join(f"{e['miou'] / full[seed]:.3f}" for seed, e in mine.items() if seed in full),
        ]
        for name, mine in found.items()
    ]


def scenes_root(images: int, test_images: int) -> Path:
    """Where so many generated scenes lie, to train on and to test on."""
    return Path("data") / f"road_{images}_{test_images}"


HEADER = ("trained on", "mIoU of the labels", "mIoU on the test photographs", "weak / full")


def main(args: argparse.Namespace) -> None:
    """Measure what is not measured yet, and print the table."""
    if args.voc_root:
        name, recipe = "road_photographs", PHOTOGRAPHS
        roots = {"train": args.voc_root, "val": args.test_root or args.voc_root}
        train, test = (
            ("--dataset", "voc12", "--voc_root", root, "--split", split)
            for split, root in roots.items()
        )
        data = {s: named(open_split(DataSettings("voc12", s, root))) for s, root in roots.items()}
    else:
        name, recipe = "road", SCENES
        root = scenes_root(args.images, args.test_images)
        if not (root / "ImageSets/Segmentation/val.txt").is_file():  # written last
            generate(root, args.images, args.test_images, 112, 7, progress=True)
        train, test = (
            ("--dataset", "custom", "--root", str(root), "--split", s) for s in ("train", "val")
        )
        data = {"images": args.images, "test_images": args.test_images}
    steps = args.steps or recipe.steps
    settings = {
        kind.name: settings_of(recipe, kind, **data, steps=steps, amp=args.amp)
        for kind in recipe.kinds
    }
    path = Path(args.results or f"benchmarks/results/{name}.json")
    results = Results(path, [kind.name for kind in recipe.kinds])
    for seed in args.seeds:
        road = Road(args, recipe, train, test, seed)
        for kind in reversed(recipe.kinds):  # masks first: without them there is no ratio
            key = f"{kind.name} seed {seed}"
            if results.find(key, settings[kind.name]) is None:
                results.add(key, settings[kind.name], road.measure(kind))
            print(f"{key}: {json.dumps(results.entries[key])}", flush=True)
    shown = rows(results, settings)
    print(table("the whole road (%), one value a seed", HEADER, shown))


if __name__ == "__main__":
    parser = command_line.new_parser(__doc__)
    parser.add_argument("--seeds", type=options.natural, nargs="+", default=(0, 1, 2))
    parser.add_argument("--voc_root", metavar="DIR", help="photographs in VOC layout, with masks")
    parser.add_argument("--test_root", metavar="DIR", help="others, whose val split is the test")
    parser.add_argument("--images", type=options.count, default=240, help="scenes to train on")
    parser.add_argument("--test_images", type=options.count, default=200, help="scenes to test on")
    parser.add_argument("--steps", type=options.count, help="of every segmentation network")
    parser.add_argument("--amp", action="store_true", help="bfloat16 convolutions in training")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument(
        "--experiments", default="experiments/road", metavar="DIR", help="holds the runs"
    )
    parser.add_argument("--results", metavar="FILE", help="one entry a network")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
