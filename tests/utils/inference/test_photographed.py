import numpy as np
import pytest
import torch
from PIL import Image

from utils.inference.photographed import exceeds, shrink


@pytest.mark.parametrize("size", [(97, 41), (40, 100), (5, 300), (1, 200)])
def test_a_longer_side_is_brought_to_the_limit(size):
    """As PIL scales down, which averages over all pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    small = shrink(image, 32)
    height, width = (max(1, round(side * 32 / max(size))) for side in size)
    assert small.shape == (3, height, width) and max(small.shape) == 32
    expected = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(small.permute(1, 2, 0), np.asarray(expected, np.float32), atol=1.01)


def test_others_stay_as_they_are():
    image = torch.zeros(3, 20, 32, dtype=torch.uint8)
    assert shrink(image, 32) is image and shrink(image, None) is image
    assert exceeds(image, 31) and not exceeds(image, 32) and not exceeds(image, None)
