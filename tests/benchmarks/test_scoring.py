"""What benchmarks add to cams before they count them."""

import numpy as np

from benchmarks.scoring import cut_by
from utils.inference.label_maps import label_maps


def test_background_is_where_the_saliency_map_says_so():
    rng = np.random.default_rng(0)
    cams = rng.random((3, 5, 7), np.float32)
    saliency = rng.integers(0, 256, (5, 7), np.uint8)
    (found,) = label_maps(np.array([4, 0, 9]), cut_by(saliency, cams), [0.3])
    for y, x in np.ndindex(5, 7):
        strongest = (4, 0, 9)[int(np.argmax(cams[:, y, x]))] + 1
        assert found[y, x] == (strongest if saliency[y, x] / 255 > 0.3 else 0)


def test_no_class_stays_no_class():
    assert cut_by(np.zeros((2, 3), np.uint8), np.zeros((0, 2, 3), np.float32)).shape == (0, 2, 3)
