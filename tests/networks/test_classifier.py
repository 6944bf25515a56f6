import pytest
import torch
from torch import nn

from networks.backbone import build_backbone
from networks.classifier import Classifier, cam
from networks.trunk import Backbone


def inputs(size=(32, 48), batch=2):
    torch.manual_seed(0)
    return torch.randn(batch, 3, *size), torch.softmax(torch.randn(batch, 9, *size), 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("dcr", [True, False])
def test_shapes(name, dcr):
    model = Classifier(build_backbone(name), 5, dcr=dcr)
    logits, scores = model(*inputs(), beta=2)
    assert logits.shape == (2, 5, 2, 3) and scores.shape == (2, 5)


def test_parts_of_the_method_are_detached_where_it_says_so():
    """Kernels and the gate of level 5 do not shape the backbone; the gate of level 4 does."""
    model = Classifier(build_backbone("resnet18"), 4).eval()
    features = torch.randn(1, 256, 2, 2, requires_grad=True)
    kernels = model.dcr.kernels4(features, torch.randn(1, 128, 2, 2))
    kernels[:, 4].sum().backward()
    assert features.grad is None
    model.dcr.gate4(features).sum().backward()
    assert features.grad is not None


def test_kernels_start_at_their_own_position_and_can_leave_it():
    """Most weight at the centre, other weights differ between positions, gates are open."""
    torch.manual_seed(0)
    model = Classifier(build_backbone("resnet18"), 4).eval()
    features = torch.randn(2, 256, 6, 6).relu()
    kernels = model.dcr.kernels4(features, torch.randn(2, 128, 6, 6))
    assert 0.5 < kernels[:, 4].mean() < 0.85
    assert kernels.std((2, 3)).min() > 1e-3
    assert model.dcr.gate4(features).mean() > 0.6


def test_kernels_and_gates_learn():
    model = Classifier(build_backbone("resnet18"), 4)
    logits, scores = model(*inputs((64, 64)), beta=1)
    (logits.square().mean() + scores.square().mean()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # From scratch residual branches end in a scale of zero: what lies before gets none at first.
    assert [n for n in missing if not n.startswith("backbone.")] == []


def test_plain_cam_scores_are_means_of_its_logits():
    model = Classifier(build_backbone("resnet18"), 4, dcr=False).eval()
    logits, scores = model(*inputs())
    torch.testing.assert_close(scores, logits.mean((2, 3)))


def test_any_object_with_three_members_can_be_the_backbone():
    class Tiny(nn.Module):
        channels = (32, 48)

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 32, 16, stride=16), nn.Conv2d(32, 48, 1)

        def stem_to_4(self, images):
            return self.a(images)

        def stage5(self, x4):
            return self.b(x4)

    logits, scores = Classifier(Tiny(), 3)(*inputs(), beta=1)
    assert logits.shape == (2, 3, 2, 3) and scores.shape == (2, 3)


def test_statistics_are_frozen_only_with_pretrained_weights():
    backbone = build_backbone("resnet18")
    before = backbone.bn1.running_mean.clone()
    backbone.train().stem_to_4(torch.randn(2, 3, 32, 32))
    assert not torch.equal(backbone.bn1.running_mean, before)
    backbone.freeze_statistics()
    before = backbone.bn1.running_mean.clone()
    model = Classifier(backbone, 3).train()
    model(*inputs())
    assert torch.equal(backbone.bn1.running_mean, before)
    assert backbone.bn1.weight.requires_grad
    assert model.dcr.embed[0][1].training


def test_the_last_stage_keeps_its_stride():
    backbone = build_backbone("resnet50")
    x4 = backbone.stem_to_4(torch.randn(1, 3, 64, 96))
    assert x4.shape == (1, 1024, 4, 6)
    assert backbone.stage5(x4).shape == (1, 2048, 4, 6)
    assert all(m.dilation == (1, 1) for m in backbone.modules() if isinstance(m, nn.Conv2d))


def test_from_scratch_residual_branches_start_at_zero():
    assert not build_backbone("resnet50").layer1[0].bn3.weight.any()


@pytest.mark.parametrize("dcr", [True, False])
def test_shapes_that_do_not_fit(dcr):
    model = Classifier(build_backbone("resnet18"), 4, dcr=dcr)
    images, q = inputs()
    for bad_images, bad_q in (
        *((images[..., :40], q[..., :40]), (images[:, :1], q)),
        *((images, q[:1]), (images, q[:, :8])),
    ):
        with pytest.raises(ValueError, match="16 h|does not fit"):
            model(bad_images, bad_q)
    with pytest.raises(ValueError, match=r"\(B, K, h, w\)"):
        cam(torch.randn(3, 4, 4))


class Own(torch.nn.Module):
    """A backbone that has the three members and nothing else."""

    channels = (6, 8)

    def __init__(self, stride):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 6, stride, stride), torch.nn.Conv2d(6, 8, 1)

    def stem_to_4(self, images):
        return self.first(images)

    def stage5(self, x4):
        return self.second(x4)


@pytest.mark.parametrize("dcr", [True, False])
def test_a_narrow_backbone_of_ones_own(dcr):
    images, q = inputs()
    logits, scores = Classifier(Own(16), 4, dcr=dcr)(images, q)
    assert logits.shape == (2, 4, 2, 3) and scores.shape == (2, 4)
    with pytest.raises(ValueError, match="not at stride 16"):
        Classifier(Own(8), 4, dcr=dcr)(images, q)


def test_a_backbone_that_nobody_has_published():
    class Unpublished(Backbone):
        name = "unpublished"

    backbone = Unpublished()
    with pytest.raises(ValueError, match="unpublished has no published ImageNet weights"):
        backbone.load_imagenet()
    weights = {"a": torch.ones(1)}
    assert backbone.from_published(weights) == weights


@torch.no_grad()
def test_double_precision_stays_double_and_half_is_raised():
    model = Classifier(build_backbone("resnet18"), 4).eval()
    images, q = inputs()
    single = model(images, q, 2)
    double = model.double()(images.double(), q.double(), 2)
    assert double[0].dtype == double[1].dtype == torch.float64
    torch.testing.assert_close(single[0], double[0].float(), rtol=1e-3, atol=1e-4)
    half = model.bfloat16()(images.bfloat16(), q, 2)
    assert half[0].dtype == torch.float32 and torch.isfinite(half[0]).all()


def test_what_cannot_be_built():
    with pytest.raises(ValueError, match="resnet50"):
        build_backbone("vgg16")
    with pytest.raises(ValueError, match="imagenet or none"):
        build_backbone("resnet18", "imagenet1k")
    with pytest.raises(ValueError, match="background"):
        Classifier(build_backbone("resnet18"), 1)


def test_cam_is_scaled_to_each_class():
    logits = torch.tensor([[[[2.0, 1.0, -3.0]], [[-1.0, -2.0, -3.0]]]])
    out = cam(logits)
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([1.0, 0.5, 0.0]), rtol=1e-4, atol=1e-4)
    assert not out[0, 1].any()
