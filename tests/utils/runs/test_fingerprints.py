"""What a run is made from, as far as a run that goes on must notice that it has changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.collection import Collection
from utils.runs.changes import HARMLESS, changed_options
from utils.runs.fingerprints import fingerprint, sizes


@pytest.fixture
def collection(tmp_path):
    images = {name: tmp_path / f"{name}.jpg" for name in "ab"}
    for i, path in enumerate(images.values(), 1):
        path.write_bytes(b"x" * i)
    labels = {"a": np.array([1, 0], np.uint8)}
    return Collection("custom", "train", ("cat", "dog"), ("a", "b"), images, labels)


def test_of_a_collection(collection, tmp_path):
    before = fingerprint(collection)
    assert fingerprint(replace(collection, name="voc12")) == before
    other_label = replace(collection, labels={"a": np.array([0, 1], np.uint8)})
    more_labels = replace(collection, labels={**collection.labels, "b": np.zeros(2, np.uint8)})
    changed = [other_label, more_labels, collection.subset(["a"]), collection.subset(["b", "a"])]
    found = {before, *map(fingerprint, changed)}
    (tmp_path / "b.jpg").write_bytes(b"")
    found.add(fingerprint(collection))
    assert len(found) == 6
    (tmp_path / "b.jpg").unlink()  # counts as empty: what cannot be read is said elsewhere
    assert fingerprint(collection) in found


def test_of_weights():
    weights = {"w": torch.arange(4.0), "b": torch.ones(1)}
    again = {"b": torch.ones(1), "w": torch.arange(8.0)[:4]}
    before = fingerprint(weights)
    assert fingerprint(again) == before
    others = [{**weights, "w": torch.arange(4.0) + 1e-6}, {"w": weights["w"]}]
    others.append({"v": weights["w"], "b": weights["b"]})
    assert len({before, *map(fingerprint, others)}) == 4


def test_of_sizes(tmp_path):
    for name, length in (("a", 1), ("b", 2)):
        (tmp_path / name).write_bytes(b"x" * length)
    paths = [tmp_path / name for name in "ab"]
    assert sizes(paths) == sizes(iter(paths)) != sizes(paths[::-1])


def test_what_differs_in_words(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/train_scn.py"])
    before = {
        "script": "train_scn.py",
        "options": {"lr": 0.1, "tag": "a", "gone": 1},
        "fingerprints": {"photographs": "1", "--scn": "2"},
    }
    prints = {"photographs": "1", "--scn": "2"}
    same = {"lr": 0.1, "tag": "b", "gone": 1}
    assert changed_options(before, same, prints, HARMLESS) == []
    now = {"lr": 0.2, "tag": "a", "new": 3}
    prints = {"photographs": "3", "--scn": "4", "saliency maps": "5"}
    assert changed_options({**before, "script": "other.py"}, now, prints, HARMLESS) == [
        "it is of other.py",
        "--gone was 1, is None",
        "--lr was 0.1, is 0.2",
        "--new was None, is 3",
        "photographs, or their image-level labels: the content differs",
        "--scn: the content differs",
        "saliency maps: the content differs",
    ]
