"""Fixtures of the tests of data sets."""

import pytest

from datasets.prepared import load_collection


@pytest.fixture
def load_coco(coco_root, tmp_path):
    """A function (split) that gives the collection of a split of coco_root."""

    def load(split="train"):
        prepared = tmp_path / "prepared"
        return load_collection("coco", coco_root, split, prepared=prepared, quiet=True)

    return load
