import pickle
import sys

import numpy as np
import pytest
import torch

from datasets.files import InputError
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from tests.golden_files import (
    filled_classifier_state,
    golden,
    published_classifier_state,
    published_scn_state,
)
from utils import checkpoints


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_released_scn_loads(tmp_path):
    """A bare state dict whose names begin with `module.`; it takes ImageNet-normalised images."""
    state = published_scn_state()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "scn.pth")
    scn = SuperpixelNet()
    scn.expect_bsds_normalisation()  # of a file loaded before
    checkpoints.load_scn(scn, tmp_path / "scn.pth")
    data = golden("scn_forward")
    with torch.no_grad():
        q = scn.eval()(data["image"])
    torch.testing.assert_close(q, data["q"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_bsds500_scn_converts_its_input(tmp_path, zipped):
    """A dict with `state_dict` and other values, in torch's old and new file format."""
    content = {"epoch": 3, "arch": "SpixelNet", "best_EPE": np.float64(0.3)}
    content["state_dict"] = published_scn_state()
    path = tmp_path / "SpixelNet_bsd_ckpt.tar"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    scn = SuperpixelNet()
    checkpoints.load_scn(scn, path)
    assert scn.input_scale.tolist() == pytest.approx([0.229, 0.224, 0.225])
    expected = [0.485 - 0.411, 0.456 - 0.432, 0.406 - 0.45]
    assert scn.input_shift.tolist() == pytest.approx(expected, abs=1e-6)


def test_our_scn_keeps_its_normalisation(tmp_path):
    one, two = SuperpixelNet(), SuperpixelNet()
    one.expect_bsds_normalisation()
    checkpoints.save(tmp_path / "last.pt", {"kind": "scn", "model": one.state_dict()})
    checkpoints.load_scn(two, tmp_path / "last.pt")
    assert same(two, one.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_published_classifier_loads(tmp_path, monkeypatch, prefix):
    state = {prefix + name: value for name, value in published_classifier_state().items()}
    torch.save(state, tmp_path / "cls.pth")
    model = Classifier(build_backbone("resnet50"), 21)
    checkpoints.load_classifier(model, tmp_path / "cls.pth")
    assert same(model, filled_classifier_state())
    torch.save(published_scn_state(), tmp_path / "scn.pth")
    monkeypatch.setattr("utils.checkpoints.trained.SHIPPED", tmp_path / "scn.pth")
    shipped = checkpoints.open_trained(tmp_path / "cls.pth").scn
    assert same(
        shipped,
        checkpoints.open_trained(tmp_path / "cls.pth", tmp_path / "scn.pth").scn.state_dict(),
    )
    trained = checkpoints.open_trained(tmp_path / "cls.pth", tmp_path / "scn.pth")
    assert same(trained.classifier, filled_classifier_state())


def write_classifier(path, backbone="resnet18", classes=3, dcr=True):
    model = Classifier(build_backbone(backbone), classes + 1, dcr=dcr)
    content = {
        "kind": "classifier",
        "backbone": backbone,
        "dcr": dcr,
        "classes": [f"class {k}" for k in range(classes)],
        "threshold": 0.3,
        "model": model.state_dict(),
        "scn": SuperpixelNet().state_dict(),
    }
    checkpoints.save(path, content)
    return model


@pytest.mark.parametrize("dcr", [True, False])
def test_our_classifier_opens_without_any_option(tmp_path, dcr):
    model = write_classifier(tmp_path / "best.pt", dcr=dcr)
    trained = checkpoints.open_trained(tmp_path / "best.pt")
    assert same(trained.classifier, model.state_dict())
    assert trained.classes == ("class 0", "class 1", "class 2") and trained.threshold == 0.3
    assert not trained.classifier.training and not trained.scn.training


@torch.no_grad()
def test_a_classifier_with_a_backbone_of_timm_opens(tmp_path, monkeypatch):
    """Under its whole name, tag and all; without timm, the file and the package are named."""
    pytest.importorskip("timm")
    name = "timm:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    model = write_classifier(tmp_path / "best.pt", backbone=name).eval()
    trained = checkpoints.open_trained(tmp_path / "best.pt")
    assert same(trained.classifier, model.state_dict())
    assert trained.classifier.backbone.name == name
    images, q = torch.randn(1, 3, 32, 48), torch.softmax(torch.randn(1, 9, 32, 48), 1)
    assert torch.equal(trained.classifier(images, q)[0], model(images, q)[0])
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"best\.pt: timm:NAME needs .* pip install timm"):
        checkpoints.open_trained(tmp_path / "best.pt")


@pytest.mark.parametrize("stage", ["classifier", "segmentation"])
def test_a_small_file_that_names_a_huge_network_is_refused_before_it_is_built(
    tmp_path, monkeypatch, stage
):
    timm, path = pytest.importorskip("timm"), tmp_path / "best.pt"
    make = timm.create_model

    def only_a_sketch(*given, **options):
        assert torch.empty(0).is_meta
        return make(*given, **options)

    monkeypatch.setattr(timm, "create_model", only_a_sketch)
    model = {"classifier.weight": torch.ones(4, 8, 1, 1), "head.branches.0.bias": torch.ones(4)}
    about = {"trunk": "torchvision", "stride": 16}
    name = "timm:eva02_enormous_patch14_clip_224"
    checkpoints.save(path, {"kind": stage, "backbone": name, **about, "model": model})
    opened = {"classifier": checkpoints.open_trained, "segmentation": checkpoints.open_deeplab}
    with pytest.raises(InputError, match=r"best\.pt: names a network of \d{10} weights, but has"):
        opened[stage](path)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_files_of_timm_load(tmp_path, name, ending):
    """Whole networks, as the hub has them; what belongs to no part stays out."""
    timm = pytest.importorskip("timm")
    whole, path = timm.create_model(name), tmp_path / f"model.{ending}"
    if ending == "pth":
        torch.save(whole.state_dict(), path)
    else:
        pytest.importorskip("safetensors.torch").save_file(whole.state_dict(), path)
    backbone = build_backbone(f"timm:{name}")
    checkpoints.load_backbone(backbone, path)
    assert backbone.frozen_statistics
    assert same(backbone, backbone.from_published(whole.state_dict()))
    first = next(whole.parameters())
    assert any(torch.equal(first, value) for value in backbone.parameters())


def test_the_authors_file_of_dinov2_loads(tmp_path):
    """It names registers otherwise, and holds a token for masks; timm knows how to read it."""
    timm = pytest.importorskip("timm")
    whole = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=518, num_classes=0)
    state = whole.state_dict()
    width, patches = whole.embed_dim, whole.pos_embed.shape[1]
    theirs = {name.replace("reg_token", "register_tokens"): v for name, v in state.items()}
    theirs["mask_token"] = torch.zeros(1, width)
    theirs["pos_embed"] = torch.randn(1, patches + 1, width)
    torch.save(theirs, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    backbone = build_backbone("timm:vit_small_patch14_reg4_dinov2")
    checkpoints.load_backbone(backbone, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    last = whole.blocks[-1].mlp.fc2.weight
    assert torch.equal(backbone.network.blocks[-1].mlp.fc2.weight, last)
    assert torch.equal(backbone.network.pos_embed, theirs["pos_embed"][:, 1:])


def test_another_network_of_timm_is_refused(tmp_path):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "file.pth")
    for name in ("resnet14t", "vit_tiny_patch16_224", "convnext_atto"):
        with pytest.raises(InputError, match=f"file.pth: not the weights of timm:{name}"):
            checkpoints.load_backbone(build_backbone(f"timm:{name}"), tmp_path / "file.pth")


def test_safetensors_that_are_damaged_or_cannot_be_read(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x20\0\0\0\0\0\0\0{")
    with pytest.raises(InputError, match=r"model\.safetensors: truncated, or not a checkpoint"):
        checkpoints.read(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InputError, match="pip install safetensors"):
        checkpoints.read(path)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_files_load_and_freeze_the_statistics(tmp_path, name):
    """Old releases of torchvision's files (resnet50-19c8e375.pth) hold no num_batches_tracked."""
    backbone = build_backbone(name)
    state = {k: v for k, v in backbone.state_dict().items() if "num_batches" not in k}
    state = {k: torch.randn_like(v) for k, v in state.items()}
    features = backbone.channels[1]
    state |= {"fc.weight": torch.zeros(1000, features), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    checkpoints.load_backbone(backbone, tmp_path / "file.pth")
    assert torch.equal(backbone.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    assert backbone.frozen_statistics and not backbone.train().bn1.training


def test_another_number_of_classes(tmp_path):
    write_classifier(tmp_path / "best.pt", classes=3)
    model = Classifier(build_backbone("resnet18"), 6)
    with pytest.raises(InputError, match=r"best\.pt: trained for 4 classes .* has 6"):
        checkpoints.load_classifier(model, tmp_path / "best.pt")


@pytest.mark.parametrize("other", ["resnet34", "resnet50"])
def test_another_backbone(tmp_path, other):
    write_classifier(tmp_path / "best.pt")
    model = Classifier(build_backbone(other), 4)
    with pytest.raises(InputError, match=rf"best\.pt: .*backbone {other}"):
        checkpoints.load_classifier(model, tmp_path / "best.pt")


def test_a_superpixel_network_is_no_classifier_and_the_other_way_round(tmp_path):
    write_classifier(tmp_path / "cls.pt")
    checkpoints.save(tmp_path / "scn.pt", {"kind": "scn", "model": SuperpixelNet().state_dict()})
    with pytest.raises(InputError, match="a superpixel network"):
        checkpoints.open_trained(tmp_path / "scn.pt")
    with pytest.raises(InputError, match="not the weights of the superpixel network"):
        checkpoints.load_scn(SuperpixelNet(), tmp_path / "cls.pt")


def test_a_training_state_is_no_network(tmp_path):
    model, path = write_classifier(tmp_path / "last.pt"), tmp_path / "training.pt"
    state = {f"classifier.{name}": value for name, value in model.state_dict().items()}
    checkpoints.save(path, {"kind": "training", "model": state})
    message = r"training\.pt: a training state, .*; name the last\.pt beside it"
    with pytest.raises(InputError, match=message):
        checkpoints.open_trained(path)
    with pytest.raises(InputError, match=message):
        checkpoints.load_classifier(model, path)
    checkpoints.save(path, {"kind": "training", "model": SuperpixelNet().state_dict()})
    with pytest.raises(InputError, match=message):
        checkpoints.open_scn(path)


def test_a_file_without_a_classifier_says_which_to_name(tmp_path):
    state = {"trunk.conv1.weight": torch.ones(1)}
    checkpoints.save(tmp_path / "last.pt", {"kind": "segmentation", "model": state})
    with pytest.raises(InputError, match=r"last\.pt: holds no .*; name a file of train_cls_image"):
        checkpoints.open_trained(tmp_path / "last.pt")


class Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_no_file_runs_code(tmp_path, writer):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    content = {"model": Malicious(mark)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"evil\.pt"):
        checkpoints.load_scn(SuperpixelNet(), path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: b"GIF89a" + d[:100]]
)
def test_damaged_files(tmp_path, damage):
    torch.save(SuperpixelNet().state_dict(), tmp_path / "scn.pt")
    path = tmp_path / "damaged.pt"
    path.write_bytes(damage((tmp_path / "scn.pt").read_bytes()))
    with pytest.raises(InputError, match=r"damaged\.pt"):
        checkpoints.load_scn(SuperpixelNet(), path)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("backbone", ["resnet18"], "'backbone' is not a name"),
        ("backbone", "resnet17", "no backbone 'resnet17'"),
        ("dcr", torch.ones(3), "'dcr' is neither true nor false"),
        ("classes", 3, "'classes' is not a list of names"),
        ("classes", ["cat", 7, "dog"], "'classes' is not a list of names"),
        ("classes", ["cat", "cat"], "'cat' appears twice"),
        ("threshold", "0.3", "'threshold' is not a number from 0 to 1"),
        ("threshold", float("nan"), "'threshold' is not a number from 0 to 1"),
        ("scn", {"conv0a.0.weight": 3}, "holds no weights"),
        ("scn", {}, "holds no weights"),
    ],
)
def test_what_a_classifier_says_of_itself_is_checked(tmp_path, key, value, message):
    path = tmp_path / "best.pt"
    write_classifier(path)
    checkpoints.save(path, {**checkpoints.read(path), key: value})
    with pytest.raises(InputError, match=rf"best\.pt: .*{message}"):
        checkpoints.open_trained(path)


@pytest.mark.parametrize(
    "change", [lambda v: v.to_sparse(), lambda v: v.to("meta")], ids=["sparse", "meta"]
)
def test_tensors_of_another_kind_are_no_weights(tmp_path, change):
    state = SuperpixelNet().state_dict()
    state["conv0a.0.weight"] = change(state["conv0a.0.weight"])
    torch.save(state, tmp_path / "scn.pt")
    with pytest.raises(InputError, match=r"scn\.pt: "):
        checkpoints.load_scn(SuperpixelNet(), tmp_path / "scn.pt")


def test_names_that_are_no_text_are_not_printed(tmp_path):
    torch.save({torch.ones(2): torch.ones(2), "epoch": 3}, tmp_path / "key.pt")
    with pytest.raises(InputError, match=r"key\.pt: holds no weights, only epoch$"):
        checkpoints.load_scn(SuperpixelNet(), tmp_path / "key.pt")


def test_files_without_weights(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    (tmp_path / "text.pt").write_text("x = 1\n")
    for name in ("list.pt", "empty.pt", "missing.pt", "text.pt"):
        with pytest.raises(InputError, match=name):
            checkpoints.load_scn(SuperpixelNet(), tmp_path / name)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoints.save(path, {"epoch": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"cannot write .*last\.pt: No space left"):
        checkpoints.save(path, {"epoch": 2})
    assert checkpoints.read(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
