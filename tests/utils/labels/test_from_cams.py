import json
import re
import runpy
import sys

import numpy as np
import pytest

from datasets.images import read_label_map, write_label_map
from utils.labels import from_cams
from utils.metrics import ThresholdSweep

NAMES = ("a", "b", "c")
THRESHOLDS = (0.3, 0.5)


@pytest.fixture
def files(tmp_path):
    """Cams of three photographs of the classes cat, dog and cow; b has none of them."""
    rng = np.random.default_rng(0)
    (tmp_path / "cams").mkdir()
    for name, classes in zip(NAMES, ([0, 2], [], [1]), strict=True):
        cams = rng.random((len(classes), 9, 7), np.float32)
        given = {"cams": cams.astype(np.float16), "classes": np.array(classes, np.int64)}
        np.savez_compressed(tmp_path / "cams" / f"{name}.npz", **given)
        write_label_map(tmp_path / "gt" / f"{name}.png", rng.integers(0, 4, (9, 7), np.uint8))
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    return tmp_path


def run(files, monkeypatch, more="", classes="--classes labels.txt"):
    """The status of the command, in the folder of the files."""
    arguments = f"from_cams --cams cams {classes} --thresholds 0.5 0.3 {more}"
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", arguments.split())
    try:
        runpy.run_path(from_cams.__file__, run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


def test_labels_and_their_scores(files, monkeypatch, capsys):
    assert not run(files, monkeypatch, "--gt gt --out out --json scores.json")
    sweep = ThresholdSweep(4, THRESHOLDS)
    for name in NAMES:
        content = np.load(files / "cams" / f"{name}.npz")
        whole = np.zeros((3, 9, 7), np.float32)
        whole[content["classes"]] = content["cams"]
        sweep.add(whole, read_label_map(files / "gt" / f"{name}.png"))
        for threshold in THRESHOLDS:
            background = np.full((1, 9, 7), threshold, np.float32)
            expected = np.concatenate([background, whole]).argmax(0)
            found = read_label_map(files / "out" / f"{threshold:g}" / f"{name}.png")
            np.testing.assert_array_equal(found, expected)
    scores = json.loads((files / "scores.json").read_text())
    assert [row["threshold"] for row in scores["thresholds"]] == [0.3, 0.5]
    for row, matrix in zip(scores["thresholds"], sweep.result(), strict=True):
        assert row["confusion"] == matrix.tolist()
    said = capsys.readouterr().out
    best = f"{scores['best']['threshold']:g}"
    assert re.search(rf"best: mIoU [\d.]+ at threshold {best}, the (low|high)est tried\n", said)
    assert "scored: 3 photographs of 3\n" in said
    assert f"next: python train_seg.py --pseudo_labels out/{best}" in said


def test_those_of_a_list_without_ground_truth(files, monkeypatch, capsys):
    (files / "list.txt").write_text("c.jpg\n")
    assert not run(files, monkeypatch, "--list list.txt --out out")
    assert {path.name for path in (files / "out/0.3").iterdir()} == {"c.png"}
    said = capsys.readouterr().out
    assert "mIoU" not in said and "--pseudo_labels out/0.3" in said  # the nearest to 0.25
    (files / "gt/b.png").unlink()
    assert not run(files, monkeypatch, "--gt gt")
    assert "scored: 2 photographs of 3" in capsys.readouterr().out


def test_labels_of_an_evaluation_keep_its_classes(files, monkeypatch, capsys):
    """Cams lie in its folder."""
    (files / "evaluation.json").write_text("{}")
    (files / "result.json").write_text(json.dumps({"classes": ["background", "dog", "cat"]}))
    (files / "options.json").write_text(json.dumps({"dataset": "custom", "root": "my photos"}))
    assert run(files, monkeypatch, "--gt gt") == 2
    assert "class 1 is dog there and cat here" in capsys.readouterr().err
    (files / "result.json").write_text(json.dumps({"classes": ["background", "dog", "cat", "cow"]}))
    assert not run(files, monkeypatch, "--out out", classes="")
    said = capsys.readouterr().out
    assert "--pseudo_labels out/0.3 --dataset custom --root 'my photos'\n" in said
    (files / "result.json").write_text(json.dumps({"classes": ["background", "dog", "cat"]}))
    assert run(files, monkeypatch, "--out out", classes="") == 2
    assert "holds class 2; without background there are 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classes", "dataset"),
    [
        ("", ""),
        ("--classes voc12", ""),
        ("--classes coco", " --dataset coco"),
        ("--classes labels.txt", " --dataset custom --root DIR"),
    ],
)
def test_the_next_command_names_the_data_set(files, monkeypatch, capsys, classes, dataset):
    assert not run(files, monkeypatch, "--out out", classes)
    assert (
        f"next: python train_seg.py --pseudo_labels out/0.3{dataset}\n" in capsys.readouterr().out
    )


def saved(**arrays):
    return lambda path: np.savez(path, **arrays)


GOOD = {"cams": np.zeros((1, 9, 7), np.float32), "classes": np.array([1])}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"PK"), "a.npz: holds no cams"),
        (saved(cams=GOOD["cams"]), "a.npz: holds no cams .*classes"),
        (saved(**GOOD | {"classes": np.array([{}])}), "a.npz: holds no cams .*allow_pickle"),
        (saved(**GOOD | {"cams": np.zeros((9, 7))}), r"a.npz: cams float64 \(9, 7\) and classes"),
        (saved(**GOOD | {"cams": np.zeros((1, 0, 7))}), r"a.npz: cams float64 \(1, 0, 7\)"),
        (saved(**GOOD | {"cams": np.zeros((1, 9, 7), complex)}), r"a.npz: cams complex128"),
        (saved(**GOOD | {"classes": np.array([1.0])}), r"a.npz: .*integers \(n,\) are needed"),
        (saved(**GOOD | {"classes": np.array([3])}), "a.npz: holds class 3; .* 0 to 2"),
        (saved(**GOOD | {"classes": np.array([-1])}), "a.npz: holds class -1; .* 0 to 2"),
        (saved(**GOOD | {"cams": GOOD["cams"] * np.nan}), "a.npz: cams from nan to nan; scale"),
        (saved(**GOOD | {"cams": GOOD["cams"] + 255}), "a.npz: cams from 255 to 255; scale them"),
        (saved(**GOOD | {"cams": np.zeros((1, 9, 8))}), "a.npz: cams of 8 x 9 pixels, but .*7 x 9"),
    ],
)
def test_what_is_no_cam_is_refused(files, monkeypatch, capsys, write, message):
    write(files / "cams/a.npz")
    assert run(files, monkeypatch, "--gt gt") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(rf"error: cams/{message}", error), error


def test_what_unpacks_without_end_is_refused(files, monkeypatch, capsys):
    monkeypatch.setattr(from_cams, "MOST_BYTES", 100)
    with pytest.raises(Exception, match="more than 100 bytes; refused"):
        from_cams.read_cams(files / "cams/a.npz", 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "give --gt DIR to score"),
        ("--out out --json s.json", "--json s.json: gets scores, which need --gt DIR"),
        ("--cams gt --out out", "gt: holds no cams <id>.npz"),
        ("--gt cams", "cams: holds no ground truth <id>.png"),
        ("--gt gt --thresholds 0.3 0.30000001", "two of them agree in six digits"),
    ],
)
def test_nothing_to_do(files, monkeypatch, capsys, more, message):
    assert run(files, monkeypatch, more) == 2
    assert message in capsys.readouterr().err
