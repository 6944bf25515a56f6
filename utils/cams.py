"""Public names of cam inference; they live in utils.inference."""

from utils.inference.cams import infer
from utils.inference.label_maps import label_map

__all__ = ["infer", "label_map"]
