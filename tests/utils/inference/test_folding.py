import pytest
import torch
from torch import nn

from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.inference.folding import fold


def lived(network):
    """A network whose batch normalisation has statistics, scales and shifts of its own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_folded_classifier_agrees(name):
    network = lived(Classifier(build_backbone(name), 5))
    folded = fold(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    images, q = torch.randn(1, 3, 64, 48), torch.softmax(torch.randn(1, 9, 64, 48), 1)
    for one, two in zip(folded(images, q, 2), network(images, q, 2), strict=True):
        assert (one - two).abs().max() <= 1e-5 * two.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "res2net50_14w_8s"])
def test_backbones_of_timm_agree(name):
    """Where timm's normalisation acts too, it stays as it is."""
    pytest.importorskip("timm")
    network = lived(Classifier(build_backbone(f"timm:{name}"), 5))
    images, q = torch.randn(1, 3, 64, 48), torch.softmax(torch.randn(1, 9, 64, 48), 1)
    for one, two in zip(fold(network)(images, q), network(images, q), strict=True):
        assert (one - two).abs().max() <= 1e-5 * two.abs().max()


@torch.no_grad()
def test_a_folded_superpixel_network_agrees():
    network = lived(SuperpixelNet())
    images = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(fold(network)(images), network(images), rtol=1e-4, atol=1e-5)


def test_training_networks_are_refused():
    with pytest.raises(ValueError, match="evaluation mode"):
        fold(SuperpixelNet().train())
