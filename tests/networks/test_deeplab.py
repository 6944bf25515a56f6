import math

import numpy as np
import pytest
import torch
from torch import nn

from networks.backbone import build_backbone
from networks.deeplab import (
    ASPP,
    IGNORED,
    DeepLab,
    bilinear,
    cross_entropy_sums,
    rescale,
    segmentation_loss,
)
from networks.dilated import build_trunk
from tests.utils.inference.test_folding import lived
from utils.inference.folding import fold


class Tiny(nn.Module):
    """The three members of a trunk, and next to no work."""

    channels = (4, 6)

    def __init__(self, stride=8):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, stride, padding=1), nn.Conv2d(4, 6, 1)

    def stem_to_4(self, images):
        return self.a(images)

    def stage5(self, x4):
        return self.b(x4)


def loop_loss(outputs, labels):
    """docs/method.md, section 5, pixel by pixel: one term a map."""
    terms = []
    for logits in outputs:
        batch, _, h, w = logits.shape
        height, width = labels.shape[1:]
        error, amount = 0.0, 0
        for b, y, x in np.ndindex(batch, h, w):
            label = labels[b, int((y + 0.5) * height / h), int((x + 0.5) * width / w)]
            if label != IGNORED:
                values = logits[b, :, y, x]
                error += np.log(np.exp(values).sum()) - values[label]
                amount += 1
        terms.append(error / amount if amount else 0.0)
    return terms


def maps(sizes, classes=4):
    torch.manual_seed(0)
    return [
        torch.randn(2, classes, h, w, dtype=torch.float64, requires_grad=True) for h, w in sizes
    ]


SIZES = ((6, 7), (3, 4), (5, 5), (6, 7))


def some_labels(dtype=torch.int64):
    return torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 3, 255], (2, 41, 50))).to(
        dtype
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_loss_against_a_loop_over_pixels(dtype):
    outputs, labels = maps(SIZES), some_labels(dtype)
    total, *terms = segmentation_loss(outputs, labels)
    arrays = [logits.detach().numpy() for logits in outputs]
    expected = loop_loss(arrays, labels.numpy())
    assert [term.item() for term in terms] == pytest.approx(expected)
    assert total.item() == pytest.approx(sum(expected))


def test_gradients_of_the_loss():
    outputs, labels = maps([(2, 3), (1, 2)]), some_labels()
    assert torch.autograd.gradcheck(lambda *given: segmentation_loss(given, labels)[0], outputs)


def test_parts_of_a_batch_add_up_to_the_whole():
    """As several devices or processes share one."""
    labels = some_labels()
    labels[0, :30] = 255  # so that the mean of the parts' means would be another
    outputs = maps(SIZES)
    parts = [
        cross_entropy_sums([logits[i : i + 1] for logits in outputs], labels[i : i + 1])
        for i in range(2)
    ]
    assert parts[0][1, 0] != parts[1][1, 0]
    sums, counts = sum(parts)
    torch.testing.assert_close(sums / counts, torch.stack(segmentation_loss(outputs, labels)[1:]))


def test_a_map_without_a_counting_pixel_contributes_nothing():
    outputs = maps([(4, 4), (2, 2)])
    labels = torch.full((2, 16, 16), 255)
    labels[0, 2, 2] = 1  # the centre of a pixel of the larger map (rounded down), of none else
    total, large, small = segmentation_loss(outputs, labels)
    assert small.item() == 0 and total.item() == large.item() > 0
    total.backward()
    assert outputs[0].grad.any() and not outputs[1].grad.any()
    labels.fill_(255)
    total, *_ = segmentation_loss(outputs, labels)
    total.backward()
    assert total.item() == 0 and all(torch.isfinite(logits.grad).all() for logits in outputs)


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        segmentation_loss([torch.randn(2, 4, 3, 3)], torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="do not fit"):
        segmentation_loss([torch.randn(2, 4, 3, 3)], torch.zeros(2, 1, 9, 9))


def test_training_gives_four_maps_and_evaluation_their_maximum():
    torch.manual_seed(0)
    network = DeepLab(Tiny(), 5).train()
    images = torch.randn(2, 3, 65, 97)
    full, half, most, maximum = network(images)
    assert full.shape == maximum.shape == (2, 5, 9, 13)
    assert half.shape == (2, 5, 4, 6) and most.shape == (2, 5, 6, 9)
    expected = torch.stack([full, bilinear(half, (9, 13)), bilinear(most, (9, 13))]).amax(0)
    assert torch.equal(maximum, expected)
    assert torch.equal(network.eval()(images), expected)
    assert torch.equal(network.one_scale(images), full)


def test_one_scale_is_one_map():
    network = DeepLab(Tiny(), 5, scales=(1,)).train()
    (only,) = network(torch.randn(1, 3, 16, 24))
    assert only.shape == (1, 5, 2, 3)


def test_aspp_is_the_sum_of_four_dilated_convolutions():
    torch.manual_seed(0)
    head = ASPP(64, 21)
    assert [branch.dilation[0] for branch in head.branches] == [6, 12, 18, 24]
    assert head.branches[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(branch.bias.any() for branch in head.branches)
    features = torch.randn(1, 64, 9, 9)
    torch.testing.assert_close(head(features), sum(branch(features) for branch in head.branches))


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 17), (50, 2)])
@pytest.mark.parametrize("kind", ["torchvision", "caffe"])
def test_any_size_works(size, kind):
    network = DeepLab(build_trunk("resnet18", kind), 3).eval()
    out = network(torch.randn(2, 3, *size))
    for side, length in zip(size, out.shape[2:], strict=True):
        assert length - math.ceil(side / 8) in ((0,) if kind == "torchvision" else (0, 1))
    assert torch.isfinite(out).all()
    assert len(network.train()(torch.randn(2, 3, *size))) == 4


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (33, 70)])
def test_a_trunk_of_the_classifier_works_at_stride_16(size):
    network = DeepLab(build_backbone("resnet18"), 3).eval()
    out = network(torch.randn(1, 3, *size))
    assert out.shape == (1, 3, *(math.ceil(side / 16) for side in size))


def test_scaling_keeps_pixels_as_far_apart_as_the_scale_says():
    ramp = torch.arange(97.0).expand(1, 1, 3, 97)
    half = rescale(ramp, 0.5)
    assert half.shape == (1, 1, 1, 48)
    torch.testing.assert_close(half[0, 0, 0], torch.arange(48) * 2 + 0.5)
    assert rescale(ramp, 1) is ramp
    assert rescale(torch.ones(1, 1, 1, 9), 0.5).shape == (1, 1, 1, 4)


def test_everything_learns():
    torch.manual_seed(0)
    network = DeepLab(lived(build_trunk("resnet18")), 4).train()
    labels = torch.randint(0, 4, (2, 33, 33))
    segmentation_loss(network(torch.randn(2, 3, 33, 33)), labels)[0].backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    ours = {id(p) for part in (network.trunk, network.head) for p in part.parameters()}
    assert ours == {id(p) for p in network.parameters()}


@torch.no_grad()
def test_frozen_statistics_stay_in_training():
    network = DeepLab(build_trunk("resnet18"), 3)
    network.trunk.freeze_statistics()
    before = network.trunk.bn1.running_mean.clone()
    network.train()(torch.randn(2, 3, 32, 32))
    assert torch.equal(network.trunk.bn1.running_mean, before)


@torch.no_grad()
def test_a_folded_network_agrees():
    network = lived(DeepLab(build_trunk("resnet18", "caffe"), 3))
    folded = fold(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    images = torch.randn(1, 3, 40, 56)
    one, two = folded(images), network(images)
    assert (one - two).abs().max() <= 1e-4 * two.abs().max()


@torch.no_grad()
def test_logits_are_never_below_float32():
    network = DeepLab(Tiny(), 3).eval()
    images = torch.randn(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(images).dtype == torch.float32
    assert network.double()(images.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 0, 16)])
def test_images_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        DeepLab(Tiny(), 3)(torch.zeros(shape))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"num_classes": 1}, "background"),
        ({"scales": ()}, "begin with 1"),
        ({"scales": (0.5, 1)}, "begin with 1"),
        ({"scales": (1, 0)}, "positive"),
    ],
)
def test_what_cannot_be_built(given, message):
    with pytest.raises(ValueError, match=message):
        DeepLab(Tiny(), **{"num_classes": 3, **given})
