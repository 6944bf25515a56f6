"""Is the whole method better than plain CAM on real photographs with ImageNet features?

    python -m benchmarks.photographs --voc_root DIR
    python -m benchmarks.photographs --voc_root DIR --crop 192 --epochs 6 --results short.json

EfficientNet-Lite0 (requirements-optional.txt) on a small data set in VOC layout; trained and
scored on its train and val photographs together, as pseudo labels are. Plain CAM with bilinear
upsampling, then with what the method adds, one part after the other. Where the saliency maps are
made from the masks, the saliency method's numbers exercise code and say nothing of quality.
By default a training has 348 steps and takes seven minutes on a CPU core; the second command has
half as many of smaller crops.
"""

import argparse
import hashlib
from dataclasses import replace

import torch
from torch import nn

from benchmarks import quality
from benchmarks.quality import NO_IPC, PLAIN, Configuration, Inference
from datasets.collection import Collection
from datasets.files import read_bytes
from networks.association import NEIGHBOURS
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils import checkpoints
from utils.runs import options
from utils.runs.data import DataSettings, open_split
from utils.runs.start import start
from utils.training.classifier_options import ClassifierSettings

INFERENCES = (Inference(), Inference(8, 0.6))


def gates_half_open(classifier: Classifier) -> None:
    """Let DCR's gates start as PyTorch's defaults have them: at about one half."""
    for gate in (classifier.dcr.gate4, classifier.dcr.gate5):
        gate.excite.reset_parameters()


def kernels_mean(classifier: Classifier) -> None:
    """Let DCR's kernels start as PyTorch's defaults have them: as about a 3x3 mean."""
    for predictor in (classifier.dcr.kernels4, classifier.dcr.kernels5):
        predictor.kernels[-1][0].reset_parameters()


def kernels_identity(classifier: Classifier) -> None:
    """Let DCR's kernels start so near to the identity that they hardly learn."""
    for predictor in (classifier.dcr.kernels4, classifier.dcr.kernels5):
        last = predictor.kernels[-1][0]
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias[NEIGHBOURS // 2] = 5


CONFIGURATIONS = (
    Configuration("plain CAM", "image", ("--no_dcr", *NO_IPC), (PLAIN, *INFERENCES)),
    Configuration("DCR", "image", NO_IPC, INFERENCES),
    Configuration("image method", "image", (), INFERENCES),
    Configuration("saliency method", "saliency", (), INFERENCES),
    Configuration("image method, kernels from identity", "image", (), INFERENCES, kernels_identity),
    Configuration("image method, kernels from a mean", "image", (), INFERENCES, kernels_mean),
    Configuration("image method, gates from one half", "image", (), INFERENCES, gates_half_open),
)


def everything(data: DataSettings) -> Collection:
    """The train and val photographs as one collection."""
    train, val = (open_split(replace(data, split=split)) for split in ("train", "val"))
    return replace(
        train,
        split="train and val",
        ids=train.ids + val.ids,
        images=train.images | val.images,
        labels=train.labels | val.labels,
    )


def networks(
    settings: ClassifierSettings, collection: Collection
) -> tuple[nn.Module, SuperpixelNet]:
    """EfficientNet-Lite0 as the classifier's backbone, and the superpixel network."""
    scn = SuperpixelNet()
    checkpoints.load_scn(scn, settings.networks.scn)
    backbone = build_backbone("efficientnet_lite0", "imagenet")
    return Classifier(backbone, collection.num_classes, dcr=not settings.networks.no_dcr), scn


def main(args: argparse.Namespace) -> None:
    """Measure and print the table."""
    scn = options.existing_file(args.scn, "--scn", "train one first")
    paths = ["--voc_root", args.voc_root, "--scn", str(scn)]
    common = ["--batch", "8", "--crop", str(args.crop)]
    common += ["--long_side", str(args.crop), str(args.crop * 25 // 16)]
    common += ["--epochs", str(args.epochs)]
    probe = quality.training_settings(CONFIGURATIONS[0], [*common, *paths])
    quality.run(
        args,
        CONFIGURATIONS,
        common,
        paths,
        everything(probe.data),
        networks,
        scales=(args.scale,),
        scn=hashlib.sha256(read_bytes(scn)).hexdigest()[:16],
    )


if __name__ == "__main__":
    parser = quality.parse(__doc__, "benchmarks/results/photographs.json")
    parser.add_argument("--voc_root", required=True, metavar="DIR", help="VOC layout, with masks")
    parser.add_argument("--scn", default=checkpoints.SHIPPED, metavar="FILE", help="superpixels")
    parser.add_argument("--crop", type=options.count, default=256, help="side of crops, pixels")
    parser.add_argument("--epochs", type=options.count, default=12, help="of every training")
    parser.add_argument("--scale", type=options.positive, default=0.5, help="of inference")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
