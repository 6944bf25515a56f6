"""Every script from end to end on the GPU, with what follows an epoch: scores and pictures."""

import json

import pytest

from datasets.demo import generate
from tests.calling import call

pytestmark = pytest.mark.gpu

CROPS = "--batch 4 --crop 64 --long_side 64 80"
SCRATCH = "--backbone resnet18 --backbone_weights none"
CLASSIFIER = f"{SCRATCH} {CROPS} --epochs 2 --score_images 3"


@pytest.fixture(scope="module")
def data(tmp_path_factory, device):
    """Options of a small data set, and where runs go."""
    folder = tmp_path_factory.mktemp("scripts")
    generate(folder / "scenes", images=8, validation=3, size=64, seed=0)
    return (
        f"--dataset custom --root {folder}/scenes --split train --experiments {folder} "
        f"--device {device} --workers 1"
    )


def test_the_whole_road(data, tmp_path_factory):
    call("train_scn.py", f"{data} {CROPS} --epochs 1 --amp")
    for kind, more in (("image", "--amp"), ("sal", "")):
        call(f"train_cls_{kind}.py", f"{data} {CLASSIFIER} {more}")
        call(f"evaluator_cls_{kind}.py", f"{data} --scales 1 1.5")
    call(
        "train_seg.py",
        f"{data} {SCRATCH} --stride 16 --steps 4 --score_every 2 --batch 4 --accumulate 2 "
        "--crop 48 --lr 0.01 --score_images 2 --amp",
    )
    call("evaluator_seg.py", data.replace("--split train", "--split val"))
    runs = data.split("--experiments ")[1].split()[0]
    for tag in ("eval_image", "eval_sal", "eval_seg"):
        with open(f"{runs}/{tag}/result.json") as file:
            assert json.load(file)["images"] == (3 if tag == "eval_seg" else 8)
