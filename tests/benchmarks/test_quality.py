"""The benchmarks of quality measure what users run, once, and their backbone fits the seam."""

import re
import runpy
import statistics
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import photographs, quality
from benchmarks.bilinear import Bilinear
from benchmarks.packed_counts import unpacked
from benchmarks.quality import (
    METHODS,
    Configuration,
    Experiment,
    Results,
    rows,
    training_settings,
)
from benchmarks.scoring import PLAIN, THRESHOLDS, Inference
from datasets.demo import generate
from datasets.files import InputError
from networks.association import upsample
from networks.superpixel import SuperpixelNet
from utils import checkpoints
from utils.inference.cams import InferenceSettings
from utils.runs import start as starting
from utils.runs.data import open_split
from utils.runs.reader import Reader
from utils.scores.cam_validation import validate
from utils.training.classifier_options import settings_of as classifier_settings

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = (
    Configuration("first", "image", ("--lr", "0.5"), (PLAIN, Inference(8, 0.9))),
    Configuration("second", "saliency", ()),
)


@pytest.mark.parametrize("method", ["image", "saliency"])
def test_options_are_those_of_the_training_script(method, monkeypatch):
    script = {"image": "train_cls_image.py", "saliency": "train_cls_sal.py"}[method]
    parsers = []
    monkeypatch.setattr(starting, "start", lambda main, parser: parsers.append(parser))
    runpy.run_path(str(ROOT / script), run_name="__main__")
    ours = training_settings(Configuration("name", method, ()), ["--crop", "96"])
    script = classifier_settings(parsers[0].parse_args(["--crop", "96"]))
    assert script.run.options == ours.run.options
    assert METHODS[method].SUPERVISION.name == method


def test_later_arguments_win():
    settings = training_settings(FIRST, ["--lr", "0.1", "--batch", "3"])
    assert settings.learning.lr == 0.5


@pytest.fixture
def trainings(monkeypatch):
    """What was trained, with invented scores: 10 times the seed, one more for every inference."""
    trained = []

    def invented(_, configuration, settings, inferences, start):
        seed = settings.run.seed
        trained.append((configuration.name, seed) if start is None else (seed, start))
        assert settings.resuming.resume is not None
        scores = {
            str(inference): {"miou": 10.0 * seed + i, "threshold": 0.3}
            for i, inference in enumerate(inferences)
        }
        return {"seconds": 1, "mean_ap": 50.0 + seed, "scores": scores}

    monkeypatch.setattr(quality, "train_and_score", invented)
    return trained


def measure(
    path,
    configurations=(FIRST, SECOND),
    common=(),
    seeds=(1, 2, 4),
    start=None,
    maps=None,
):
    given = Namespace(
        results=str(path),
        seeds=seeds,
        experiments="runs",
        device="cpu",
        workers=1,
        start_seed=start,
    )
    quality.run(given, Experiment(configurations, common, (), None, None, (1.0,), maps=maps or {}))


def test_what_is_measured_is_not_measured_again(tmp_path, trainings):
    path = tmp_path / "new" / "results.json"
    measure(path, (FIRST,), seeds=(1,))
    measure(path, seeds=(1, 2))
    assert trainings == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]
    measure(path, seeds=(1, 2))
    assert len(trainings) == 4
    measure(path, seeds=(2,), common=("--epochs", "3"))
    assert trainings[4:] == [("first", 2), ("second", 2)]


def test_a_new_inference_is_added_to_what_is_measured(tmp_path, trainings, monkeypatch):
    path = tmp_path / "results.json"
    measure(path, (FIRST,), seeds=(1,))
    more = replace(FIRST, inferences=(*FIRST.inferences, Inference(8, keep=0.1, crf=True)))
    measure(path, (more,), seeds=(1,))
    assert trainings == [("first", 1)] * 2
    scores = Results(path).entries["first seed 1"]["scores"]
    assert {name: score["miou"] for name, score in scores.items()} == {
        "bilinear": 10,
        "superpixels, AP gamma 0.9": 11,
        "superpixels, AP keep 0.1, CRF": 10,
    }


def test_other_saliency_maps_are_other_numbers_of_the_saliency_method(tmp_path, trainings):
    path = tmp_path / "results.json"
    measure(path, seeds=(1,))
    measure(path, seeds=(1,), maps={"saliency maps": "others"})
    assert trainings == [("first", 1), ("second", 1), ("second", 1)]
    assert Results(path).entries["second seed 1"]["settings"]["saliency maps"] == "others"


def test_other_saliency_maps_are_other_numbers_of_inference_by_them(tmp_path, trainings):
    path, cut = tmp_path / "results.json", Inference(by_saliency=True)
    both = (replace(FIRST, inferences=(PLAIN, cut)),)
    for maps in ("ours", "ours", "others"):
        measure(path, both, seeds=(1,), maps={"saliency maps": maps})
    assert trainings == [("first", 1)] * 2
    scores = Results(path).entries["first seed 1"]["scores"]
    assert [score.get("saliency maps") for score in scores.values()] == [None, "others"]


def test_starts_are_trainings_of_their_own(tmp_path, trainings):
    path = tmp_path / "results.json"
    measure(path, (FIRST,), seeds=(1,))
    measure(path, (FIRST,), seeds=(1,), start=3)
    measure(path, (FIRST,), seeds=(1, 2), start=3)
    assert trainings == [("first", 1), (1, 3), (2, 3)]
    expected = ["first seed 1", "first start 3 seed 1", "first start 3 seed 2"]
    assert list(Results(path).entries) == expected


def test_other_settings_are_trained_in_another_folder(tmp_path):
    tags = {quality.tag_of(tmp_path / "a.json", "first seed 1", {"steps": n}) for n in (1, 1, 2)}
    assert len(tags) == 2 and all(re.fullmatch(r"a_first_seed_1_\w{8}", tag) for tag in tags)


def test_two_at_once_keep_the_results_of_both(tmp_path):
    path = tmp_path / "results.json"
    one, other = Results(path, ["first", "second"]), Results(path, ["first", "second"])
    one.add("second seed 0", {}, {})
    other.add("gone seed 0", {}, {})
    other.add("first seed 10", {}, {})
    one.add("first seed 9", {}, {})
    expected = ["first seed 9", "first seed 10", "second seed 0", "gone seed 0"]
    assert list(Results(path).entries) == expected


def test_rows_are_means_over_seeds(tmp_path, trainings, capsys):
    path = tmp_path / "results.json"
    measure(path)
    measure(path, seeds=(3,), common=("--epochs", "3"))  # another budget: not in these means
    experiment = Experiment((FIRST, SECOND), (), (), None, None, (1.0,))
    settings = {c.name: experiment.settings(c) for c in (FIRST, SECOND)}
    table = rows((FIRST, SECOND), settings, Results(path))
    deviation = f"{statistics.stdev([10, 20, 40]):.1f}"
    assert table == [
        ["first", "bilinear", "23.3", deviation, "10.0 20.0 40.0", "52.3"],
        ["first", "superpixels, AP gamma 0.9", "24.3", deviation, "11.0 21.0 41.0", "52.3"],
        ["second", "superpixels", "23.3", deviation, "10.0 20.0 40.0", "52.3"],
    ]
    assert "superpixels, AP gamma 0.9" in capsys.readouterr().out


@pytest.fixture
def small(tmp_path):
    """`train_and_score` on four scenes, with inferences to choose, and its settings."""
    generate(tmp_path / "data", 4, 1, 48, 0, progress=False)
    checkpoints.save(tmp_path / "scn.pt", {"kind": "scn", "model": SuperpixelNet().state_dict()})
    configuration = replace(FIRST, arguments=("--no_dcr",))
    arguments = f"--dataset custom --split train --root {tmp_path}/data --scn {tmp_path}/scn.pt"
    arguments += f" --crop 96 --long_side 48 64 --batch 2 --epochs 1 --experiments {tmp_path}"
    arguments += " --backbone resnet18 --backbone_weights none --score_images 0 --device cpu"
    settings = training_settings(configuration, [*arguments.split(), "--resume"])

    def measure(*inferences, scored=None):
        photographs, scn = open_split(settings.data), tmp_path / "scn.pt"
        experiment = Experiment([configuration], (), (), photographs, scn, (1.0,), scored)
        return quality.train_and_score(experiment, configuration, settings, inferences)

    return settings, measure


def test_a_training_and_its_scores(small):
    settings, measure = small
    entry = measure(*FIRST.inferences)
    assert (settings.run.folder / "last.pt").is_file()
    assert list(entry["scores"]) == ["bilinear", "superpixels, AP gamma 0.9"]
    ids = entry["photographs"].splitlines()
    assert ids == list(open_split(settings.data).ids)
    for score in entry["scores"].values():
        assert 0 < score["miou"] < 100 and score["threshold"] in THRESHOLDS
        counts = unpacked(score["counts"], len(ids))
        assert score["miou"] == round(100 * float(counts.mious().max()), 2)
        assert score["threshold"] == counts.thresholds[counts.best()]
        assert (counts.truth.sum(1) == counts.predicted.sum(1)[:, 0]).all()
    assert 0 < entry["mean_ap"] <= 100


def test_what_is_trained_is_scored_without_training_again(small):
    """The scores are those of `validate`, which the trainings have."""
    settings, measure = small
    first = measure(Inference())
    before = torch.load(settings.run.folder / "last.pt", weights_only=True)["model"]
    again = measure(Inference(), Inference(8, keep=0.2))
    after = torch.load(settings.run.folder / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again["scores"]["superpixels"] == first["scores"]["superpixels"]
    trained = checkpoints.open_trained(settings.run.folder / "last.pt")
    found = validate(
        open_split(settings.data),
        trained.classifier,
        trained.scn,
        InferenceSettings((1.0,), False, 8, keep=0.2),
        THRESHOLDS,
        Reader(torch.device("cpu"), 0, pytest.fail),
    )
    score = again["scores"]["superpixels, AP keep 0.2"]
    assert score["miou"] == pytest.approx(100 * found.miou, abs=0.1)
    assert again["mean_ap"] == pytest.approx(100 * found.mean_ap, abs=0.1)


def test_an_inference_has_scales_of_its_own(small):
    """At the benchmark's scale and mirrored it is no longer what it is without."""
    settings, measure = small
    entry = measure(Inference(), Inference(scales=(1.0,)))
    once, mirrored = entry["scores"].values()
    assert list(entry["scores"])[1] == "superpixels, scales 1 mirrored"
    assert once["counts"] != mirrored["counts"]


def test_background_by_saliency_is_an_inference(small):
    """The scenes' maps are drawn from their masks, so that background is nearly perfect."""
    settings, measure = small
    cams, cut = measure(Inference(), Inference(by_saliency=True))["scores"].items()
    assert cut[0] == "superpixels, background by saliency"
    assert cut[1]["miou"] > cams[1]["miou"] + 10


def test_saliency_maps_are_told_apart(small):
    settings, _ = small
    scenes = open_split(settings.data)
    before = photographs.maps_of(scenes)
    assert photographs.maps_of(scenes) == before
    path = scenes.saliency_path(scenes.ids[1])
    path.write_bytes(scenes.saliency_path(scenes.ids[0]).read_bytes())
    assert photographs.maps_of(scenes) != before
    path.unlink()
    with pytest.raises(InputError, match="1 of 4 photographs have no saliency map"):
        photographs.maps_of(scenes)


def test_the_dense_crf_is_an_inference(small):
    pytest.importorskip("pydensecrf")
    settings, measure = small
    two = open_split(settings.data).subset(open_split(settings.data).ids[:2])
    entry = measure(Inference(), Inference(crf=True), scored=two)
    plain, refined = (entry["scores"][name] for name in ("superpixels", "superpixels, CRF"))
    assert set(refined["counts"]["thresholds"]) <= set(plain["counts"]["thresholds"])
    assert entry["photographs"].splitlines() == list(two.ids)
    one, other = (unpacked(score["counts"], 2) for score in (plain, refined))
    assert (one.truth == other.truth).all() and one.hits.sum() != other.hits.sum()


def test_bilinear_association():
    maps = torch.randn(2, 5, 3, 4)
    expected = F.interpolate(maps, scale_factor=16, mode="bilinear", align_corners=False)
    found = upsample(maps, Bilinear()(torch.zeros(2, 3, 48, 64)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_photographs_of_both_lists(shared, tmp_path):
    settings = training_settings(FIRST, ["--voc_root", str(shared / "coco_mini_voc")])
    both = photographs.everything(settings.data)
    assert len(both.ids) == len(set(both.ids)) == 234
    assert set(both.ids) == set(both.images) == set(both.labels)
    halves = [photographs.half_taken(both, half).ids for half in photographs.HALVES]
    assert [len(half) for half in halves] == [116, 118]
    assert sorted(sum(halves, ())) == sorted(both.ids)
    assert photographs.half_taken(both, "all") == both


def test_halves_are_fixed_by_ids():
    """Neither order nor the other photographs matter, on any machine and in any year."""
    found = {one: photographs.half_of(one) for one in ("2007_000032", "000000000030", "x", "y")}
    expected = ("report", "choice", "choice", "report")
    assert tuple(found.values()) == expected


def test_what_is_trained_and_scored(shared, monkeypatch):
    """118 photographs are 14 steps of 8 a pass, so 300 steps are 22 passes."""
    ran = []
    monkeypatch.setattr(quality, "run", lambda _, experiment, order: ran.append(experiment))
    root = str(shared / "coco_mini_voc")
    given = Namespace(voc_root=root, half="report", test_root=None, steps=300, results=None)
    given = Namespace(**vars(given), scn=checkpoints.SHIPPED, crop=256, scale=0.5, only=["DCR"])
    given = Namespace(**vars(given), set="", beta=8, gamma=[0.6], gamma_keep=[], crf=False)
    given.more_scales, given.voc_sal_root, given.by_saliency = (), None, False
    photographs.main(given)
    assert given.results == "benchmarks/results/photographs_report_300.json"
    one = ran[0]
    assert one.common[-2:] == ["--epochs", "22"]
    assert (one.about["steps"], one.about["budget"]) == (308, 300)
    assert len(one.photographs.ids) == 118 and one.scored is None and one.maps == {}
    given.test_root, given.results = root, None
    given.voc_sal_root, given.only = f"{root}/saliency_map", ["saliency method"]
    photographs.main(given)
    assert given.results == "benchmarks/results/photographs_report_tested_300.json"
    other = ran[1]
    assert len(other.scored.ids) == 234 and other.about["tested"].startswith("234, ")
    assert other.paths[-2:] == ["--voc_sal_root", given.voc_sal_root]
    assert re.fullmatch(r"\w{16}", other.maps["saliency maps"])
    given.by_saliency = True
    with pytest.raises(InputError, match="--by_saliency: does not go with --test_root"):
        photographs.main(given)


def test_options_become_configurations():
    given = Namespace(only=["plain CAM", "DCR"], set="--lr 0.05", beta=8, gamma=[0.6], crf=True)
    given.gamma_keep, given.more_scales, given.by_saliency = [0.1], (), False
    plain, dcr = photographs.configurations(given)
    assert plain.name == "plain CAM --lr 0.05" and plain.arguments[-2:] == ("--lr", "0.05")
    alike = ["superpixels", "superpixels, AP gamma 0.6", "superpixels, AP keep 0.1"]
    refined = [f"{inference}, CRF" for inference in alike[1:]]
    assert list(map(str, dcr.inferences)) == alike + refined
    assert list(map(str, plain.inferences)) == ["bilinear", *alike, "bilinear, CRF", *refined]
    given.gamma_keep, given.more_scales = [], [0.5, 1.0]
    finer = f"{alike[1]}, scales 0.5 1 mirrored"
    found = list(map(str, photographs.configurations(given)[1].inferences))
    assert found == [*alike[:2], finer, f"{finer}, CRF"]
    given.by_saliency, given.crf = True, False
    for configuration in photographs.configurations(given):
        assert str(configuration.inferences[-1]) == f"{finer}, background by saliency"
    given.gamma, given.more_scales = [], []
    for configuration in photographs.configurations(given):
        assert str(configuration.inferences[-1]) == f"{alike[0]}, background by saliency"
