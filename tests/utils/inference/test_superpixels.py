import numpy as np
import pytest
import torch

from networks.superpixel import SuperpixelNet
from utils.inference.superpixels import reconstruction, superpixels


class Elsewhere(torch.nn.Module):
    """A network on another device than the photograph: the "meta" device stands in for a GPU.

    It says "the cell in the middle" everywhere, and that on the CPU, where it can be looked at.
    """

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, images):
        assert images.device.type == "meta"
        q = torch.zeros(len(images), 9, *images.shape[2:])
        q[:, 4] = 1
        return q


def test_photographs_are_taken_to_the_network():
    image = torch.zeros(3, 40, 50, dtype=torch.uint8)
    found = superpixels(image, Elsewhere())
    assert found.shape == (40, 50) and found.dtype == np.int32
    assert len(np.unique(found)) == 3 * 4  # cells of 48 x 64 pixels, stretched
    with pytest.raises(RuntimeError, match="meta"):  # its mean colours are on no real device
        reconstruction(image[:, :32, :48], Elsewhere())


def test_sides_need_not_be_multiples_of_16():
    torch.manual_seed(0)
    network = SuperpixelNet().eval()
    image = torch.randint(0, 256, (3, 37, 53), dtype=torch.uint8)
    found = superpixels(image, network)
    assert found.shape == (37, 53) and found.min() >= 0 and found.max() < 3 * 4
    whole = reconstruction(image[:, :32, :48], network)
    assert whole.shape == (32, 48, 3) and whole.dtype == np.uint8
