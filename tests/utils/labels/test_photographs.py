from pathlib import Path

import pytest
from PIL import Image

from utils.labels.photographs import (
    KnownClasses,
    PhotographSettings,
    open_photographs,
)
from utils.runs.data import DataSettings

KNOWN = KnownClasses(Path("best.pt"), ("cat", "dog"), 3)


def settings(images, labels):
    return PhotographSettings(DataSettings("voc12", "train", None), str(images), str(labels))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.jpg.png"):
        Image.new("RGB", (20, 30)).save(folder / name)
    return folder


def labels(photographs):
    return {i: photographs.labels[i].tolist() for i in photographs.ids}


def test_a_csv_may_leave_photographs_out(images, tmp_path):
    """Or name no class: both are what predicted.csv may hold."""
    table = tmp_path / "table.csv"
    table.write_text("id,classes\nb.png,dog,cat\nc.jpg.png\nz.png,dog\n")
    found = open_photographs(settings(images, table), KNOWN)
    assert labels(found) == {"b": [1, 1], "c.jpg": [0, 0]}
    assert found.notes == (
        f"ids in {table} without a photograph in {images}: 1, such as z",
        f"left out, as {table} has no line for them: 1 photograph (a)",
        f"all background, as {table} names no class: 1 photograph (c.jpg)",
    )


def test_a_file_that_is_called_as_a_class_is(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dog", "table"):
        Path(name).write_text("a,cat\n")
    assert labels(open_photographs(settings(images, "dog"), KNOWN)) == dict.fromkeys(
        ("a", "b", "c.jpg"), [0, 1]
    )
    assert labels(open_photographs(settings(images, "table"), KNOWN)) == {"a": [1, 0]}
