"""Reading and writing weights, ours and published ones, and the state of a training."""

from utils.checkpoints.files import read, save
from utils.checkpoints.trained import SHIPPED, Trained, open_trained
from utils.checkpoints.weights import fill, load_backbone, load_classifier, load_scn

__all__ = [
    "SHIPPED",
    "Trained",
    "fill",
    "load_backbone",
    "load_classifier",
    "load_scn",
    "open_trained",
    "read",
    "save",
]
