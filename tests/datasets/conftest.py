"""Fixtures of the tests of data sets."""

import pytest

import dataset_root
from datasets.prepared import load_collection


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """Where lists and labels go."""
    folder = tmp_path / "prepared"
    monkeypatch.setattr(dataset_root, "PREPARED_ROOT", str(folder))
    return folder


@pytest.fixture
def load_coco(coco_root):
    """A function (split) that gives the collection of a split of coco_root."""

    def load(split="train"):
        return load_collection("coco", coco_root, split, quiet=True)

    return load
