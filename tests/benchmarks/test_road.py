"""The order in which benchmarks.road runs the scripts, with a stand-in for them."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import ablation, quality, road
from datasets.demo import generate
from datasets.files import InputError


@pytest.fixture
def args(tmp_path):
    return Namespace(
        steps=None,
        amp=False,
        experiments=str(tmp_path),
        device="cpu",
    )


@pytest.fixture
def called(monkeypatch):
    """The commands that were run; each leaves the result of an evaluation."""
    commands = []

    def run(command):
        commands.append(command[1:])
        folder = Path(command[command.index("--experiments") + 1])
        folder /= command[command.index("--tag") + 1]
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"best": {"miou": 0.5}}))
        return Namespace(returncode=0)

    monkeypatch.setattr(road.subprocess, "run", run)
    return commands


def measure(args, kind, train="a", recipe=road.SCENES):
    return road.Road(args, recipe, ["--root", train], ["--root", "b"], 0).measure(kind)


def scripts(commands):
    return [command[0].removesuffix(".py") for command in commands]


def test_the_way_from_a_kind_of_labels_to_a_score(args, called):
    image = next(kind for kind in road.SCENES.kinds if kind.name == "image method")
    assert measure(args, image) == {"labels": 50, "miou": 50}
    stages = ["train_scn", "train_cls_image", "evaluator_cls_image", "train_cls_image"]
    assert scripts(called) == [*stages, "train_seg", "evaluator_seg"]
    tags = [command[command.index("--tag") + 1] for command in called]
    assert f"{args.experiments}/{tags[1]}/last.pt" in called[2]  # its own classifier's cams,
    assert tags[2] in called[4]  # whose labels the network learns,
    assert f"{args.experiments}/{tags[3]}/last.pt" in called[4]  # beginning with plain CAM's trunk
    assert "--no_dcr" in called[3] and "--no_dcr" not in called[1]
    assert called[5][called[5].index("--root") :][:2] == ["--root", "b"]


def test_masks_need_no_labels_and_what_is_done_is_not_done_again(args, called):
    assert measure(args, road.MASKS) == {"miou": 50}
    assert scripts(called) == ["train_scn", "train_cls_image", "train_seg", "evaluator_seg"]
    measure(args, road.PLAIN)
    assert scripts(called[4:]) == ["evaluator_cls_image", "train_seg", "evaluator_seg"]
    measure(args, road.PLAIN)
    assert len(called) == 7
    measure(args, road.MASKS, train="c")  # whatever is set differently is run anew
    assert len(called) == 11


def test_labels_inferred_otherwise_come_from_the_same_classifier(args, called):
    kinds = [kind for kind in road.SCENES.kinds if kind.name.startswith("image method")]
    assert len(kinds) == 3
    for kind in kinds:
        measure(args, kind)
    assert scripts(called[6:]) == 2 * ["evaluator_cls_image", "train_seg", "evaluator_seg"]
    assert "--crf" in called[6] and "--uncertain" in called[9]
    assert "--crf" not in called[2] and "--uncertain" not in called[2]


def test_refined_labels_count_where_they_are_better(tmp_path):
    found = {"best": {"miou": 0.5}, "crf": {"best": {"miou": 0.6}}}
    (tmp_path / "result.json").write_text(json.dumps(found))
    assert road.percent(tmp_path) == 60


def test_a_stage_that_fails_ends_it(args, monkeypatch):
    monkeypatch.setattr(road.subprocess, "run", lambda _: Namespace(returncode=2))
    with pytest.raises(InputError, match=r"^train_seg.py --tag seg_masks_0_\w+: failed"):
        measure(args, road.MASKS, recipe=road.PHOTOGRAPHS)


def test_ratios_are_taken_seed_by_seed(tmp_path):
    results = road.Results(tmp_path / "r.json")
    plain, masks = (road.settings_of(road.SCENES, k, steps=1) for k in (road.PLAIN, road.MASKS))
    assert plain != masks and plain["classifier"] == road.SCENES.classifier
    for seed, full in ((0, 80), (1, 50)):
        results.add(f"masks seed {seed}", masks, {"miou": full})
        results.add(f"plain CAM seed {seed}", plain, {"labels": 30, "miou": 40})
    results.add("masks seed 2", {**masks, "steps": 2}, {"miou": 1})  # with others: left out
    assert road.rows(results, {"plain CAM": plain, "masks": masks}) == [
        ["plain CAM", "30.0 30.0", "40.0 40.0", "0.500 0.800"],
        ["masks", "- -", "80.0 50.0", "1.000 1.000"],
    ]


def test_other_photographs_are_other_numbers(voc_root, tmp_path, monkeypatch):
    """What a results file holds of some photographs is never taken for that of others."""
    measured = []
    monkeypatch.setattr(road.Road, "measure", lambda _, one: measured.append(one) or {"miou": 1.0})
    given = {"voc_root": str(voc_root), "test_root": None, "results": str(tmp_path / "r.json")}
    given |= {"seeds": [0], "steps": None, "amp": False, "experiments": str(tmp_path)}
    for _ in range(2):
        road.main(Namespace(**given, device="cpu"))
        assert len(measured) == 3
    lists = voc_root / "ImageSets/Segmentation"
    first, second, *_ = (lists / "train.txt").read_text().split()
    (lists / "train.txt").write_text(first)
    (lists / "val.txt").write_text(second)
    road.main(Namespace(**given, device="cpu"))
    assert len(measured) == 6


def test_the_ablation_says_on_what_it_was_measured(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(ablation, "superpixel_network", lambda *_: tmp_path / "scn.pt")
    monkeypatch.setattr(quality, "run", lambda _, experiment, order: compared.append(experiment))
    for images in (3, 4):
        root = tmp_path / str(images)
        generate(root, images, 1, 48, 0, progress=False)
        ablation.main(Namespace(root=str(root), epochs=1, only=["DCR"]))
    one, other = (experiment.settings(experiment.configurations[0]) for experiment in compared)
    assert one["photographs"].startswith("3, ") and other["photographs"].startswith("4, ")
