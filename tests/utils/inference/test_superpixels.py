import numpy as np
import pytest
import torch

from networks.superpixel import SuperpixelNet
from tests.middle_cell import MiddleCell
from utils.inference.superpixels import reconstruction, superpixels


def test_photographs_are_taken_to_the_network():
    """The "meta" device stands in for a GPU."""
    image, network = torch.zeros(3, 40, 50, dtype=torch.uint8), MiddleCell("meta")
    found = superpixels(image, network)
    assert found.shape == (40, 50) and found.dtype == np.int32
    assert len(np.unique(found)) == 3 * 4  # cells of 48 x 64 pixels, stretched
    with pytest.raises(RuntimeError, match="meta"):  # its mean colours are on no real device
        reconstruction(image[:, :32, :48], network)


def test_sides_need_not_be_multiples_of_16():
    torch.manual_seed(0)
    network = SuperpixelNet().eval()
    image = torch.randint(0, 256, (3, 37, 53), dtype=torch.uint8)
    found = superpixels(image, network)
    assert found.shape == (37, 53) and found.min() >= 0 and found.max() < 3 * 4
    whole = reconstruction(image[:, :32, :48], network)
    assert whole.shape == (32, 48, 3) and whole.dtype == np.uint8


def test_a_network_without_weights(monkeypatch):
    """A buffer says where it is; without one, the image does."""
    image, network = torch.zeros(3, 32, 48, dtype=torch.uint8), MiddleCell("meta")
    weight = network._parameters.pop("weight")
    network.register_buffer("weight", weight.data)
    assert len(np.unique(superpixels(image, network))) == 2 * 3
    del network.weight
    monkeypatch.setattr(MiddleCell, "weight", image, raising=False)
    assert len(np.unique(superpixels(image, network))) == 2 * 3
