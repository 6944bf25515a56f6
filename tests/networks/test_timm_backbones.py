"""Networks of timm as backbones, with random weights: nothing is fetched."""

import sys

import pytest
import torch
import torch.nn.functional as F

from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.deeplab import DeepLab, segmentation_loss
from networks.normalisation import IMAGENET_MEAN, IMAGENET_STD
from networks.timm_backbones import CONVOLUTIONAL, TRANSFORMERS, family_of
from networks.trunk import halves
from tests.utils.inference.test_folding import lived
from utils.training.classifier_options import learning_rate
from utils.training.optimisers import classifier_groups, segmentation_groups, sgd

timm = pytest.importorskip("timm")

SMALL = {
    "timm:resnet50": (1024, 2048),
    "timm:convnext_tiny": (384, 768),
    "timm:regnety_004": (208, 440),
    "timm:mobilenetv3_large_100": (112, 960),
    "timm:deit_small_patch16_224": (384, 384),
    "timm:vit_small_patch14_dinov2": (384, 384),
}
"""Networks that are looked at closely, with c4 and c5."""

ONE_OF_EACH = {
    "convnext": "convnext_atto",
    "cspnet": "cspresnet50",
    "deit": "deit_tiny_distilled_patch16_224",
    "efficientnet": "efficientnet_lite0",
    "eva": "vit_small_patch16_dinov3",
    "hardcorenas": "hardcorenas_a",
    "inception_next": "inception_next_atto",
    "mobilenetv3": "mobilenetv3_small_050",
    "nfnet": "nf_regnet_b0",
    "regnet": "regnetx_002",
    "res2net": "res2net50_14w_8s",
    "resnest": "resnest14d",
    "resnet": "resnet10t",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "sknet": "skresnet18",
    "vision_transformer": "vit_tiny_patch16_224",
}
"""A small network of every family that is said to work."""

slow = pytest.mark.slow


@pytest.fixture(scope="module", params=SMALL)
def backbone(request):
    torch.manual_seed(0)
    return build_backbone(request.param)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (33, 50)])
def test_both_parts_have_stride_16(backbone, size):
    """Rounded up, and not square."""
    x4, stage5 = backbone.eval().halves(torch.randn(1, 3, *size))
    height, width = (-(-side // 16) for side in size)
    assert backbone.channels == SMALL[backbone.name]
    assert x4.shape == (1, backbone.channels[0], height, width)
    assert stage5(x4).shape == backbone.stage5(x4).shape == (1, backbone.channels[1], height, width)


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch14_reg4_dinov2",
        "vit_xsmall_patch16_clip_224",
        pytest.param("vit_base_patch16_clip_224", marks=slow),
        pytest.param("vit_base_patch32_clip_224", marks=slow),
        pytest.param("eva02_tiny_patch14_224", marks=slow),
        pytest.param("vit_small_patch16_rope_mixed_224", marks=slow),
        pytest.param("vit_base_patch16_siglip_224", marks=slow),
    ],
)
def test_transformers_of_every_kind(name):
    """Registers, other patches, rotary embeddings of position, no class token."""
    backbone = build_backbone(f"timm:{name}").eval()
    x4, stage5 = backbone.halves(torch.randn(1, 3, 48, 80))
    assert x4.shape == stage5(x4).shape == (1, backbone.channels[0], 3, 5)


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_distilled_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        pytest.param("vit_small_patch16_dinov3", marks=slow),
        pytest.param("eva02_tiny_patch14_224", marks=slow),
        pytest.param("vit_small_patch16_rope_mixed_224", marks=slow),
        pytest.param("vit_base_patch16_siglip_224", marks=slow),
    ],
)
def test_the_parts_of_a_transformer_make_the_whole(name):
    """All tokens reach the second part, so that unchanged weights compute what they did."""
    torch.manual_seed(0)
    whole = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    for parameter, value in whole.named_parameters():
        if "gamma" in parameter:  # scales of branches begin near zero: then no token sees another
            value.fill_(1)
    backbone = build_backbone(f"timm:{name}").eval()
    backbone.load_state_dict(backbone.from_published(whole.state_dict()))
    images = torch.randn(2, 3, 48, 80)
    x4, stage5 = backbone.halves(images)
    tokens = whole.fc_norm(whole.forward_features(backbone.prepared(images)))
    patches = tokens[:, whole.num_prefix_tokens :].transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(stage5(x4), patches, rtol=1e-4, atol=1e-5)
    if whole.num_prefix_tokens:
        assert (backbone.stage5(x4) - patches).abs().max() > 1e-4


def test_patches_of_14_pixels_see_a_resized_image():
    backbone = build_backbone("timm:vit_small_patch14_dinov2")
    assert backbone.prepared(torch.randn(1, 3, 64, 100)).shape == (1, 3, 56, 98)


@torch.no_grad()
@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=slow if f != "mobilenetv3" else ()) for f in CONVOLUTIONAL]
)
def test_stages_are_what_timms_features_are(family):
    name = ONE_OF_EACH[family]
    torch.manual_seed(0)
    whole = lived(timm.create_model(name, num_classes=0))
    backbone = build_backbone(f"timm:{name}").eval()
    backbone.load_state_dict(backbone.from_published(whole.state_dict()))
    features = timm.create_model(name, features_only=True, output_stride=16).eval()
    features.load_state_dict(
        {n.replace(".", "_", 1): v for n, v in whole.state_dict().items()}
        | dict(whole.state_dict()),
        strict=False,
    )
    images = torch.randn(1, 3, 32, 48)
    expected = features(backbone.as_trained(images))[-2:]
    x4, stage5 = backbone.halves(images)
    before = x4.clone()
    assert torch.equal(stage5(x4), expected[1])
    assert torch.equal(x4, before), "affinity propagation reads x4 after stage5"
    assert torch.equal(x4, expected[0])


def test_every_family_has_a_network_here():
    assert set(ONE_OF_EACH) == {*CONVOLUTIONAL, *TRANSFORMERS}
    assert all(family_of(f"timm:{name}") == family for family, name in ONE_OF_EACH.items())


def test_every_family_can_be_a_backbone():
    """Shapes and gradients only: on the device `meta` nothing is computed."""
    for family in (*CONVOLUTIONAL, *TRANSFORMERS):
        with torch.device("meta"):
            backbone = build_backbone(f"timm:{ONE_OF_EACH[family]}")
            x4, stage5 = backbone.halves(torch.empty(2, 3, 48, 70))
            x5 = stage5(x4)
            assert x4.shape == (2, backbone.channels[0], 3, 5), family
            assert x5.shape == (2, backbone.channels[1], 3, 5), family
            x5.mean().backward()
            assert all(p.grad is not None for p in backbone.parameters()), family


@torch.no_grad()
def test_resnet50_is_torchvisions():
    """The same x4; timm dilates the last stage, so x5 differs by more than rounding."""
    torch.manual_seed(0)
    ours, timms = build_backbone("resnet50"), build_backbone("timm:resnet50")
    lived(ours)
    timms.load_state_dict(timms.from_published(ours.state_dict()))
    images = torch.randn(1, 3, 64, 96)
    x4 = timms.eval().stem_to_4(images)
    torch.testing.assert_close(x4, ours.stem_to_4(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(timms.stage5(x4), ours.stage5(x4), rtol=1e-2, atol=1e-2)
    timms.second.layer4[1].conv2.dilation = timms.second.layer4[2].conv2.dilation = (1, 1)
    for block in timms.second.layer4[1:]:
        block.conv2.padding = (1, 1)
    torch.testing.assert_close(timms.stage5(x4), ours.stage5(x4), rtol=1e-4, atol=1e-5)


def scene(size=32, batch=3):
    """Squares, red, green or blue, on noise: images, association maps, and which colour."""
    colours = torch.arange(batch) % 3
    images = 0.3 * torch.randn(batch, 3, size, size)
    for number, colour in enumerate(colours):
        images[number, colour, 4:28, 4:28] += 2
    q = torch.softmax(0.1 * torch.randn(batch, 9, size, size), 1)
    return images, q, colours


STEPS = 5


@pytest.mark.parametrize(
    "name",
    [
        "timm:regnety_004",
        "timm:deit_small_patch16_224",
        pytest.param("timm:mobilenetv3_large_100", marks=slow),
        pytest.param("timm:resnet50", marks=slow),
        pytest.param("timm:convnext_tiny", marks=slow),
        pytest.param("timm:vit_small_patch14_dinov2", marks=slow),
    ],
)
def test_a_classifier_learns_at_its_default_rate(name):
    """Gradients reach both parts, and a few steps lower the loss, from scratch."""
    torch.manual_seed(0)
    model = Classifier(build_backbone(name), 4).train()
    rate = learning_rate(name)
    optimizer = sgd(classifier_groups(model, rate, 4e-5), 4e-5, nesterov=True)
    images, q, colours = scene()
    losses = []
    for _ in range(STEPS):
        _, scores = model(images, q)
        loss = F.multilabel_soft_margin_loss(scores[:, 1:], F.one_hot(colours, 3).float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0], losses
    own = list(model.backbone.parameters())
    assert all(p.grad is not None for p in own)
    assert own[0].grad.any() and own[-1].grad.any()


@pytest.mark.parametrize(
    "name", ["timm:vit_tiny_patch16_224", pytest.param("timm:regnety_004", marks=slow)]
)
def test_a_segmentation_network_learns_at_its_default_rate(name):
    torch.manual_seed(0)
    model = DeepLab(build_backbone(name), 4).train()
    optimizer = sgd(segmentation_groups(model, 2.5e-4, 5e-4), 0.9)
    images, _, colours = scene(64)
    labels = torch.zeros(len(images), 64, 64, dtype=torch.long)
    labels[:, 4:28, 4:28] = 1 + colours[:, None, None]
    losses = []
    for _ in range(STEPS):
        loss = segmentation_loss(model(images), labels)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0], losses
    assert all(p.grad is not None for p in model.trunk.parameters())


def test_default_learning_rates():
    assert learning_rate("resnet50") == learning_rate("efficientnet_lite0") == 0.1
    assert learning_rate("timm:resnet50") == learning_rate("timm:mobilenetv3_small_050") == 0.1
    for name in (
        "convnext_atto",
        "deit_tiny_patch16_224",
        "vit_small_patch14_dinov2",
        "nf_ecaresnet26",
    ):
        assert learning_rate(f"timm:{name}") == 0.01


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k", "resnet10t.c3_in1k"])
def test_its_own_normalisation_is_part_of_it(name):
    """Images become what timm's own pipeline makes of them."""
    backbone, image = build_backbone(f"timm:{name}"), torch.rand(1, 3, 32, 48)
    config = timm.models.get_pretrained_cfg(name)
    ours = (image - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(
        3, 1, 1
    )
    theirs = (image - torch.tensor(config.mean).view(3, 1, 1)) / torch.tensor(config.std).view(
        3, 1, 1
    )
    torch.testing.assert_close(backbone.prepared(ours), theirs, rtol=1e-4, atol=1e-5)


def test_frozen_statistics_stay(monkeypatch):
    """Of timm's own kinds of batch normalisation too; `imagenet` gives timm's weights."""
    make = timm.create_model

    def pretrained(name, pretrained=False, **more):
        torch.manual_seed(7)
        return lived(make(name, **more))

    monkeypatch.setattr(timm, "create_model", pretrained)
    backbone = build_backbone("timm:mobilenetv3_small_050", "imagenet").train()
    torch.manual_seed(7)
    whole = lived(make("mobilenetv3_small_050"))
    assert torch.equal(backbone.first.conv_stem.weight, whole.conv_stem.weight)
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.stage5(backbone.stem_to_4(torch.randn(2, 3, 32, 32))).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert before["first.bn1.running_var"].std() > 0


def test_weights_that_cannot_be_fetched_are_named(monkeypatch):
    def offline(name, **_):
        raise FileNotFoundError("no connection")

    backbone = build_backbone("timm:resnet10t.c3_in1k")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(OSError, match="no connection; they are at timm/resnet10t.c3_in1k"):
        backbone.load_imagenet()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin_tiny_patch4_window7_224", "the family swin_transformer cannot be cut in two"),
        ("densenet121", "the family densenet cannot be cut in two at stride 16.*resnet, resnetv2"),
        ("no_such_net", "timm has no network 'no_such_net'"),
        ("tv_resnet50", "timm has renamed 'tv_resnet50'"),
        ("hf-hub:someone/something", "timm has no network"),
        ("local-dir:somewhere", "timm has no network"),
        ("resnet10t.nobodys", "timm has no weights 'resnet10t.nobodys'"),
    ],
)
def test_what_cannot_be_one_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(f"timm:{name}")


def test_a_network_of_a_family_that_cannot(monkeypatch):
    """Reached only by networks that timm may add: all that it has of these families can."""
    monkeypatch.setattr("networks.timm_backbones.CONVOLUTIONAL", ("densenet", "xception_aligned"))
    with pytest.raises(ValueError, match="densenet121 .* cannot be cut in two at stride 16"):
        build_backbone("timm:densenet121")
    with pytest.raises(ValueError, match="timm:xception41 cannot be cut in two at stride 16"):
        build_backbone("timm:xception41")


def test_without_timm_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    build_backbone("resnet18")
    with pytest.raises(ImportError, match="needs the optional package timm; pip install timm"):
        build_backbone("timm:resnet50")


def test_any_object_with_three_members_has_halves():
    class Tiny(torch.nn.Module):
        def stem_to_4(self, images):
            return images + 1

        def stage5(self, x4):
            return 2 * x4

    x4, stage5 = halves(Tiny(), torch.ones(1))
    assert (x4, stage5(x4)) == (2, 4)
