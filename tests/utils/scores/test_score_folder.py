import json
import sys

import numpy as np
import pytest

from datasets.command_line import new_parser
from datasets.files import InputError
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


def run(folder, pred=("pred",)):
    given = new_parser("").parse_args([])
    values = {"gt": "gt", "list": "list.txt", "classes": "labels.txt"}
    values |= {"json": "scores.json", "photographs": "scores.csv"}
    for name, value in values.items():
        setattr(given, name, str(folder / value))
    given.pred = [str(folder / one) for one in pred]
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


def test_every_photograph(folders):
    """One pixel of a's is not scored; b has no background, and class 1 only in its labels."""
    write(folders / "gt", "c", [[255]])
    write(folders / "pred", "c", [[1]])
    (folders / "list.txt").write_text("a\nc\nb\n")
    run(folders)
    lines = (folders / "scores.csv").read_text().splitlines()
    assert lines == [f"id,classes,{folders}/pred", "a,cat,50.0", "c,,", "b,dog,25.0"]


def test_two_folders_beside_each_other(folders, capsys):
    write(folders / "better", "a", [[0, 1], [1, 0]])
    write(folders / "better", "b", [[2, 1]])
    run(folders, ("pred", "better"))
    out = capsys.readouterr().out
    table = (
        "IoU (%)                     1      2\n"
        "background               50.0  100.0\n"
        "cat                      33.3   66.7\n"
        "dog                      50.0   50.0\n"
        "mIoU                     44.4   72.2\n"
    )
    assert f"{table}1: {folders}/pred\n2: {folders}/better\n" in out
    assert "2 is 27.78 points of mIoU ahead of 1 (95 % interval " in out
    assert "; 2 photographs are too few to tell)\n" in out
    assert "2 is better than 1 in 1 of 2 photographs, worse in 0" in out
    result = json.loads((folders / "scores.json").read_text())
    assert result["pred"] == f"{folders}/pred"
    (other,) = result["others"]
    assert other["iou"] == pytest.approx([1, 2 / 3, 1 / 2])
    assert other["from_the_first"]["points"] == pytest.approx(100 * 13 / 18 - 100 * 4 / 9, abs=1e-3)


def photographs(folder, names, hits):
    """Photographs of 10 pixels of class 1, of which so many are labelled 1."""
    for i, hit in enumerate(hits):
        write(folder / "gt", f"p{i}", [[1] * 10])
        write(folder / names, f"p{i}", [[1] * hit + [0] * (10 - hit)])
    (folder / "list.txt").write_text("".join(f"p{i}\n" for i in range(len(hits))))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([6] * 30, "2 is 5.00 points of mIoU ahead of 1 (95 % interval +5.00 to +5.00)"),
        ([4] * 30, "2 is 5.00 points of mIoU behind 1 (95 % interval -5.00 to -5.00)"),
        ([9, 1] * 15, ", within chance)\n2 is better than 1 in 15 of 30 photographs, worse in 15"),
    ],
)
def test_what_is_beyond_chance(folders, capsys, others, said):
    """Of background, which is never there, the IoU is 0: the mIoU is half that of class 1."""
    photographs(folders, "pred", [5] * 30)
    photographs(folders, "other", others)
    run(folders, ("pred", "other"))
    assert said in capsys.readouterr().out


def test_photographs_are_paired(folders, capsys):
    """However much they differ, each is better by the same."""
    photographs(folders, "pred", [1, 8] * 15)
    photographs(folders, "other", [2, 9] * 15)
    run(folders, ("pred", "other"))
    expected = "2 is 5.00 points of mIoU ahead of 1 (95 % interval +5.00 to +5.00)"
    assert expected in capsys.readouterr().out


def test_a_missing_folder_is_found_before_any_is_scored(folders, capsys):
    with pytest.raises(InputError, match="nope"):
        run(folders, ("pred", "nope"))
    assert "scoring" not in capsys.readouterr().err
