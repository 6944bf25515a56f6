"""Superpixels of photographs, without any other stage.

    python -m utils.pictures.superpixels --images DIR --out DIR

For every photograph OUT/ids/<id>.png holds the ids (16 bits, from 0), and OUT/boundaries/<id>.png
the photograph with their boundaries. A superpixel's side is about 16 pixels: scale photographs down
for larger ones.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from datasets.command_line import new_parser, print_notes
from datasets.files import InputError, write_bytes
from datasets.folder import folder_collection
from datasets.images import encode_png, read_photograph
from utils.checkpoints import SHIPPED, open_scn
from utils.inference.superpixels import superpixels
from utils.pictures.drawing import with_boundaries
from utils.runs import devices, options
from utils.runs.progress import progress
from utils.runs.start import start
from utils.runs.wording import counted

MOST = 2**16
"""Superpixels that 16 bits tell apart."""


def draw(args: argparse.Namespace) -> None:
    """Write ids and boundaries of all photographs; those that cannot be read are listed."""
    scn = open_scn(options.existing_file(args.scn, "--scn", "train one with train_scn.py"))
    scn = scn.to(devices.choose(args.device))
    photographs = folder_collection(args.images)
    print_notes(photographs.notes)
    folders = {name: Path(args.out) / name for name in ("ids", "boundaries")}
    read_from = {path.resolve().parent for path in photographs.images.values()}
    for folder in folders.values():
        if folder.resolve() in read_from:
            raise InputError(f"--out {args.out}: {folder} holds the photographs; name another")
    counts, skipped = [], []
    for identifier, path in progress(photographs.images.items(), "superpixels", "image"):
        try:
            image = read_photograph(path)
        except InputError as error:
            skipped.append(str(error))
            continue
        ids = superpixels(torch.from_numpy(image).permute(2, 0, 1), scn)
        if ids.max() >= MOST:
            skipped.append(f"{path}: more than {MOST} superpixels; scale it down")
            continue
        pictures = {"ids": ids.astype(np.uint16), "boundaries": with_boundaries(image, ids)}
        for name, picture in pictures.items():
            write_bytes(folders[name] / f"{identifier}.png", encode_png(picture))
        counts.append(len(np.unique(ids)))
    for message in skipped:
        print(f"skipped: {message}")
    if not counts:
        raise InputError(f"{args.images}: no photograph could be read: nothing is written")
    several = counted(len(counts), "photograph")
    print(f"{several}, {np.mean(counts):.0f} superpixels each on average; written to {args.out}")


if __name__ == "__main__":
    parser = new_parser(__doc__, prog="python -m utils.pictures.superpixels")
    parser.add_argument("--images", required=True, metavar="DIR|FILE", help="photographs, or one")
    parser.add_argument("--out", required=True, metavar="DIR", help="is written to")
    parser.add_argument("--scn", default=str(SHIPPED), metavar="FILE", help="superpixel network")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(draw, parser)
