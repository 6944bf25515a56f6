"""Every script on a pretend GPU: what mixes devices fails here as it would on a GPU.

Not with --amp in bfloat16 as on a GPU (the CPU's autocast stands in), nor what a GPU computes.
"""

import json

import numpy as np
import pytest
import torch

from datasets.demo import generate
from tests.calling import call
from tests.pretend import Pretend, pretend

VERSION = tuple(map(int, torch.__version__.split(".")[:2]))
pytestmark = pytest.mark.skipif(VERSION < (2, 13), reason="was tried with PyTorch 2.13 and 2.14")

CROPS = "--batch 4 --crop 64 --long_side 64 80"
SCRATCH = "--backbone resnet18 --backbone_weights none"


@pytest.fixture
def gpu(monkeypatch):
    pretend(monkeypatch)


def test_devices_do_not_mix(gpu):
    x, y = torch.ones(3, device="cuda"), torch.ones(3)
    assert x.device.type == "cuda" and isinstance(x + torch.tensor(1.0), Pretend)
    for mixed in (lambda: x + y, lambda: torch.cat([x, y]), lambda: y[x.long()]):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)
    assert torch.equal(x[torch.tensor([0, 2])].cpu(), torch.ones(2))
    leaf = torch.ones(3, requires_grad=True)
    (leaf.to("cuda") * x).sum().backward()
    assert type(leaf.grad) is torch.Tensor


def test_values_that_are_put_do_not_mix(gpu):
    x = torch.zeros(3, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        x[torch.tensor([0, 1])] = torch.ones(2)
    x[:2] = torch.ones(2)  # a copy
    assert x.cpu().sum() == 2


@pytest.mark.slow
def test_the_whole_road(gpu, tmp_path):
    generate(tmp_path / "scenes", images=8, validation=3, size=64, seed=0)
    data = (
        f"--dataset custom --root {tmp_path}/scenes --split train --experiments {tmp_path} "
        "--device cuda --workers 1"
    )
    call("train_scn.py", f"{data} {CROPS} --epochs 1 --amp")
    for kind, more in (("image", "--amp"), ("sal", "--gamma_keep 0.3")):
        script = f"{data} {SCRATCH} {CROPS} --epochs 2 --score_images 3 {more}"
        call(f"train_cls_{kind}.py", script)
        call(f"evaluator_cls_{kind}.py", f"{data} --scales 1 1.5")
    seg = f"{data} {SCRATCH} --stride 16 --score_every 2 --batch 4 --crop 48 --lr 0.01 --amp"
    call("train_seg.py", f"{seg} --steps 4 --score_images 2")
    call("train_seg.py", f"{seg} --steps 6 --score_images 2 --resume --force")
    val = data.replace("--split train", "--split val")
    call("evaluator_seg.py", f"{val} --flip --restrict")
    folder = data.replace(f"--dataset custom --root {tmp_path}/scenes --split train", "")
    one = f"{folder} --images {tmp_path}/scenes/JPEGImages/val_0001.jpg"
    call(
        "evaluator_cls_image.py",
        f"{one} --labels predicted --tag one --checkpoint {tmp_path}/cls_image/last.pt",
    )
    call("evaluator_seg.py", f"{one} --tag one_seg")
    for tag, images in (("eval_image", 8), ("eval_sal", 8), ("eval_seg", 3), ("one", 1)):
        assert json.loads((tmp_path / tag / "result.json").read_text())["images"] == images
