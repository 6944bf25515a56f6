import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.ipc_of_masks import crop_of
from datasets.collection import Collection


def test_masks_are_cropped_with_their_photograph(tmp_path):
    """Class 3 is white and class 7 grey: their masks are where these colours are in the crop."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:25, 10:40], mask[28:, 30:] = 3, 7
    colours = np.zeros(256, np.uint8)
    colours[[3, 7]] = 255, 100
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    Image.fromarray(np.repeat(colours[mask][..., None], 3, 2)).save(tmp_path / "a.png")
    images, labels = {"a": tmp_path / "a.png"}, {"a": np.zeros(20, np.uint8)}
    classes = tuple(map(str, range(20)))
    photographs = Collection("voc12", "train", classes, ("a",), images, labels, tmp_path / "masks")
    for seed in range(5):
        crop, masks, box = crop_of(photographs, "a", 32, seed)
        top, left, bottom, right = box.tolist()
        inside = np.s_[top:bottom, left:right]
        expected = (255 * masks[2] + 100 * masks[6])[inside]
        assert (crop[0][inside] - expected).abs().max() <= 2
        assert not masks[[0, 1, 3, 4, 5]].any() and masks.sum() == pytest.approx(
            float(masks[[2, 6]].sum())
        )
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[inside] = False
        assert not masks[:, outside].any()
