"""Superpixels of photographs, without any other stage.

    python -m utils.pictures.superpixels --images DIR --out DIR

For every photograph OUT/<id>.png holds the ids (16 bits, from 0), and OUT/<id>_boundaries.png the
photograph with their boundaries. A superpixel's side is about 16 pixels: scale photographs down for
larger ones.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from datasets.command_line import new_parser
from datasets.files import InputError, write_bytes
from datasets.folder import folder_collection
from datasets.images import encode_png, read_photograph
from utils.checkpoints import SHIPPED, open_scn
from utils.inference.superpixels import superpixels
from utils.pictures.drawing import with_boundaries
from utils.runs import devices, options
from utils.runs.progress import progress
from utils.runs.start import start

MOST = 2**16
"""Superpixels that 16 bits tell apart."""


def draw(args: argparse.Namespace) -> None:
    """Write ids and boundaries of all photographs."""
    scn = open_scn(options.existing_file(args.scn, "--scn", "train one with train_scn.py"))
    scn = scn.to(devices.choose(args.device))
    photographs = folder_collection(args.images)
    counts = []
    for identifier, path in progress(photographs.images.items(), "superpixels", "image"):
        image = read_photograph(path)
        ids = superpixels(torch.from_numpy(image).permute(2, 0, 1), scn)
        if ids.max() >= MOST:
            raise InputError(f"{path}: more than {MOST} superpixels; scale it down")
        pictures = {"": ids.astype(np.uint16), "_boundaries": with_boundaries(image, ids)}
        for name, picture in pictures.items():
            write_bytes(Path(args.out) / f"{identifier}{name}.png", encode_png(picture))
        counts.append(len(np.unique(ids)))
    print(f"{np.mean(counts):.0f} superpixels a photograph, of {len(counts)}, are in {args.out}")


if __name__ == "__main__":
    parser = new_parser(__doc__, prog="python -m utils.pictures.superpixels")
    parser.add_argument("--images", required=True, metavar="DIR|FILE", help="photographs, or one")
    parser.add_argument("--out", required=True, metavar="DIR", help="is written to")
    parser.add_argument("--scn", default=str(SHIPPED), metavar="FILE", help="superpixel network")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(draw, parser)
