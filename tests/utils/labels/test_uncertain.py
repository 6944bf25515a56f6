"""--uncertain: 255 in the written labels where the strongest cam lies between two bounds."""

import numpy as np
import pytest
import torch

from datasets.files import InputError
from datasets.images import read_label_map
from utils.inference.collection_cams import Inferred
from utils.inference.label_maps import label_maps, uncertain_pixels
from utils.labels.cam_evaluation_options import uncertain_bounds
from utils.labels.crf import CrfConstants
from utils.labels.pseudo_labels import OutputSettings, PseudoLabelWriter
from utils.pictures.report import image_iou
from utils.scores.confusion import confusion_matrix

THRESHOLDS = (0.1, 0.3)


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 20, 30), np.uint8))
    cams = rng.random((2, 20, 30), np.float32) ** 3
    mask = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    return Inferred("a", image, np.array([0, 2]), cams, np.zeros(3), mask)


def label(folder, found, **outputs):
    writer = PseudoLabelWriter(folder, OutputSettings(THRESHOLDS, **outputs), 4)
    with writer:
        writer.take(found)
    totals = writer.journal.totals()
    writer.sweep.counts = totals["counts"]
    return writer.sweep.result(), totals.get("refined")


def test_written_labels_hold_255_and_scores_do_not(tmp_path, found):
    plain, _ = label(tmp_path / "plain", found)
    scores, _ = label(tmp_path / "uncertain", found, uncertain=(0.05, 0.4))
    assert (scores == plain).all()
    strongest = found.cams.max(0)
    expected = (strongest > 0.05) & (strongest <= 0.4)
    assert 0.1 < expected.mean() < 0.9
    for i, threshold in enumerate(("0.1", "0.3")):
        written = read_label_map(tmp_path / f"uncertain/pseudo_labels/{threshold}/a.png")
        labels = label_maps(found.classes, found.cams, THRESHOLDS)[i]
        assert (written == np.where(expected, 255, labels)).all()
        assert (confusion_matrix(found.mask, labels, 4) == scores[i]).all()


def test_refined_labels_keep_the_same_pixels(tmp_path, found):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    crf = {"crf": CrfConstants(), "crf_workers": 1}
    _, plain = label(tmp_path / "plain", found, **crf)
    _, scores = label(tmp_path / "uncertain", found, **crf, uncertain=(0.05, 0.4))
    assert (scores == plain).all() and plain.any()
    expected = uncertain_pixels(found.cams, (0.05, 0.4))
    for threshold in ("0.1", "0.3"):
        place = f"pseudo_labels_crf/{threshold}/a.png"
        refined, written = (read_label_map(tmp_path / f / place) for f in ("plain", "uncertain"))
        assert (written == np.where(expected, 255, refined)).all()


def test_bounds():
    assert uncertain_pixels(np.zeros((1, 2, 2)), None) is None
    assert not uncertain_pixels(np.zeros((0, 2, 3), np.float32), (0.1, 0.2)).any()
    cams = np.array([[[0.1, 0.2, 0.3]]], np.float32)
    assert uncertain_pixels(cams, (0.1, 0.3)).tolist() == [[False, True, True]]
    assert uncertain_bounds(None) is None and uncertain_bounds([0.1, 0.3]) == (0.1, 0.3)
    with pytest.raises(InputError, match="--uncertain 0.3 0.3: give the lower bound first"):
        uncertain_bounds([0.3, 0.3])


def test_the_report_leaves_them_out():
    truth, labels = np.array([[0, 1, 1, 1]], np.uint8), np.array([[0, 1, 0, 255]], np.uint8)
    assert image_iou(truth, labels, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)
