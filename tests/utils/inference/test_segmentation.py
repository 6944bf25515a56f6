import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from networks.deeplab import DeepLab
from networks.dilated import build_trunk
from networks.normalisation import normalise
from utils.checkpoints import open_deeplab, save
from utils.inference.folding import fold
from utils.inference.segmentation import allowed_classes, segment, segment_file


@pytest.fixture(scope="module", params=["torchvision", "caffe"])
def network(request):
    torch.manual_seed(0)
    trunk = build_trunk("resnet18", request.param)
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 1)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return DeepLab(trunk, 5).eval()


def photograph(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def as_tensor(image):
    return normalise(torch.from_numpy(image).permute(2, 0, 1))


@torch.no_grad()
def test_views_are_averaged_as_a_loop_would(network):
    image = as_tensor(photograph(45, 70))
    expected = []
    for size in ((45, 70), (22, 35)):
        view = image[None]
        if size != (45, 70):
            view = F.interpolate(view, size=size, mode="bilinear", align_corners=False)
        for mirrored in (False, True):
            logits = network(view.flip(3) if mirrored else view)
            logits = F.interpolate(logits, size=(45, 70), mode="bilinear", align_corners=False)
            p = logits.softmax(1)[0]
            expected.append(p.flip(2) if mirrored else p)
    found = segment(image, network, (1, 0.5), flip=True)
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-5)
    plain = segment(image, network)
    torch.testing.assert_close(plain, expected[0], rtol=1e-4, atol=1e-5)
    assert (plain - found).abs().max() > 1e-4
    torch.testing.assert_close(found.sum(0), torch.ones(45, 70))


def test_precision_is_that_of_the_network(network):
    image = as_tensor(photograph(45, 70))
    found = segment(image.double(), copy.deepcopy(network).double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), segment(image, network), atol=1e-4, rtol=0)


def test_folding_alters_nothing_but_rounding(network):
    image = as_tensor(photograph(50, 61))
    folded = fold(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(segment(image, folded), segment(image, network), atol=1e-5, rtol=0)


def test_a_file_from_python(network, tmp_path):
    path = tmp_path / "seg.pt"
    described = {"backbone": "resnet18", "trunk": network.trunk.kind}
    classes = ["a", "b", "c", "d"]
    content = {"kind": "segmentation", **described, "classes": classes}
    save(path, {**content, "model": network.state_dict()})
    image = photograph(33, 57)
    Image.fromarray(image).save(tmp_path / "dog.png")
    mask = segment_file(tmp_path / "dog.png", open_deeplab(path))
    assert mask.shape == (33, 57) and mask.dtype == np.uint8
    expected = segment(as_tensor(image), network).argmax(0).numpy()
    assert (mask == expected).all() and len(np.unique(mask)) > 1
    small = segment_file(tmp_path / "dog.png", open_deeplab(path), max_side=30)
    assert small.shape == (33, 57) and 0.5 < (small == mask).mean() < 1
    save(path, {**content, "max_side": 30, "model": network.state_dict()})
    again = segment_file(tmp_path / "dog.png", open_deeplab(path))
    assert (again == small).all(), "the checkpoint's limit"
    assert (segment_file(tmp_path / "dog.png", open_deeplab(path), max_side=0) == mask).all()


def test_allowed_classes():
    assert allowed_classes(None, 4).tolist() == [0, 1, 2, 3]
    assert allowed_classes(torch.tensor([0, 1, 1]), 4).tolist() == [0, 2, 3]
    assert allowed_classes(torch.zeros(3, dtype=torch.uint8), 4).tolist() == [0]


def test_wrong_shapes_are_refused(network):
    with pytest.raises(ValueError, match="image must be"):
        segment(torch.zeros(1, 3, 8, 8), network)
    with pytest.raises(ValueError, match="must be normalised, got torch.uint8"):
        segment(torch.zeros(3, 8, 8, dtype=torch.uint8), network)
    for scales in ((), (0,), (1, -1)):
        with pytest.raises(ValueError, match="scales must be above 0, and at least one"):
            segment(torch.zeros(3, 8, 8), network, scales)
