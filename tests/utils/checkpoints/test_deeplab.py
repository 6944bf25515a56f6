import json

import pytest
import torch

from datasets.files import InputError
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.deeplab import DeepLab
from networks.dilated import build_trunk
from networks.superpixel import SuperpixelNet
from tests.golden_files import GOLDEN
from utils import checkpoints

CLASSES = ("cat", "dog")


def write_network(path, trunk="torchvision"):
    """A file as train_seg.py writes it, of a network with three classes."""
    network = DeepLab(build_trunk("resnet18", trunk), 3)
    with torch.no_grad():
        for value in network.parameters():
            value.normal_()
    content = {
        "kind": "segmentation",
        "backbone": "resnet18",
        "trunk": trunk,
        "classes": list(CLASSES),
        "model": network.state_dict(),
    }
    checkpoints.save(path, content)
    return network


def published(aspp=True):
    """Names and shapes of a published ResNet-50: those of ResNet-101 but for its 17 more blocks."""
    names = json.loads((GOLDEN / "deeplab_v2_names.json").read_text())
    more = tuple(f"base.layer4.block{i}." for i in range(7, 24))
    kept = [n for n in names if not n.startswith(more) and (aspp or "aspp" not in n)]
    torch.manual_seed(0)
    return {n: torch.randn(names[n]) if names[n] else torch.tensor(0) for n in kept}


def same(one, two):
    two = two.state_dict()
    return all(torch.equal(value, two[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("trunk", ["torchvision", "caffe"])
def test_our_files_open_as_they_say(tmp_path, trunk):
    network = write_network(tmp_path / "best.pt", trunk)
    opened = checkpoints.open_segmentation(tmp_path / "best.pt")
    assert (opened.classes, opened.backbone, opened.trunk) == (CLASSES, "resnet18", trunk)
    assert same(network, opened.network) and not opened.network.training
    images = torch.randn(1, 3, 20, 30)
    with torch.no_grad():
        result = checkpoints.open_deeplab(tmp_path / "best.pt")(images)
        assert torch.equal(result, network.eval()(images))


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_networks_with_a_trunk_of_timm_open(tmp_path, name):
    """And begin with timm's own file, or with a classifier's."""
    timm = pytest.importorskip("timm")
    network = DeepLab(build_trunk(name), 3)
    content = {"kind": "segmentation", "backbone": name, "trunk": "torchvision"}
    content |= {"stride": 16, "classes": list(CLASSES), "model": network.state_dict()}
    checkpoints.save(tmp_path / "best.pt", content)
    opened = checkpoints.open_segmentation(tmp_path / "best.pt")
    assert opened.backbone == name and same(network, opened.network)
    other = DeepLab(build_trunk(name), 3)
    torch.save(timm.create_model(name[5:]).state_dict(), tmp_path / "model.pth")
    assert not checkpoints.load_trunk(other, tmp_path / "model.pth")
    classifier = Classifier(network.trunk, 3)
    content = {"kind": "classifier", "backbone": name, "model": classifier.state_dict()}
    checkpoints.save(tmp_path / "cls.pt", content)
    assert not same(network.trunk, other.trunk)
    assert not checkpoints.load_trunk(other, tmp_path / "cls.pt")
    assert same(network.trunk, other.trunk)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["base.", "module.base.", "scale.", "module.scale.base.", ""])
def test_published_networks_open(tmp_path, prefix):
    state = published()
    renamed = {prefix + n.removeprefix("base."): value for n, value in state.items()}
    torch.save(renamed if prefix else {"state_dict": renamed, "epoch": 3}, tmp_path / "file.pth")
    opened = checkpoints.open_segmentation(tmp_path / "file.pth")
    assert (opened.backbone, opened.trunk) == ("resnet50", "caffe")
    assert opened.classes is None and opened.network.num_classes == 21
    trunk, head = opened.network.trunk, opened.network.head
    expected = {
        "base.layer1.conv1.conv.weight": trunk.conv1.weight,
        "base.layer1.conv1.bn.running_var": trunk.bn1.running_var,
        "base.layer4.block6.reduce.bn.bias": trunk.layer3[5].bn1.bias,
        "base.layer5.block2.conv3x3.conv.weight": trunk.layer4[1].conv2.weight,
        "base.layer2.block1.increase.conv.weight": trunk.layer1[0].conv3.weight,
        "base.layer3.block1.shortcut.conv.weight": trunk.layer2[0].downsample[0].weight,
        "base.layer3.block1.shortcut.bn.running_mean": trunk.layer2[0].downsample[1].running_mean,
        "base.aspp.c2.bias": head.branches[2].bias,
    }
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert trunk.frozen_statistics


def test_beginning_with_a_published_initialisation(tmp_path):
    state = {n.removeprefix("base."): value for n, value in published(aspp=False).items()}
    torch.save(state, tmp_path / "init.pth")
    assert checkpoints.trunk_kind(tmp_path / "init.pth") == "caffe"
    model = DeepLab(build_trunk("resnet50", "caffe"), 21)
    before = model.head.branches[0].weight.clone()
    assert not checkpoints.load_trunk(model, tmp_path / "init.pth")
    assert torch.equal(model.trunk.conv1.weight, state["layer1.conv1.conv.weight"])
    assert torch.equal(model.head.branches[0].weight, before)
    assert not model.train().trunk.bn1.training
    with pytest.raises(InputError, match=r"init\.pth: holds no segmentation network"):
        checkpoints.open_deeplab(tmp_path / "init.pth")


@pytest.mark.parametrize("build", [build_trunk, build_backbone])
def test_beginning_with_torchvisions_file(tmp_path, build):
    """fc is left out; old files hold no num_batches_tracked."""
    state = {k: v for k, v in build("resnet18").state_dict().items() if "num_batches" not in k}
    state = {k: torch.randn_like(v) for k, v in state.items()}
    file = {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(file, tmp_path / "resnet18.pth")
    assert checkpoints.trunk_kind(tmp_path / "resnet18.pth") == "torchvision"
    model = DeepLab(build("resnet18"), 3)
    assert not checkpoints.load_trunk(model, tmp_path / "resnet18.pth")
    assert torch.equal(model.trunk.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert model.trunk.frozen_statistics


@pytest.mark.parametrize("classes, fits", [(3, True), (4, False)])
def test_beginning_with_a_whole_network(tmp_path, classes, fits):
    """The head comes along where it is for as many classes."""
    network = write_network(tmp_path / "best.pt")
    model = DeepLab(build_trunk("resnet18"), classes)
    assert checkpoints.load_trunk(model, tmp_path / "best.pt") == fits
    assert same(network.trunk, model.trunk) and (not fits or same(network.head, model.head))


def test_another_kind_or_resnet_is_refused(tmp_path):
    write_network(tmp_path / "best.pt", "caffe")
    with pytest.raises(InputError, match=r"best\.pt: .* caffe kind, .* torchvision kind"):
        checkpoints.load_trunk(DeepLab(build_trunk("resnet18"), 3), tmp_path / "best.pt")
    named = "holds the backbone 'resnet18', not resnet34; name that with --backbone"
    with pytest.raises(InputError, match=rf"best\.pt: {named}"):
        checkpoints.load_trunk(DeepLab(build_trunk("resnet34", "caffe"), 3), tmp_path / "best.pt")


def test_a_classifier_of_another_backbone_is_refused(tmp_path):
    """By the name in its file; without one, by its weights."""
    model = Classifier(build_backbone("resnet18"), 4).state_dict()
    content = {"kind": "classifier", "model": model, "backbone": "resnet18"}
    torch.save(content, tmp_path / "named.pt")
    torch.save(content | {"backbone": None}, tmp_path / "silent.pt")
    for name, said in (
        ("named", "the backbone 'resnet18', not "),
        ("silent", "not the weights of "),
    ):
        for other in ("resnet34", "efficientnet_lite0"):
            with pytest.raises(InputError, match=rf"{name}\.pt: .*{said}{other}"):
                checkpoints.load_trunk(DeepLab(build_trunk(other), 4), tmp_path / f"{name}.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("backbone", "vgg16", "'backbone' is not one of resnet18, .*resnet101"),
        ("backbone", ["resnet18"], "'backbone' is not one of"),
        ("backbone", "timm:" + "x" * 999, "'stride' is not one that timm:x{75} has"),
        ("trunk", "onnx", "'trunk' is not one of torchvision, caffe"),
        ("head", "v3", "of another head than DeepLab-V2's"),
        ("classes", ["cat", 7], "'classes' is not a list of names"),
        ("classes", ["cat", "dog", "cow"], "names 3 classes, but its head has 2"),
        ("backbone", "resnet34", "not the weights of resnet34 of the torchvision kind"),
        ("model", {}, "holds no weights"),
        ("kind", "scn", "of another stage; name a file of train_seg.py"),
        ("kind", "training", "training state, which only --resume takes; name the last.pt beside"),
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path, key, value, message):
    path = tmp_path / "best.pt"
    write_network(path)
    checkpoints.save(path, {**checkpoints.read(path), key: value})
    with pytest.raises(InputError, match=rf"best\.pt: .*{message}") as error:
        checkpoints.open_deeplab(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: s.pop("base.layer3.block2.reduce.conv.weight"),
            "lacks 1, such as trunk.layer2",
        ),
        (lambda s: s.update({"base.layer9.conv": torch.ones(1)}), "1 others, such as layer9.conv"),
        (lambda s: s.update({"base.layer4.block7.reduce.bn.bias": torch.ones(1)}), "7 blocks"),
        (lambda s: s.update({"base.aspp.c0.bias": torch.ones(1).expand(10**9)}), "1000000000 cl"),
        (lambda s: s.update({"base.aspp.c1.bias": torch.ones(20)}), r"is \(20,\), but .* \(21,\)"),
    ],
)
def test_published_files_that_do_not_fit(tmp_path, change, message):
    state = published()
    change(state)
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(InputError, match=rf"file\.pth: .*{message}") as error:
        checkpoints.open_deeplab(tmp_path / "file.pth")
    assert "\n" not in str(error.value)


def test_a_training_state_is_named_as_such(tmp_path):
    """It is a file of train_seg.py too: being told to name one would lead nowhere."""
    model = write_network(tmp_path / "training.pt")
    checkpoints.save(tmp_path / "training.pt", {"kind": "training", "model": model.state_dict()})
    message = r"training\.pt: a training state, .*; name the last\.pt beside it"
    with pytest.raises(InputError, match=message):
        checkpoints.open_segmentation(tmp_path / "training.pt")
    with pytest.raises(InputError, match=message):
        checkpoints.load_trunk(model, tmp_path / "training.pt")


def test_a_file_of_another_stage_is_answered_alike_for_every_backbone(tmp_path):
    checkpoints.save(tmp_path / "scn.pt", {"kind": "scn", "model": SuperpixelNet().state_dict()})
    with pytest.raises(InputError, match=r"scn\.pt: of another .* train_seg\.py") as error:
        checkpoints.open_segmentation(tmp_path / "scn.pt")
    assert "ResNet" not in str(error.value)


def test_another_network_is_refused(tmp_path):
    torch.save(SuperpixelNet().state_dict(), tmp_path / "scn.pth")
    with pytest.raises(InputError, match=r"scn\.pth: holds no segmentation network"):
        checkpoints.open_deeplab(tmp_path / "scn.pth")
    with pytest.raises(InputError, match=r"scn\.pth: not the weights of resnet18"):
        checkpoints.load_trunk(DeepLab(build_trunk("resnet18"), 3), tmp_path / "scn.pth")
