import pytest
import torch
from torch import nn
from torchvision import models

from networks.dilated import CAFFE_MEAN, DilatedResNet, build_trunk
from networks.normalisation import normalise
from networks.resnet import ResNetStages
from tests.utils.inference.test_folding import lived


def convolutions(stage):
    """(kernel, stride, dilation, padding) of the convolutions, shortcuts left out."""
    return [
        (conv.kernel_size[0], conv.stride[0], conv.dilation[0], conv.padding[0])
        for name, conv in stage.named_modules()
        if isinstance(conv, nn.Conv2d) and "downsample" not in name
    ]


def test_torchvisions_kind_is_what_torchvisions_own_argument_makes():
    ours = build_trunk("resnet50")
    theirs = models.resnet50(replace_stride_with_dilation=[False, True, True])
    for name in ("layer1", "layer2", "layer3", "layer4"):
        assert convolutions(getattr(ours, name)) == convolutions(getattr(theirs, name))
    assert not ours.maxpool.ceil_mode


def test_the_caffe_kind_is_as_published():
    trunk = build_trunk("resnet50", "caffe")
    assert convolutions(trunk.layer2)[:3] == [(1, 2, 1, 0), (3, 1, 1, 1), (1, 1, 1, 0)]
    assert set(convolutions(trunk.layer3)) == {(1, 1, 1, 0), (3, 1, 2, 2)}
    assert set(convolutions(trunk.layer4)) == {(1, 1, 1, 0), (3, 1, 4, 4)}
    strides = [getattr(trunk, f"layer{i}")[0].downsample[0].stride[0] for i in (1, 2, 3, 4)]
    assert strides == [1, 2, 1, 1]
    assert trunk.maxpool.ceil_mode


def undilated(name, kind):
    """The network before its strides were taken out."""
    network = ResNetStages(name)
    if kind == "caffe":
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        network.maxpool.ceil_mode = True
    return network


@torch.no_grad()
@pytest.mark.parametrize("kind", ["torchvision", "caffe"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_at_the_old_positions_values_are_those_of_the_undilated_network(name, kind):
    plain = lived(undilated(name, kind)).double()
    trunk = DilatedResNet(name, kind).double().eval()
    trunk.load_state_dict(plain.state_dict())
    if kind == "caffe":  # the plain one does not convert its input
        trunk.as_trained.scale.fill_(1)
        trunk.as_trained.shift.zero_()
    images = torch.randn(1, 3, 128, 96, dtype=torch.float64)
    expected4 = plain.stem_to_4(images if kind == "torchvision" else images.flip(1))
    x4 = trunk.stem_to_4(images)
    x5 = trunk.stage5(x4)
    size = (16, 12) if kind == "torchvision" else (17, 13)  # the stem's pooling keeps the rest
    assert x4.shape == (1, trunk.channels[0], *size) and x5.shape == (1, trunk.channels[1], *size)
    torch.testing.assert_close(x4[..., ::2, ::2], expected4)
    expected5 = plain.stage5(expected4)
    torch.testing.assert_close(x5[..., ::4, ::4], expected5)


def test_the_caffe_kind_sees_bgr_less_the_mean():
    image = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    trunk = build_trunk("resnet18", "caffe")
    seen = []
    trunk.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trunk.stem_to_4(normalise(image))
    expected = image.flip(1) - torch.tensor(CAFFE_MEAN).view(3, 1, 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-3)


def test_from_scratch_statistics_learn_and_residual_branches_start_at_zero():
    trunk = build_trunk("resnet50", "caffe").train()
    assert not trunk.layer3[0].bn3.weight.any() and trunk.bn1.training
    trunk.freeze_statistics()
    assert not trunk.train().bn1.training and trunk.bn1.weight.requires_grad


@pytest.mark.parametrize(
    "given, message",
    [
        (("vgg16",), "resnet50"),
        (("resnet50", "onnx"), "torchvision, caffe"),
        (("resnet50", "torchvision", "coco"), "imagenet or none"),
        (("resnet50", "caffe", "imagenet"), "give caffe a file"),
    ],
)
def test_what_cannot_be_built(given, message):
    with pytest.raises(ValueError, match=message):
        build_trunk(*given)
