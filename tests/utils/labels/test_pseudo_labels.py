import numpy as np
import pytest
import torch
from PIL import Image

from utils.inference.collection_cams import Inferred
from utils.inference.label_maps import label_maps
from utils.labels import crf
from utils.labels.crf import CrfConstants, Refiner
from utils.labels.pseudo_labels import PseudoLabels, write_irn, write_npz, write_psa
from utils.runs.background import BackgroundWriter
from utils.scores.confusion import confusion_matrix


def inferred(size=(37, 50), classes=(2, 14), seed=0):
    rng = np.random.default_rng(seed)
    return Inferred(
        id="a",
        image=torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8)),
        classes=np.array(classes),
        cams=rng.random((len(classes), *size), np.float32),
        scores=np.zeros(20, np.float32),
        mask=rng.integers(0, 21, size, dtype=np.uint8),
    )


def test_what_irn_reads(tmp_path):
    """As IRN's later steps open it: np.load(..., allow_pickle=True).item()."""
    found = inferred()
    write_irn(tmp_path / "a.npy", found)
    content = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    assert set(content) == {"keys", "cam", "high_res"}
    assert content["keys"].dtype == np.int64 and content["keys"].tolist() == [2, 14]
    assert torch.is_tensor(content["cam"]) and content["cam"].dtype == torch.float32
    assert content["cam"].shape == (2, (37 - 1) // 4 + 1, (50 - 1) // 4 + 1)
    assert content["high_res"].dtype == np.float32
    assert (content["high_res"] == found.cams).all()
    # The two lines of IRN that use them:
    keys = np.pad(content["keys"] + 1, (1, 0), mode="constant")
    cams = np.pad(content["high_res"], ((1, 0), (0, 0), (0, 0)), constant_values=0.3)
    assert keys[np.argmax(cams, axis=0)].shape == (37, 50)


def test_what_affinitynet_reads(tmp_path):
    found = inferred()
    write_psa(tmp_path / "a.npy", found)
    content = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    assert list(content) == [2, 14] and all(type(key) is int for key in content)
    assert content[14].dtype == np.float32 and (content[14] == found.cams[1]).all()


def test_our_own_format_needs_no_pickle(tmp_path):
    found = inferred()
    write_npz(tmp_path / "a.npz", found)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as content:
        assert content["cams"].dtype == np.float16 and content["classes"].tolist() == [2, 14]


def test_ids_with_dots_keep_their_names(tmp_path):
    out = PseudoLabels(tmp_path, (0.5,), ("npz", "irn", "psa"))
    assert not out.complete("photo.v1")
    labels = np.zeros((1, 37, 50), np.uint8)
    out.write(Inferred(**{**vars(inferred()), "id": "photo.v1"}), labels)
    assert out.complete("photo.v1")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*") if p.is_file()) == [
        "cams/photo.v1.npz",
        "cams_irn/photo.v1.npy",
        "cams_psa/photo.v1.npy",
        "pseudo_labels/0.5/photo.v1.png",
    ]


def test_a_photograph_without_any_class_is_background(tmp_path):
    found = inferred(classes=())
    labels = label_maps(found.classes, found.cams, (0.1, 0.4))
    PseudoLabels(tmp_path, (0.1, 0.4), ("irn",)).write(found, labels)
    assert labels.shape == (2, 37, 50) and not labels.any()
    assert np.load(tmp_path / "cams_irn/a.npy", allow_pickle=True).item()["cam"].shape[0] == 0


def test_an_error_while_writing_surfaces():
    def fail():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), BackgroundWriter() as writer:
        writer.submit(fail)


def two_regions():
    """A picture of two colours whose label map has ragged borders and speckles."""
    image = np.full((40, 60, 3), (200, 60, 40), np.uint8)
    image[:, 30:] = (30, 60, 200)
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 15
    rng = np.random.default_rng(0)
    labels = truth.copy()
    labels[rng.random(labels.shape) < 0.1] = 15
    labels[:, 30:36] = 0
    return image, labels, truth


def test_the_crf_follows_the_photograph():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    image, labels, truth = two_regions()
    refined = crf.refine(image, labels, CrfConstants())
    assert refined.dtype == np.uint8 and set(np.unique(refined)) <= {0, 15}
    assert (refined == truth).mean() > 0.99 > (labels == truth).mean()
    one = np.full((40, 60), 7, np.uint8)
    assert (crf.refine(image, one, CrfConstants()) == one).all()


def test_the_refiner_writes_and_counts_in_processes(tmp_path):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    image, labels, truth = two_regions()
    found = Inferred(
        id="b",
        image=torch.from_numpy(image.transpose(2, 0, 1).copy()),
        classes=np.array([14]),
        cams=np.zeros((1, 40, 60), np.float32),
        scores=np.zeros(20, np.float32),
        mask=truth,
    )
    with Refiner(tmp_path, (0.2, 0.3), 21, CrfConstants(), workers=1) as refiner:
        assert not refiner.complete("b")
        counts = refiner.taken(refiner.submit(found, np.stack([labels, truth])))
        assert refiner.complete("b")
    for i, threshold in enumerate(("0.2", "0.3")):
        written = np.asarray(Image.open(tmp_path / threshold / "b.png"))
        assert (confusion_matrix(truth, written, 21) == counts[i]).all()
        assert counts[i].sum() == truth.size


def test_the_missing_package_is_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pydensecrf"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(crf.InputError, match="pip install pydensecrf2"):
        crf.require_crf()
