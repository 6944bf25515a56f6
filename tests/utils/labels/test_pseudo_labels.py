import numpy as np
import pytest
import torch

from datasets.images import encode_jpeg, read_label_map
from utils.inference.collection_cams import Inferred
from utils.labels.crf import CrfConstants
from utils.labels.pseudo_labels import OutputSettings, PseudoLabelWriter
from utils.pictures.drawing import overlay
from utils.scores.confusion import confusion_matrix


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
    with PseudoLabelWriter(tmp_path, settings, 2) as writer:
        writer.take(found)
    plain = read_label_map(tmp_path / "pseudo_labels/0.5/a.png")
    shown = plain
    if refined:
        shown = read_label_map(tmp_path / "pseudo_labels_crf/0.5/a.png")
        assert (shown != plain).sum() >= 100
    drawn = encode_jpeg(overlay(image, shown))
    assert (tmp_path / "overlays/a.jpg").read_bytes() == drawn


def inferred(classes=(2, 14), identifier="a"):
    rng = np.random.default_rng(0)
    return Inferred(
        id=identifier,
        image=torch.from_numpy(rng.integers(0, 256, (3, 37, 50), dtype=np.uint8)),
        classes=np.array(classes, np.int64),
        cams=rng.random((len(classes), 37, 50), np.float32),
        scores=np.zeros(20, np.float32),
        mask=rng.integers(0, 21, (37, 50), dtype=np.uint8),
    )


def test_ids_with_dots_keep_their_names(tmp_path):
    writer = PseudoLabelWriter(
        tmp_path, OutputSettings((0.5,), save_cams=("npz", "irn", "psa")), 21
    )
    assert not writer.complete("photo.v1")
    with writer:
        writer.take(inferred(identifier="photo.v1"))
    assert writer.complete("photo.v1")
    written = {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("photo.v1*") if path.is_file()
    }
    assert written == {
        "cams/photo.v1.npz",
        "cams_irn/photo.v1.npy",
        "cams_psa/photo.v1.npy",
        "pseudo_labels/0.5/photo.v1.png",
    }


def test_a_photograph_without_any_class_is_background(tmp_path):
    with PseudoLabelWriter(tmp_path, OutputSettings((0.1, 0.4), save_cams=("irn",)), 21) as writer:
        writer.take(inferred(classes=()))
    for threshold in ("0.1", "0.4"):
        labels = read_label_map(tmp_path / f"pseudo_labels/{threshold}/a.png")
        assert labels.shape == (37, 50) and not labels.any()
    assert np.load(tmp_path / "cams_irn/a.npy", allow_pickle=True).item()["cam"].shape[0] == 0


def test_refined_labels_are_written_and_counted(tmp_path):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    found = inferred()
    settings = OutputSettings((0.2, 0.3), crf=CrfConstants(), crf_workers=1)
    with PseudoLabelWriter(tmp_path, settings, 21) as writer:
        assert not writer.complete("a")
        writer.take(found)
    assert writer.complete("a")
    counts = writer.journal.totals()["refined"]
    for i, threshold in enumerate(("0.2", "0.3")):
        written = read_label_map(tmp_path / f"pseudo_labels_crf/{threshold}/a.png")
        assert (confusion_matrix(found.mask, written, 21) == counts[i]).all()
        assert counts[i].sum() == found.mask.size
