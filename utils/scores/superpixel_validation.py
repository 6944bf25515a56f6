"""How good the superpixels of a network under training are."""

from collections.abc import Callable

import numpy as np
import torch
from skimage.segmentation import expand_labels
from torch import nn

from datasets.collection import Collection
from datasets.files import InputError
from datasets.images import IGNORE, read_photograph
from datasets.loading import read_ground_truth
from networks.superpixel import CELL
from utils.inference.superpixels import superpixels
from utils.runs.progress import progress
from utils.scores.superpixels import asa, boundary_recall, connected, undersegmentation_error

SMALLEST = CELL * CELL // 4
"""Pixels; smaller pieces of superpixels join a neighbour before they are scored."""


def filled(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) whose unlabelled pixels take the class of the nearest labelled one.

    They are rims around objects, which have no superpixels of their own.
    """
    unlabelled = mask == IGNORE
    if unlabelled.all():
        return mask
    from_one = np.where(unlabelled, 0, mask.astype(np.int32) + 1)
    return (expand_labels(from_one, distance=sum(mask.shape)) - 1).astype(mask.dtype)


def validate_superpixels(
    collection: Collection,
    scn: nn.Module,
    left_out: Callable[[str], None],
) -> dict[str, float]:
    """Means over the photographs of a collection, all with masks; empty if there are none.

    Args:
        collection: photographs.
        scn: the superpixel network, in evaluation mode.
        left_out: told why a photograph is left out whose files cannot be read: masks have no part
            in the training, so they do not end it.

    Returns:
        `asa`, `boundary_recall`, `undersegmentation_error` in 0..1, and `superpixels`.
    """
    found = []
    for identifier in progress(collection.ids, "superpixels", "image"):
        try:
            image = read_photograph(collection.images[identifier])
            mask = read_ground_truth(collection, identifier, image.shape[:2])
        except InputError as error:
            left_out(str(error))
            continue
        ids = superpixels(torch.from_numpy(image).permute(2, 0, 1), scn)
        ids, truth = connected(ids, SMALLEST), filled(mask)
        scores = (asa(ids, truth), boundary_recall(ids, truth), undersegmentation_error(ids, truth))
        found.append((*scores, len(np.unique(ids))))
    names = ("asa", "boundary_recall", "undersegmentation_error", "superpixels")
    return dict(zip(names, np.mean(found, 0).tolist(), strict=True)) if found else {}
