from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.collection import Collection
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.inference import collection_cams
from utils.inference.cams import InferenceSettings
from utils.inference.collection_cams import (
    infer_collection,
    kept_behind,
    of_one_size,
    read_ahead,
)
from utils.inference.superpixels import superpixels
from utils.runs.reader import Reader

SIZES = ((40, 60), (60, 40), (40, 60), (40, 60), (33, 47), (40, 60), (60, 40))


def small_collection(folder):
    """Photographs of several sizes; c cannot be read, b has no class."""
    rng = np.random.default_rng(0)
    images, labels = {}, {}
    for name, size in zip("abcdefg", SIZES, strict=True):
        images[name] = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(images[name])
        labels[name] = np.array([name != "b", 0, name == "d"], np.uint8)
    images["c"].write_bytes(b"")
    return Collection("custom", "train", ("x", "y", "z"), tuple(images), images, labels)


def inferred(collection, device, predict_from=None, scales=(0.5, 1.0), max_side=None):
    """What is inferred of a collection, and the messages about what cannot be read."""
    torch.manual_seed(0)
    networks = Classifier(build_backbone("resnet18"), 4).eval(), SuperpixelNet().eval()
    networks = (network.to(device) for network in networks)
    settings = InferenceSettings(scales, predict_from=predict_from, max_side=max_side)
    bad = []
    given = settings, Reader(torch.device(device), 0, bad.append), "cams"
    return list(infer_collection(collection, *networks, *given)), bad


def assert_alike(found, expected, bound):
    assert [one.id for one in found] == [one.id for one in expected] == list("abdefg")
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.image, other.image)
        assert one.classes.tolist() == other.classes.tolist()
        np.testing.assert_allclose(one.cams, other.cams, rtol=0, atol=bound)
        np.testing.assert_allclose(one.scores, other.scores, rtol=bound, atol=bound)


@pytest.mark.parametrize("predict_from", [None, 0.5])
def test_larger_photographs_are_inferred_as_smaller_ones_would_be(tmp_path, predict_from):
    """Those of 60 x 40 as PIL scales them to 48 x 32; those of 47 x 33 are small enough."""
    whole = small_collection(tmp_path).subset("abdefg")
    small = {}
    for name in whole.ids:
        image = Image.open(whole.images[name])
        factor = min(1, 48 / max(image.size))
        size = [round(side * factor) for side in image.size]
        small[name] = tmp_path / f"small_{name}.png"
        image.resize(size, Image.Resampling.BILINEAR).save(small[name])
    found, _ = inferred(whole, "cpu", predict_from, max_side=48)
    expected, _ = inferred(replace(whole, images=small), "cpu", predict_from)
    for one, other in zip(found, expected, strict=True):
        assert one.shrunk == (one.id != "e") and not other.shrunk
        assert one.classes.tolist() == other.classes.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=0.01)
        cams = torch.from_numpy(other.cams)[None]
        if len(one.classes):
            size = one.image.shape[1:]
            cams = torch.nn.functional.interpolate(cams, size=size, mode="bilinear")
            assert one.cams.shape[1:] == size
            np.testing.assert_allclose(one.cams, cams[0], atol=0.05)
            assert np.abs(one.cams - cams[0].numpy()).mean() < 0.005


@pytest.mark.parametrize("predict_from", [None, 0.5])
@pytest.mark.parametrize("together", [(2, 2**20), (4, 2 * 40 * 60), (32, 2**20)])
def test_photographs_of_one_size_are_taken_together(tmp_path, monkeypatch, together, predict_from):
    """As on a GPU: in their order, the same but for rounding."""
    collection = small_collection(tmp_path)
    expected, message = inferred(collection, "cpu", predict_from)
    monkeypatch.setattr(collection_cams, "taken_together", lambda _: together)
    found, bad = inferred(collection, "cpu", predict_from)
    assert bad == message and len(bad) == 1
    assert_alike(found, expected, 1e-5)


def test_what_is_begun_runs_ahead():
    begun = []
    for count, expected in ((0, [1, 2, 3]), (1, [2, 3, 3]), (5, [3, 3, 3])):
        begun.clear()
        source = (begun.append(one) or one for one in "abc")
        seen = [(one, len(begun)) for one in kept_behind(source, count)]
        assert seen == list(zip("abc", expected, strict=True))


def test_halves_where_memory_is_short(tmp_path, monkeypatch):
    collection = small_collection(tmp_path)
    expected, _ = inferred(collection, "cpu")
    real, sizes = collection_cams.infer_group, []

    def infer_group(items, **given):
        sizes.append(len(items))
        if len(items) > 1:
            raise torch.OutOfMemoryError("full")
        return real(items, **given)

    monkeypatch.setattr(collection_cams, "infer_group", infer_group)
    monkeypatch.setattr(collection_cams, "taken_together", lambda _: (32, 2**20))
    with pytest.warns(UserWarning, match="taking halves"):
        assert_alike(inferred(collection, "cpu")[0], expected, 1e-5)
    assert sizes[:5] == [2, 1, 1, 1, 2]
    monkeypatch.setattr(collection_cams, "taken_together", lambda _: (1, 0))
    monkeypatch.setattr(collection_cams, "infer_group", lambda _, **given: infer_group([0, 1]))
    with pytest.raises(torch.OutOfMemoryError, match="^a, 60 x 40 pixels: full$"):
        inferred(collection, "cpu")


def test_superpixels_where_they_are_wanted(tmp_path):
    collection = small_collection(tmp_path)
    scn = SuperpixelNet().eval()
    networks = Classifier(build_backbone("resnet18"), 4).eval(), scn
    given = InferenceSettings((0.5,), flip=False), Reader(torch.device("cpu"), 0, print), "cams"
    for found in infer_collection(collection, *networks, *given, lambda name: name in "ag"):
        if found.id in "ag":
            assert np.array_equal(found.superpixels, superpixels(found.image, scn))
        else:
            assert found.superpixels is None


def test_groups():
    items = [{"image": torch.empty(3, *size), "id": i} for i, size in enumerate(SIZES)]
    groups = [[item["id"] for item in group] for group in of_one_size(items, 3 * 40 * 60)]
    assert groups == [[0, 2], [3, 5], [1, 6], [4]]
    assert all(len(group) == 1 for group in of_one_size(items, 0))


def test_large_photographs_are_not_read_far_ahead():
    """The cams of all that is read ahead are held together."""
    items = [{"image": torch.empty(3, *size), "id": i} for i, size in enumerate(SIZES)]
    for count, pixels, expected in (
        (3, 10**6, [3, 3, 1]),
        (32, 3900, [2, 2, 2, 1]),
        (32, 0, [1] * 7),
    ):
        ahead = list(read_ahead(items, count, pixels))
        assert [len(some) for some in ahead] == expected
        assert [item["id"] for some in ahead for item in some] == list(range(7))
