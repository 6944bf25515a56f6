"""Reference outputs of every operator and of the whole networks (tests/golden/README.md)."""

from functools import partial

import numpy as np
import pytest
import torch

from networks.affinity import propagate
from networks.association import pool, reassemble, upsample
from networks.backbone import build_backbone
from networks.classifier import Classifier, cam
from networks.deeplab import bilinear, segmentation_loss
from networks.ipc import ipc_loss
from networks.superpixel import SuperpixelNet, scn_loss
from tests.golden_files import (
    filled_classifier_state,
    golden,
    published_deeplab_state,
    published_scn_state,
)
from utils import checkpoints

close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
close_network = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-3)


def check_operator(operator, inputs, name, out_key, grad_keys, dtype):
    """Output and gradients of `operator` against the file, in float32 and float64."""
    data = golden(name)
    values = [data[key].to(dtype).requires_grad_() for key in inputs]
    out = operator(*values)
    close(out.float(), data[out_key])
    out.backward(data["grad_out"].to(dtype))
    for value, key in zip(values, grad_keys, strict=True):
        close(value.grad.float(), data[key].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pool(dtype):
    check_operator(pool, ("x", "q"), "pool", "pooled", ("grad_x", "grad_q"), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_upsample(dtype):
    check_operator(upsample, ("s", "q"), "up", "up", ("grad_s", "grad_q"), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reassemble(dtype):
    keys = ("grad_features", "grad_kernels")
    check_operator(reassemble, ("features", "kernels"), "reassemble", "out", keys, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_propagate(dtype):
    data = golden("ap")
    beta, gamma = int(data["beta"]), float(data["gamma"])
    operator = partial(propagate, beta=beta, gamma=gamma)
    keys = ("grad_logits", "grad_features")
    check_operator(operator, ("logits", "features"), "ap", "out", keys, dtype)


def test_scn_loss():
    data = golden("scn_loss")
    q = data["q"].requires_grad_()
    total, colour, position = scn_loss(q, data["lab"])
    close(total, data["loss"])
    close(colour, data["colour_term"])
    close(position, data["position_term"])
    total.backward()
    close(q.grad, data["grad_q"].float())


def test_cam():
    data = golden("cam")
    close(cam(data["logits"]), data["cam"])


@pytest.mark.parametrize("kind", ["mixed", "none_counts"])
@pytest.mark.parametrize("patches", [1, 9])
@pytest.mark.parametrize("threshold", ["0.01", "0.1"])
def test_ipc(kind, patches, threshold):
    data = golden(f"ipc_{kind}_p{patches}_t{threshold}")
    fg_cam = data["fg_cam"].requires_grad_()
    loss = ipc_loss(fg_cam, data["target"], int(data["patches"]), float(data["threshold"]))
    close(loss, data["loss"].float())
    loss.backward()
    # Where the cam is 0, classes tie, and how a tie is broken is not part of the definition.
    gradient = torch.where(data["fg_cam"] == 0, 0, fg_cam.grad)
    close(gradient, data["grad_fg_cam"].float())


def test_scn_forward():
    data = golden("scn_forward")
    scn = SuperpixelNet().eval()
    scn.load_state_dict(scn.state_dict() | published_scn_state())
    with torch.no_grad():
        close_network(scn(data["image"]), data["q"])


@pytest.fixture(scope="module")
def classifier():
    model = Classifier(build_backbone("resnet50"), 21).eval()
    model.load_state_dict(filled_classifier_state())
    return model


def test_classifier_forward(classifier):
    data = golden("classifier_forward")
    for key in [key for key in data if key.startswith("logits_b")]:
        beta, gamma = key.removeprefix("logits_b").split("_g")
        with torch.no_grad():
            logits, scores = classifier(data["image"], data["q"], int(beta), float(gamma))
        close_network(logits, data[key])
        close_network(scores, data["scores"].flatten(1))


def test_classifier_on_the_way(classifier):
    data = golden("classifier_forward")
    with torch.no_grad():
        x4 = classifier.backbone.stem_to_4(data["image"])
        close_network(x4[:, :32], data["layer3_first32"])
        gate = classifier.dcr.gate4(x4)
        close_network(gate[:, :32].flatten(), data["gate4_first32"].flatten())
        kernels = classifier.dcr.kernels4(x4, classifier.dcr.embed(data["q"]))
        close_network(kernels, data["kernels4"])
        close_network(reassemble(x4 * gate, kernels)[:, :32], data["x4_first32"])


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory):
    path = tmp_path_factory.mktemp("deeplab") / "published.pth"
    torch.save(published_deeplab_state(), path)
    return checkpoints.open_deeplab(path)


def assert_close_to_the_largest(value, expected):
    assert (value - expected).abs().max() <= 1e-3 * expected.abs().max()


@torch.no_grad()
def test_deeplab(deeplab):
    data = golden("deeplab_v2")
    trunk = deeplab.trunk
    rgb = data["image"].flip(1)  # the file has what enters the network: BGR, mean subtracted
    images = (rgb - trunk.as_trained.shift) / trunk.as_trained.scale
    deeplab.train()
    *outputs, maximum = deeplab(images)
    assert_close_to_the_largest(outputs[0], data["base"])
    assert_close_to_the_largest(maximum, data["msc"])
    total, *losses = segmentation_loss([*outputs, maximum], data["labels"][None])
    assert_close_to_the_largest(torch.stack(losses), data["losses"])
    assert total.item() == pytest.approx(data["losses"].sum().item(), rel=1e-3)
    result = deeplab.eval()(images)
    assert torch.equal(result, maximum)
    prediction = bilinear(result, data["labels"].shape).argmax(1)[0]
    assert (prediction == data["prediction"]).float().mean() >= 0.999


def test_the_golden_files_are_not_trivial():
    """A reference that is constant would let anything pass."""
    for name in ("pool", "up", "reassemble", "ap", "cam"):
        data = golden(name)
        out = next(data[key] for key in ("pooled", "up", "out", "cam") if key in data)
        assert np.std(out.numpy()) > 1e-3
