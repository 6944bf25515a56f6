"""How good a segmentation network is on photographs with masks."""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from torch import nn

from datasets.collection import Collection
from utils.inference.segmentation import (
    SegmentationInferenceSettings,
    Segmented,
    segment_collection,
    side_limit,
)
from utils.runs import distributed
from utils.runs.reader import Reader
from utils.scores.confusion import class_scores, confusion_matrix


@dataclass(frozen=True)
class SegmentationValidation:
    """How good a segmentation network is.

    Attributes:
        miou: 0..1.
        shown: photographs that were to be shown; in the first process only.
    """

    miou: float
    shown: list[Segmented]


def validate_segmentation(
    collection: Collection,
    network: nn.Module,
    reader: Reader,
    show: Container[str] = (),
) -> SegmentationValidation:
    """Score a network on a collection with masks, shared by all processes.

    Args:
        collection: photographs with masks.
        network: on the device; it is put into evaluation mode.
        reader: of the photographs.
        show: ids of the photographs that are handed out too.
    """
    mine = collection.subset(distributed.share(collection.ids))
    confusion = np.zeros((collection.num_classes,) * 2, np.int64)
    shown: list[Segmented] = []
    network.eval()
    settings = SegmentationInferenceSettings(max_side=side_limit(None, network))
    for found in segment_collection(mine, network, settings, reader):
        confusion += confusion_matrix(found.mask, found.labels, collection.num_classes)
        if found.id in show:
            shown.append(found)
    miou = class_scores(distributed.all_reduce_counts(confusion)).miou
    return SegmentationValidation(
        miou, [found for part in distributed.gather(shown) for found in part]
    )
