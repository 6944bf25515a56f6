"""A segmentation network as an ONNX file, for runtimes other than PyTorch.

Input `image`: (1, 3, H, W) float32 of any height and width, ImageNet-normalised: `(x / 255 - mean)
/ std` of RGB with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225. Output `logits`: (1, C, H,
W) float32, as large as the image; their argmax over C is the label map, background 0. The file's
metadata holds the names of the classes under `classes`, as a JSON list, background first.

    python -m utils.checkpoints.export_onnx --checkpoint experiments/seg/last.pt --out seg.onnx
"""

import argparse
import importlib.util
import json
import os
import warnings

import torch
from torch import Tensor, nn

from datasets.command_line import new_parser
from datasets.files import InputError, write_bytes
from networks.deeplab import DeepLab, bilinear
from utils.checkpoints.deeplab import open_segmentation
from utils.runs import options
from utils.runs.start import start

PACKAGES = ("onnx", "onnxscript")
"""What exporting needs besides PyTorch."""

SMALLEST = 16
"""The least height and width, pixels, that the file takes."""


class FullSize(nn.Module):
    """A segmentation network whose logits are as large as the image."""

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, C, H, W)."""
        return bilinear(self.network(image), image.shape[2:])


def export(
    network: DeepLab, path: str | os.PathLike, classes: tuple[str, ...] | None = None
) -> None:
    """Write a network in evaluation mode as an ONNX file, whole or not at all.

    Args:
        network: on the CPU.
        path: of the file.
        classes: foreground class names, for the file's metadata.

    Raises:
        InputError: a package is missing, or the file cannot be written.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise InputError(f"ONNX files need the optional packages {names}; pip install {names}")
    height, width = (torch.export.Dim(name, min=SMALLEST) for name in ("H", "W"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts
        program = torch.onnx.export(
            FullSize(network).eval(),
            (torch.zeros(1, 3, 97, 131),),  # odd sides: none of the sizes follows from another
            dynamo=True,
            dynamic_shapes=({2: height, 3: width},),
            input_names=["image"],
            output_names=["logits"],
            verbose=False,
        )
    model = program.model_proto
    if classes is not None:
        names = json.dumps(["background", *classes], ensure_ascii=False)
        model.metadata_props.add(key="classes", value=names)
    write_bytes(path, model.SerializeToString())


def main(args: argparse.Namespace) -> None:
    """Export what the options name.

    Raises:
        InputError: the checkpoint holds no segmentation network, or see `export`.
    """
    path = options.existing_file(
        args.checkpoint, "--checkpoint", "train a segmentation network with train_seg.py"
    )
    trained = open_segmentation(path)
    about = f"exporting {path} ({trained.backbone}) to {args.out}"
    print(f"{about}; this takes a minute or two", flush=True)
    export(trained.network, args.out, trained.classes)
    print(f"{args.out}: image (1, 3, H, W) -> logits (1, {trained.network.num_classes}, H, W)")


if __name__ == "__main__":
    parser = new_parser(__doc__, prog="python -m utils.checkpoints.export_onnx")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of train_seg.py")
    parser.add_argument("--out", required=True, metavar="FILE.onnx", help="what is written")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
