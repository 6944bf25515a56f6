import json
import sys

import numpy as np
import pytest

from datasets.command_line import new_parser
from datasets.images import write_label_map
from utils.scores.__main__ import score


def write(folder, name, labels):
    write_label_map(folder / f"{name}.png", np.asarray(labels, np.uint8))


@pytest.fixture
def folders(tmp_path):
    write(tmp_path / "gt", "a", [[0, 1], [1, 255]])
    write(tmp_path / "pred", "a", [[0, 1], [0, 7]])
    write(tmp_path / "gt", "b", [[2, 2]])
    write(tmp_path / "pred", "b", [[2, 1]])
    (tmp_path / "list.txt").write_text("a\nb\n")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    return tmp_path


def run(folder, **changes):
    given = new_parser("").parse_args([])
    values = {"pred": "pred", "gt": "gt", "list": "list.txt", "classes": "labels.txt"}
    for name, value in {**values, **changes}.items():
        setattr(given, name, str(folder / value))
    given.json = str(folder / "scores.json")
    score(given)


def test_scores_by_hand(folders, capsys):
    run(folders)
    result = json.loads((folders / "scores.json").read_text())
    assert result["iou"] == pytest.approx([1 / 2, 1 / 3, 1 / 2])
    assert result["precision"] == pytest.approx([1 / 2, 1 / 2, 1])
    assert result["recall"] == pytest.approx([1, 1 / 2, 1 / 2])
    assert result["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert "mIoU 44.44 over 2 images" in capsys.readouterr().out


def test_uncertain_pixels_count_as_background(folders, capsys):
    """As IRN counts them; endings in capitals are fine."""
    run(folders)
    capsys.readouterr()
    write(folders / "pred", "b", [[2, 0]])
    run(folders)
    expected = json.loads((folders / "scores.json").read_text())
    assert "note" not in capsys.readouterr().out
    write(folders / "pred", "b", [[2, 255]])
    (folders / "pred/b.png").rename(folders / "pred/b.PNG")
    run(folders)
    assert json.loads((folders / "scores.json").read_text()) == expected
    assert "note: 255 counts as background; in 1 label map" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "labels", "message"),
    [
        ("pred", [[2, 1, 0]], "3 x 1 pixels, but the ground truth has 2 x 1"),
        ("pred", [[2, 9]], "pred/b.png: holds class 9; there are 0 to 2"),
        ("gt", [[2, 9]], "gt/b.png: holds class 9; there are 0 to 2"),
        ("pred", None, "pred: 1 of 2 label maps of the list are missing, such as b.png"),
        ("gt", None, "gt: 1 of 2 label maps of the list are missing, such as b.png"),
    ],
)
def test_what_cannot_be_scored(folders, folder, labels, message):
    if labels is None:
        (folders / folder / "b.png").unlink()
    else:
        write(folders / folder, "b", labels)
    with pytest.raises(Exception, match=message):
        run(folders)


def test_the_command(folders, monkeypatch, capsys):
    import runpy

    arguments = ["--pred", "pred", "--gt", "gt", "--list", "list.txt", "--classes", "labels.txt"]
    monkeypatch.chdir(folders)
    monkeypatch.setattr(sys, "argv", ["score", *arguments])
    runpy.run_module("utils.scores", run_name="__main__")
    assert "mIoU 44.44" in capsys.readouterr().out
