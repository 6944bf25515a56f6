import numpy as np
import pytest
import torch

from datasets.images import encode_jpeg, read_label_map
from utils.inference.collection_cams import Inferred
from utils.labels.crf import CrfConstants
from utils.labels.labelling import Labeller, OutputSettings
from utils.pictures.drawing import overlay


@pytest.mark.parametrize("refined", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_overlays_show_the_labels_that_count(tmp_path, refined):
    """A red field on blue, and a cam that reaches over its border: the CRF pulls it back."""
    if refined:
        pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    constants = CrfConstants() if refined else None
    settings = OutputSettings((0.5,), overlays=True, crf=constants, crf_workers=1)
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20, 0], image[:, 20:, 2] = 255, 255
    cams = np.zeros((1, 40, 40), np.float32)
    cams[:, :, :23] = 1
    found = Inferred(
        "a", torch.from_numpy(image).permute(2, 0, 1), np.array([0]), cams, np.zeros(1), None
    )
    with Labeller(tmp_path, settings, 2) as labeller:
        labeller.take(found)
    plain = read_label_map(tmp_path / "pseudo_labels/0.5/a.png")
    shown = plain
    if refined:
        shown = read_label_map(tmp_path / "pseudo_labels_crf/0.5/a.png")
        assert (shown != plain).sum() >= 100
    drawn = encode_jpeg(overlay(image, shown))
    assert (tmp_path / "overlays/a.jpg").read_bytes() == drawn
