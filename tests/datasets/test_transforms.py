import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.transforms import (
    PADDING_COLOUR,
    augment,
    random_crop,
    random_long_side,
    resize_photograph,
)


def gradient(height, width):
    """A picture in which every pixel tells where it lies."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, (y * 7 + x * 3) % 256], -1).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 6), st.integers(0, 2**31))
def test_a_crop_is_a_window_or_the_whole_padded(height, width, cells, seed):
    image, crop = gradient(height, width), 16 * cells
    rng = np.random.default_rng(seed)
    layers = [(image, PADDING_COLOUR), (image[..., 0], 0)]
    (square, grey), (top, left, bottom, right) = random_crop(layers, crop, rng)
    assert square.shape == (crop, crop, 3) and grey.shape == (crop, crop)
    assert bottom - top == min(height, crop) and right - left == min(width, crop)
    inner = square[top:bottom, left:right]
    y, x = inner[0, 0, :2]
    assert (inner == image[y : y + bottom - top, x : x + right - left]).all()
    assert (grey[top:bottom, left:right] == inner[..., 0]).all()
    outside = np.ones((crop, crop), bool)
    outside[top:bottom, left:right] = False
    assert (square[outside] == PADDING_COLOUR).all() and not grey[outside].any()


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 2**31))
def test_the_longer_side_is_in_range(height, width, seed):
    size = random_long_side((height, width), (320, 640), np.random.default_rng(seed))
    assert 320 <= max(size) <= 640 and min(size) >= 1
    exact = max(size) * min(height, width) / max(height, width)
    assert abs(min(size) - max(1, exact)) <= 1  # the aspect is kept


def test_saliency_stays_on_the_photograph():
    """Both layers go through the same resize, mirror and crop."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 10:30] = 255
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cut, saliency, box = augment(image, image[..., 0], 64, (64, 128), rng)
        top, left, bottom, right = box
        inside = (slice(top, bottom), slice(left, right))
        assert (cut[inside][..., 0] == saliency[inside]).all()


def test_mirrors_about_half_of_the_photographs():
    image = gradient(32, 32)
    rng = np.random.default_rng(0)
    mirrored = [augment(image, None, 32, (32, 32), rng)[0][0, 0, 1] > 16 for _ in range(200)]
    assert 70 < sum(mirrored) < 130


def test_the_box_says_where_the_photograph_lies():
    """Mirrored or not: only colours of the photograph inside, only padding outside."""
    image = np.full((40, 60, 3), 255, np.uint8)
    boxes = set()
    for seed in range(30):
        cut, _, (top, left, bottom, right) = augment(
            image, None, 64, (48, 48), np.random.default_rng(seed)
        )
        inside = np.zeros((64, 64), bool)
        inside[top:bottom, left:right] = True
        assert (bottom - top, right - left) == (32, 48)
        assert (cut[inside] == 255).all() and (cut[~inside] == PADDING_COLOUR).all()
        boxes.add((top, left))
    assert len(boxes) > 20  # anywhere in the crop


def test_areas_are_averaged_only_when_shrinking_a_lot():
    """Of a chequerboard, averages over areas are all grey; what is taken bilinearly is not."""
    board = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    assert (abs(resize_photograph(board, 16, 16).astype(int) - 127.5) < 1).all()
    assert (abs(resize_photograph(board, 43, 43).astype(int) - 127.5) > 60).any()
