"""The benchmarks of quality measure what users run, once, and their backbone fits the seam."""

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
from benchmarks.quality import (
    METHODS,
    PLAIN,
    Configuration,
    Inference,
    Results,
    rows,
    settings_of,
    training_settings,
)
from datasets.demo import generate
from networks.association import upsample
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils import checkpoints
from utils.runs import start as starting
from utils.runs.data import open_split
from utils.runs.options import option_values
from utils.training.classifier import build_networks

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
    assert option_values(parsers[0].parse_args(["--crop", "96"])) == ours.run.options
    assert METHODS[method].SUPERVISION.name == method


def test_later_arguments_win():
    settings = training_settings(FIRST, ["--lr", "0.1", "--batch", "3"])
    assert settings.schedule.lr == 0.5


@pytest.fixture
def trainings(monkeypatch):
    """What was trained, with invented scores: 10 times the seed, one more for every inference."""
    trained = []

    def invented(configuration, settings, *_):
        seed = settings.run.seed
        trained.append((configuration.name, seed))
        scores = {
            str(inference): {"miou": 10.0 * seed + i, "threshold": 0.3}
            for i, inference in enumerate(configuration.inferences)
        }
        return {"seconds": 1, "mean_ap": 50.0 + seed, "scores": scores}

    monkeypatch.setattr(quality, "train_and_score", invented)
    return trained


def measure(path, configurations=(FIRST, SECOND), common=(), seeds=(1, 2, 4), only=None):
    given = Namespace(
        results=str(path), seeds=seeds, only=only, experiments="experiments", device="cpu"
    )
    quality.run(given, configurations, common, (), None, None, scales=(1.0,))


def test_what_is_measured_is_not_measured_again(tmp_path, trainings):
    path = tmp_path / "new" / "results.json"
    measure(path, seeds=(1,), only=["first"])
    measure(path, seeds=(1, 2))
    assert trainings == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]
    measure(path, seeds=(1, 2))
    assert len(trainings) == 4
    measure(path, seeds=(2,), common=("--epochs", "3"))
    assert trainings[4:] == [("first", 2), ("second", 2)]


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
    settings = {c.name: settings_of(c, (), scales=(1.0,)) for c in (FIRST, SECOND)}
    table = rows((FIRST, SECOND), settings, Results(path))
    deviation = f"{statistics.stdev([10, 20, 40]):.1f}"
    assert table == [
        ["first", "bilinear", "23.3", deviation, "10.0 20.0 40.0", "52.3"],
        ["first", "superpixels, AP gamma 0.9", "24.3", deviation, "11.0 21.0 41.0", "52.3"],
        ["second", "superpixels", "23.3", deviation, "10.0 20.0 40.0", "52.3"],
    ]
    assert "superpixels, AP gamma 0.9" in capsys.readouterr().out


def test_a_training_and_its_scores(tmp_path):
    generate(tmp_path / "data", 4, 1, 48, 0, progress=False)
    checkpoints.save(tmp_path / "scn.pt", {"kind": "scn", "model": SuperpixelNet().state_dict()})
    started = []
    configuration = replace(FIRST, arguments=("--no_dcr",), start=started.append)
    arguments = f"--dataset custom --split train --root {tmp_path}/data --scn {tmp_path}/scn.pt"
    arguments += f" --crop 96 --long_side 48 64 --batch 2 --epochs 1 --experiments {tmp_path}"
    arguments += " --backbone resnet18 --backbone_weights none --score_images 0 --device cpu"
    settings = training_settings(configuration, arguments.split())
    entry = quality.train_and_score(
        configuration,
        settings,
        open_split(settings.data),
        lambda settings, photographs: build_networks(
            settings.networks, tmp_path / "scn.pt", photographs.num_classes
        ),
        (1.0,),
    )
    assert [type(classifier) for classifier in started] == [Classifier]
    assert (settings.run.folder / "last.pt").is_file()
    assert list(entry["scores"]) == ["bilinear", "superpixels, AP gamma 0.9"]
    for score in entry["scores"].values():
        assert 0 < score["miou"] < 100 and score["threshold"] in quality.THRESHOLDS
    assert 0 < entry["mean_ap"] <= 100


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


def test_gates_half_open():
    torch.manual_seed(0)
    classifier = Classifier(build_backbone("efficientnet_lite0"), 21)
    features = torch.rand(2, classifier.backbone.channels[0], 4, 4)
    assert classifier.dcr.gate4(features).mean() > 0.6
    photographs.gates_half_open(classifier)
    assert (classifier.dcr.gate4(features).mean() - 0.5).abs() < 0.05
