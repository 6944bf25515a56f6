"""Reading and writing weights, ours and published ones, and the state of a training."""

from utils.checkpoints.deeplab import (
    TrainedSegmentation,
    load_trunk,
    open_deeplab,
    open_segmentation,
    trunk_kind,
)
from utils.checkpoints.files import read, save
from utils.checkpoints.trained import SHIPPED, Trained, open_scn, open_trained
from utils.checkpoints.weights import built, fetched, load_backbone, load_classifier, load_scn

__all__ = [
    "SHIPPED",
    "Trained",
    "TrainedSegmentation",
    "built",
    "fetched",
    "load_backbone",
    "load_classifier",
    "load_scn",
    "load_trunk",
    "open_deeplab",
    "open_scn",
    "open_segmentation",
    "open_trained",
    "read",
    "save",
    "trunk_kind",
]
