"""How small is the IPC loss of perfect masks, and of cams that only follow brightness?

    python -m benchmarks.ipc_of_masks --voc_root DIR

The loss that trainings of benchmarks.photographs log, on crops as they take them, of cams that need
no network: the same everywhere, the photographs' masks, and one that marks what is brighter than
ImageNet's mean colour. A training whose IPC loss is below that of the masks fits colours, not
objects.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Spread, table
from benchmarks.photographs import BATCH, HALVES, everything, half_taken
from datasets import command_line
from datasets.collection import Collection
from datasets.images import read_photograph
from datasets.loading import read_ground_truth
from datasets.transforms import augment
from networks.association import pool
from networks.crops import inside
from networks.ipc import ipc_loss
from networks.normalisation import normalise
from networks.superpixel import CELL, SuperpixelNet
from utils import checkpoints
from utils.runs import options
from utils.runs.data import DataSettings
from utils.runs.start import start

PATCH, THRESHOLD = 10, 0.1
"""The paper's: side of a patch in superpixels, and from what a patch counts."""

CLASSES = 20
"""VOC's."""


def crop_of(
    photographs: Collection, identifier: str, side: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A training crop: image (3, S, S) uint8, masks of the classes (K, S, S) 0..1, its box (4,)."""
    image = read_photograph(photographs.images[identifier])
    truth = read_ground_truth(photographs, identifier, image.shape[:2])
    masks = torch.zeros(CLASSES, side, side)
    lengths = (side, side * 25 // 16)
    for k in [0, *np.unique(truth[(truth > 0) & (truth < 255)])]:
        layer = np.uint8(255) * (truth == k)
        # The same random numbers, so the same crop, for every class.
        crop, mask, box = augment(image, layer, side, lengths, np.random.default_rng(seed))
        if k:
            masks[k - 1] = torch.from_numpy(mask) / 255
    return torch.from_numpy(crop).permute(2, 0, 1), masks, torch.tensor(box)


def batches(
    photographs: Collection, scn: SuperpixelNet, side: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What is reconstructed (B, 3, h, w), and the masks (B, K, h, w), batch by batch."""
    order = np.random.default_rng(seed).permutation(photographs.ids)
    for first in range(0, len(order) - BATCH + 1, BATCH):
        crops = [
            crop_of(photographs, str(identifier), side, seed * len(order) + first + i)
            for i, identifier in enumerate(order[first : first + BATCH])
        ]
        images, masks, boxes = (torch.stack(part) for part in zip(*crops, strict=True))
        images = normalise(images) * inside(boxes, side, side)
        q = scn(images)
        goal = pool(images, q) * inside(boxes, side, side, step=CELL)
        yield goal, pool(masks, q)


def brighter(goal: Tensor, _: Tensor) -> Tensor:
    """One class: where the normalised image (B, 3, h, w) is above 0 in the mean of its channels."""
    return (goal.mean(1, keepdim=True) > 0).float()


CAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one class, the same everywhere": lambda goal, _: torch.full_like(goal[:, :1], 0.5),
    "the masks": lambda goal, masks: masks,
    "one class, what is brighter than the mean colour": brighter,
}
"""Cams from what is reconstructed and the masks."""


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    """Print the table."""
    photographs = half_taken(everything(DataSettings("voc12", "train", args.voc_root)), args.half)
    scn = SuperpixelNet().eval()
    checkpoints.load_scn(scn, args.scn)
    patches = max(1, round(args.crop / CELL / PATCH)) ** 2
    found: dict[str, list[float]] = {name: [] for name in CAMS}
    for seed in range(args.passes):
        losses = {name: [] for name in CAMS}
        for goal, masks in batches(photographs, scn, args.crop, seed):
            for name, cams in CAMS.items():
                losses[name].append(float(ipc_loss(cams(goal, masks), goal, patches, THRESHOLD)))
        for name, values in losses.items():
            found[name].append(float(np.mean(values)))
    rows = []
    for name, values in found.items():
        spread = Spread.of(values)
        rows.append([name, *(f"{v:.3f}" for v in (spread.median, spread.low, spread.high))])
    title = f"IPC loss, {len(photographs.ids)} photographs, crops of {args.crop}, {patches} patches"
    print(table(title, ["cams", "median of passes", "least", "greatest"], rows))


if __name__ == "__main__":
    parser = command_line.new_parser(__doc__)
    parser.add_argument("--voc_root", required=True, metavar="DIR", help="VOC layout, with masks")
    parser.add_argument("--half", choices=(*HALVES, "all"), default="report", help="photographs")
    parser.add_argument("--crop", type=options.count, default=256, help="side of crops, pixels")
    parser.add_argument("--passes", type=options.count, default=3, help="over the photographs")
    parser.add_argument("--scn", default=checkpoints.SHIPPED, metavar="FILE", help="superpixels")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
