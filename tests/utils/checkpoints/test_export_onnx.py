"""The ONNX file gives the same labels as the network, at any size."""

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch

from datasets.classes import voc_classes
from datasets.demo import generate
from datasets.files import InputError
from datasets.images import read_photograph
from datasets.listing import list_photographs
from networks.deeplab import DeepLab
from networks.dilated import build_trunk
from networks.normalisation import normalise
from tests.calling import REPOSITORY
from utils.checkpoints import export_onnx, open_deeplab, save
from utils.checkpoints.export_onnx import FullSize, export
from utils.inference.segmentation import segment


def drawn_network(kind, num_classes):
    torch.manual_seed(0)
    network = DeepLab(build_trunk("resnet18", kind), num_classes)
    for module in network.trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 1)
    return network.eval()


def same_share(network, path, images):
    """The share of pixels with the same label, for each of the images (H, W, 3)."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an optional package")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for image in images:
        normalised = normalise(torch.from_numpy(image).permute(2, 0, 1))
        (logits,) = session.run(["logits"], {"image": normalised[None].numpy()})
        expected = segment(normalised, network).argmax(0).numpy()
        assert logits.shape == (1, network.num_classes, *image.shape[:2])
        assert len(np.unique(expected)) > 1
        yield (logits[0].argmax(0) == expected).mean()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchvision", "caffe"])
def test_the_same_labels_at_any_size(tmp_path, kind):
    pytest.importorskip("onnxscript", reason="onnx and onnxscript are optional packages")
    network = drawn_network(kind, 6)
    export(network, tmp_path / "seg.onnx")
    generate(tmp_path / "scenes", images=3, validation=1, size=120, seed=2)
    paths = list_photographs(tmp_path / "scenes/JPEGImages").values()
    whole = [read_photograph(path) for path in paths][:3]
    cut = [whole[0][:97, :64], whole[1][:50], whole[2][:, :101]]
    assert min(same_share(network, tmp_path / "seg.onnx", cut)) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224"])
@torch.no_grad()
def test_trunks_of_timm_at_any_size(tmp_path, name):
    """Sides are rounded up to multiples of 16 in the file too."""
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript", reason="onnx and onnxscript are optional packages")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an optional package")
    torch.manual_seed(0)
    network = DeepLab(build_trunk(name), 3).eval()
    export(network, tmp_path / "seg.onnx")
    session = runtime.InferenceSession(tmp_path / "seg.onnx", providers=["CPUExecutionProvider"])
    for size in ((64, 96), (80, 50), (33, 130)):
        image = torch.randn(1, 3, *size)
        (found,) = session.run(["logits"], {"image": image.numpy()})
        expected = FullSize(network)(image)
        assert np.abs(found - expected.numpy()).max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
def test_the_command_on_real_photographs(shared, tmp_path):
    pytest.importorskip("onnxscript", reason="onnx and onnxscript are optional packages")
    network = drawn_network("torchvision", 21)
    described = {"backbone": "resnet18", "trunk": "torchvision"}
    content = {"kind": "segmentation", **described, "classes": list(voc_classes())}
    save(tmp_path / "seg.pt", {**content, "model": network.state_dict()})
    command = [sys.executable, "-m", "utils.checkpoints.export_onnx", "--checkpoint"]
    command += [str(tmp_path / "seg.pt"), "--out", str(tmp_path / "seg.onnx")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("image (1, 3, H, W) -> logits (1, 21, H, W)")
    import onnx

    held = {p.key: p.value for p in onnx.load(tmp_path / "seg.onnx").metadata_props}
    assert json.loads(held["classes"]) == ["background", *voc_classes()]
    folder = shared / "coco_mini_voc/JPEGImages"
    images = [read_photograph(path) for path in list(list_photographs(folder).values())[:5]]
    assert len({image.shape for image in images}) > 1
    network = open_deeplab(tmp_path / "seg.pt")
    assert min(same_share(network, tmp_path / "seg.onnx", images)) >= 0.999


def test_what_is_done_is_said_before_it_takes_its_time(tmp_path, monkeypatch, capsys):
    content = {"kind": "segmentation", "backbone": "resnet18", "trunk": "torchvision"}
    state = drawn_network("torchvision", 3).state_dict()
    save(tmp_path / "seg.pt", {**content, "model": state})
    said = []
    monkeypatch.setattr(export_onnx, "export", lambda *_: said.append(capsys.readouterr().out))
    out = tmp_path / "seg.onnx"
    export_onnx.main(Namespace(checkpoint=tmp_path / "seg.pt", out=out))
    assert said == [
        f"exporting {tmp_path}/seg.pt (resnet18) to {out}; this takes a minute or two\n"
    ]


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    network = drawn_network("torchvision", 3)
    with pytest.raises(InputError, match="onnx onnxscript; pip install onnx onnxscript"):
        export(network, tmp_path / "seg.onnx")
    assert not (tmp_path / "seg.onnx").exists()
