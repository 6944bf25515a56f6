"""What part of full supervision is reached: the whole road from image-level labels to a network.

Segmentation networks of the same budget are trained on the pseudo labels of plain CAM, of the image
method and of the saliency method, and on masks, and scored on scenes that no stage has seen. The
measure is weak / full: their mIoU over that of the network trained on masks.

Each step is the project's own script. A step that is finished is not run again, so the same command
goes on where it stopped.

    python -m benchmarks.road   # 240 generated scenes to train on, 200 others to test
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import split

from benchmarks.measure import table
from benchmarks.quality import Results
from datasets.demo import generate
from datasets.files import InputError, read_json
from utils.runs import options
from utils.runs.start import start

PLAIN_CAM = ("--no_dcr", "--ipc_weight", "0", "--beta_train", "0")


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
    training: tuple[str, ...] = ()
    inference: tuple[str, ...] = ()


KINDS = (
    Labels("plain CAM", "image", PLAIN_CAM, ("--beta", "0")),
    Labels("image method", "image", ("--patches", "1")),
    Labels("saliency method", "sal"),
    Labels("masks"),
)

CROPS = tuple(split("--batch 8 --crop 112"))
SCHEDULE = tuple(
    split(
        "--long_side 96 144 --epochs 15 --score_images 0 --lr 0.02 --momentum 0.9 --clip 10 "
        "--gamma 0.98"
    )
)
SCRATCH = tuple(split("--backbone resnet18 --backbone_weights none"))
CAMS = tuple(split("--scales 1 1.5 --gamma 0.98 --thresholds 0.2 0.3 0.4 0.5 0.6"))
"""Generated scenes, from scratch: as scripts/demo.sh has it."""


class Road:
    """Runs the scripts of one seed.

    Args:
        args: the benchmark's options.
        seed: of all stages.
    """

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed
        data = ["--dataset", "custom", "--root", args.root]
        run = ["--experiments", args.experiments, "--device", args.device, "--seed", str(seed)]
        self.common = [*data, *run]
        self.folder = Path(args.experiments)

    def call(self, script: str, tag: str, *arguments: str) -> Path:
        """Run a script unless its run `tag` is finished; the run's folder."""
        folder = self.folder / tag
        if not (folder / "finished").is_file():
            resume = ["--resume"] if script.startswith("train") else []
            command = [sys.executable, script, *self.common, "--tag", tag, *arguments, *resume]
            if subprocess.run(command).returncode:
                raise InputError(f"{script} --tag {tag}: failed; its message is above")
            (folder / "finished").touch()
        return folder

    def measure(self, labels: Labels) -> dict:
        """Train on one kind of labels: its entry in the results file."""
        args, name = self.args, f"{labels.name.replace(' ', '_')}_{self.seed}"
        entry: dict = {}
        kind = ["--pseudo_labels", "masks"]
        if labels.script:
            superpixels = "--long_side 96 144 --epochs 6 --lr 1e-3 --split train --score_images 0"
            scn = self.call("train_scn.py", f"scn_{self.seed}", *CROPS, *split(superpixels))
            classifier = [*CROPS, *SCRATCH, *SCHEDULE, "--split", "train"]
            classifier += ["--scn", str(scn / "last.pt"), *labels.training]
            trained = self.call(f"train_cls_{labels.script}.py", f"cls_{name}", *classifier)
            inference = [*CAMS, "--split", "train", "--checkpoint", str(trained / "last.pt")]
            inference += ["--report_images", "0", *labels.inference]
            cams = self.call(f"evaluator_cls_{labels.script}.py", f"labels_{name}", *inference)
            entry["labels"] = round(100 * read_json(cams / "result.json")["best"]["miou"], 2)
            kind = ["--labels_from", cams.name]
        steps = str(args.steps)
        budget = ["--lr", str(args.lr), "--steps", steps, "--score_every", steps]
        budget += split("--stride 16 --split train --accumulate 1 --score_images 0")
        network = self.call("train_seg.py", f"seg_{name}", *CROPS, *SCRATCH, *budget, *kind)
        test = ["--split", "val", "--report_images", "0", "--checkpoint", str(network / "last.pt")]
        scored = self.call("evaluator_seg.py", f"test_{name}", *test)
        entry["miou"] = round(100 * read_json(scored / "result.json")["best"]["miou"], 2)
        return entry


def rows(results: Results, settings: dict) -> list[list[str]]:
    """A row for every kind of labels: label mIoU, network mIoU and weak / full of each seed."""
    found = {k: e for k, e in results.entries.items() if e["settings"] == settings}
    lines = []
    for kind in KINDS:
        mine = {k.rpartition(" ")[2]: e for k, e in found.items() if k.startswith(f"{kind.name} ")}
        full = {s: found[f"masks seed {s}"]["miou"] for s in mine if f"masks seed {s}" in found}
        lines.append(
            [
                kind.name,
                " ".join(f"{e['labels']:.1f}" if "labels" in e else "-" for e in mine.values()),
                " ".join(f"{e['miou']:.1f}" for e in mine.values()),
                " ".join(f"{mine[s]['miou'] / full[s]:.3f}" for s in full),
            ]
        )
    return lines


HEADER = ("trained on", "mIoU of the labels", "mIoU on the test scenes", "weak / full")


def main(args: argparse.Namespace) -> None:
    """Measure what is not measured yet, and print the table."""
    root = Path(args.root)
    if not root.is_dir():
        generate(root, args.images, args.test_images, 112, 7, progress=True)
    names = ("images", "test_images", "steps", "lr")
    settings = {name: getattr(args, name) for name in names}
    results = Results(Path(args.results), [kind.name for kind in KINDS])
    for seed in args.seeds:
        road = Road(args, seed)
        for kind in reversed(KINDS):  # masks first: without them there is no ratio
            key = f"{kind.name} seed {seed}"
            if results.find(key, settings) is None:
                results.add(key, settings, road.measure(kind))
            print(f"{key}: {json.dumps(results.entries[key])}", flush=True)
    print(table("the whole road (%), one value a seed", HEADER, rows(results, settings)))


if __name__ == "__main__":
    parser = options.new_parser(__doc__)
    parser.add_argument("--seeds", type=options.natural, nargs="+", default=(0, 1, 2))
    parser.add_argument("--root", default="data/road", metavar="DIR", help="the generated scenes")
    parser.add_argument("--images", type=options.count, default=240, help="scenes to train on")
    parser.add_argument("--test_images", type=options.count, default=200, help="scenes to test on")
    parser.add_argument("--steps", type=options.count, default=600, help="of every network")
    parser.add_argument("--lr", type=options.positive, default=0.005, help="of its trunk")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument(
        "--experiments", default="experiments/road", metavar="DIR", help="holds the runs"
    )
    parser.add_argument("--results", default="benchmarks/results/road.json", metavar="FILE")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
