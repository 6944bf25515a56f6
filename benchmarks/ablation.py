"""What does each part of the method give? Trainings from scratch on the generated data set.

    python -m benchmarks.ablation

Plain CAM; with DCR; with DCR and AP; the image method; the saliency method: the demo's settings,
the same number of steps for all, three seeds. The data set and the superpixel network are made
where they are missing. The affinity of AP changes nothing in training without the IPC loss (the
scores do not see it), so one training with DCR serves the second and the third. The image method
is trained with nine patches a crop, the paper's number, too: in crops of 112 they are 2 x 2
superpixels each. Patches of the paper's size are one such crop.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import quality
from benchmarks.quality import NO_IPC, Configuration
from benchmarks.scoring import PLAIN, Inference
from datasets.demo import generate
from utils.runs import options
from utils.runs.data import DataSettings, open_split
from utils.runs.start import start

INFERENCES = (Inference(), Inference(8, 0.9), Inference(8, 0.6))
"""AP: none, cut higher than in the paper, with the paper's gamma."""

CONFIGURATIONS = (
    Configuration("plain CAM", "image", ("--no_dcr", *NO_IPC), (PLAIN, *INFERENCES)),
    Configuration("DCR", "image", NO_IPC, INFERENCES),
    Configuration("DCR, IPC by the image, one patch", "image", (), INFERENCES),
    Configuration("DCR, IPC by the image, nine patches", "image", ("--patches", "9"), INFERENCES),
    Configuration("DCR, IPC by saliency", "saliency", (), INFERENCES),
)

CROPS = ("--batch", "8", "--crop", "112", "--long_side", "96", "144")

COMMON = (
    *("--dataset", "custom", "--split", "train", *CROPS),
    *("--backbone", "resnet18", "--backbone_weights", "none"),
    *("--lr", "0.02", "--momentum", "0.9", "--clip", "10", "--gamma", "0.9"),
)
"""As in scripts/demo.sh, but for gamma, which is higher there."""


def superpixel_network(args: argparse.Namespace, photographs: str) -> Path:
    """The superpixel network's file for these photographs, trained as in the demo if missing."""
    tag = f"ablation_scn_{photographs.split()[-1]}"
    path = Path(args.experiments) / tag / "last.pt"
    if not path.is_file():
        command = [sys.executable, "train_scn.py", "--dataset", "custom", "--root", args.root]
        command += [*CROPS, "--epochs", "6", "--lr", "1e-3", "--device", args.device]
        command += ["--experiments", args.experiments, "--tag", tag, "--overwrite"]
        subprocess.run(command, check=True)
    return path


def main(args: argparse.Namespace) -> None:
    """Measure and print the table."""
    root = Path(args.root)
    if not root.is_dir():
        generate(root, 240, 40, 112, 0, progress=True)
    collection = open_split(DataSettings("custom", "train", args.root))
    photographs = quality.named(collection)
    scn = superpixel_network(args, photographs)
    paths = ["--root", args.root, "--scn", str(scn)]
    common = [*COMMON, "--epochs", str(args.epochs)]
    experiment = quality.Experiment(
        [configuration for configuration in CONFIGURATIONS if configuration.name in args.only],
        common,
        paths,
        collection,
        scn,
        scales=(1.0,),
        about={"photographs": photographs},
    )
    quality.run(args, experiment, [configuration.name for configuration in CONFIGURATIONS])


if __name__ == "__main__":
    parser = quality.new_parser(__doc__, "benchmarks/results/ablation.json", CONFIGURATIONS)
    parser.add_argument("--root", default="data/demo", metavar="DIR", help="the generated data set")
    parser.add_argument("--epochs", type=options.count, default=15, help="of every training")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
