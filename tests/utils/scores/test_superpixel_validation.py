from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.collection import Collection, evenly_spread, with_masks
from networks.superpixel import SuperpixelNet
from tests.middle_cell import MiddleCell
from utils.inference.superpixels import reconstruction
from utils.scores.superpixel_validation import filled, validate_superpixels


def test_unlabelled_pixels_take_the_nearest_class():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (9, 11)).astype(np.uint8)
    mask[2:6, 3:8] = 255
    full = filled(mask)
    rows, columns = np.nonzero(mask != 255)
    for y, x in np.ndindex(mask.shape):
        squares = (rows - y) ** 2 + (columns - x) ** 2
        near = np.flatnonzero(squares == squares.min())
        assert full[y, x] in {mask[rows[i], columns[i]] for i in near}
    assert (full[mask != 255] == mask[mask != 255]).all()
    nothing = np.full((4, 4), 255, np.uint8)
    assert (filled(nothing) == nothing).all()


@pytest.fixture
def halves(tmp_path):
    """Photographs whose left and right halves differ, masks of the halves; the last has none."""
    paths = {}
    for i in range(5):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, 32:] = 200
        paths[f"p{i}"] = tmp_path / f"p{i}.png"
        Image.fromarray(image).save(paths[f"p{i}"])
        if i < 4:
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray((image[..., 0] > 0).astype(np.uint8)).save(tmp_path / f"masks/p{i}.png")
    ids = tuple(paths)
    return Collection("custom", "train", ("a",), ids, paths, {}, masks=tmp_path / "masks")


def test_superpixels_of_a_grid(halves):
    """A network that always says "the cell in the middle" has a border between the halves."""

    chosen = halves.subset(evenly_spread(with_masks(halves), 3))
    assert chosen.ids == ("p0", "p2", "p3")
    left_out = []
    found = validate_superpixels(chosen, MiddleCell(), left_out.append)
    assert found == {
        "asa": 1.0, "boundary_recall": 1.0, "undersegmentation_error": 0.0, "superpixels": 12.0,
    }  # fmt: skip
    Path(halves.images["p0"]).write_bytes(b"")
    again = validate_superpixels(chosen, MiddleCell(), left_out.append)
    assert again["asa"] == 1.0 and len(left_out) == 1 and "p0.png" in left_out[0]
    nothing = validate_superpixels(chosen.subset([]), MiddleCell(), left_out.append)
    assert nothing == {}
    image = torch.zeros(3, 32, 48, dtype=torch.uint8)
    image[:, :, 20:] = 90
    means = reconstruction(image, MiddleCell())
    assert means.shape == (32, 48, 3)
    assert (means[:, :16] == 0).all() and (means[:, 32:] == 90).all()
    assert (means[:, 16:32] == round(90 * 12 / 16)).all()


def test_a_drawn_network_is_scored_too(halves):
    network = SuperpixelNet().eval()
    found = validate_superpixels(halves.subset(["p0"]), network, print)
    assert 0.4 < found["asa"] <= 1 and found["superpixels"] >= 1
