import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from networks.association import upsample
from networks.backbone import build_backbone
from networks.classifier import Classifier, cam
from networks.superpixel import SuperpixelNet
from tests.golden_files import filled_classifier_state, golden, published_scn_state
from utils.inference.cams import (
    InferenceSettings,
    infer,
    infer_batch,
    predict_labels,
    round_up,
    views,
)
from utils.inference.label_maps import label_map
from utils.inference.photographed import shrink


@pytest.fixture(scope="module")
def networks():
    """The golden weights in both networks."""
    classifier = Classifier(build_backbone("resnet50"), 21).eval()
    classifier.load_state_dict(filled_classifier_state())
    scn = SuperpixelNet().eval()
    scn.load_state_dict(scn.state_dict() | published_scn_state())
    return classifier, scn


@pytest.fixture(scope="module")
def small_networks():
    torch.manual_seed(0)
    return Classifier(build_backbone("resnet18"), 4).eval(), SuperpixelNet().eval()


def test_inference_against_the_golden_cams(networks):
    data = golden("inference")
    cams = infer(
        data["image"],
        data["labels"],
        *networks,
        beta=int(data["beta"]),
        gamma=float(data["gamma"]),
    )
    classes = data["classes"]
    assert (cams[data["labels"] == 0] == 0).all()
    torch.testing.assert_close(cams[classes], data["cams"].float(), rtol=0, atol=5e-3)
    for threshold in ("0.3", "0.6", "0.85"):
        labels = label_map(classes.numpy(), cams[classes].numpy(), float(threshold))
        assert (labels == data[f"label_{threshold}"].numpy()).mean() >= 0.999


@torch.no_grad()
def step_by_step(image, labels, classifier, scn, scales, flip, beta, gamma):
    """docs/method.md, section 3, one view after the other, all classes kept to the end."""

    def sized(x, height, width):
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)

    def sixteens(length):
        return next(n for n in range(16, 10_000, 16) if n >= length)

    height, width = image.shape[1:]
    total = torch.zeros(1, len(labels) + 1, sixteens(height), sixteens(width))
    for scale in scales:
        h, w = round(height * scale), round(width * scale)
        full = sixteens(h), sixteens(w)
        for mirrored in (False, True)[: 1 + flip]:
            for_scn = sized(image[None], *full)
            for_classifier = sized(sized(image[None], h, w), *full)
            if mirrored:
                for_scn, for_classifier = for_scn.flip(3), for_classifier.flip(3)
            q = scn(for_scn)
            logits = sized(
                upsample(classifier(for_classifier, q, beta, gamma)[0], q), *total.shape[2:]
            )
            total += logits.flip(3) if mirrored else logits
    return sized(cam(total[:, 1:]) * labels.view(1, -1, 1, 1), height, width)[0]


@pytest.mark.parametrize(
    ("scales", "flip", "beta"),
    [((1.0,), False, 0), ((1.0,), True, 0), ((0.5, 1.3), False, 3), ((0.7, 1, 1.5), True, 3)],
)
def test_inference_step_by_step(small_networks, scales, flip, beta):
    """A training's validation, for one, infers at a single scale without mirroring."""
    image, labels = torch.randn(3, 45, 70), torch.tensor([1, 0, 1])
    options = {"scales": scales, "flip": flip, "beta": beta, "gamma": 0.5}
    expected = step_by_step(image, labels, *small_networks, **options)
    found = infer(image, labels, *small_networks, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    other = infer(image, labels, *small_networks, **{**options, "flip": not flip})
    assert not torch.allclose(other, expected, atol=0.01)


@pytest.mark.parametrize("size", [(1, 1), (7, 50), (16, 16), (33, 47)])
def test_any_size(small_networks, size):
    cams = infer(torch.randn(3, *size), torch.tensor([1, 0, 1]), *small_networks)
    assert cams.shape == (3, *size)
    assert torch.isfinite(cams).all() and cams.min() >= 0 and cams.max() <= 1
    assert (cams[1] == 0).all()


def test_cams_do_not_depend_on_the_other_labels(small_networks):
    image = torch.randn(3, 40, 60)
    alone = infer(image, torch.tensor([0, 1, 0]), *small_networks)
    together = infer(image, torch.tensor([1, 1, 1]), *small_networks)
    torch.testing.assert_close(alone[1], together[1])


def test_without_labels_every_class_is_inferred(small_networks):
    image = torch.randn(1, 3, 32, 32)
    [(classes, cams, scores)] = infer_batch(
        image, [None], *small_networks, InferenceSettings((1.0,))
    )
    assert classes.tolist() == [0, 1, 2] and cams.shape == (3, 32, 32) and scores.shape == (3,)


def test_a_photograph_without_any_class(small_networks):
    cams = infer(torch.randn(3, 40, 50), torch.zeros(3), *small_networks)
    assert cams.shape == (3, 40, 50) and not cams.any()


@torch.no_grad()
def test_predicted_labels(small_networks):
    image = torch.randn(3, 48, 32)
    classifier, scn = small_networks
    q = scn(image[None])
    probability = classifier(image[None], q)[1][0, 1:].sigmoid()
    for threshold in (0.0, float(probability.sort().values[1]), 1.0):
        labels = predict_labels(image, classifier, scn, threshold)
        assert labels.tolist() == (probability >= threshold).int().tolist()


def test_a_large_photograph_is_scaled_down(small_networks):
    """As the evaluators do it."""
    image, labels = torch.randn(3, 60, 90), torch.tensor([0, 1, 0])
    whole = infer(image, labels, *small_networks, scales=(1.0,))
    found = infer(image, labels, *small_networks, scales=(1.0,), max_side=45)
    small = infer(shrink(image, 45), labels, *small_networks, scales=(1.0,))
    expected = torch.nn.functional.interpolate(small[None], size=(60, 90), mode="bilinear")[0]
    torch.testing.assert_close(found, expected)
    assert found.shape == whole.shape and not torch.allclose(found, whole, atol=0.01)
    nothing = infer(image, torch.zeros(3), *small_networks, scales=(1.0,), max_side=45)
    assert nothing.shape == whole.shape and not nothing.any()


def test_precision_is_that_of_the_networks(small_networks):
    image, labels = torch.randn(3, 40, 50), torch.tensor([1, 0, 1])
    double = [copy.deepcopy(network).double() for network in small_networks]
    cams = infer(image.double(), labels, *double)
    assert cams.dtype == infer(image.double(), 0 * labels, *double).dtype == torch.float64
    torch.testing.assert_close(
        infer(image, labels, *small_networks), cams.float(), atol=1e-4, rtol=0
    )


def test_wrong_labels_are_refused(small_networks):
    with pytest.raises(ValueError, match="labels"):
        infer(torch.randn(3, 32, 32), torch.ones(5), *small_networks)


def test_what_is_no_image_or_scale(small_networks):
    image, labels = torch.randn(3, 32, 32), torch.tensor([0, 1, 0])
    for photograph in (image.to(torch.uint8), torch.zeros(3, 1100, 64, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="must be normalised, got torch.uint8"):
            infer(photograph, labels, *small_networks)
        with pytest.raises(ValueError, match="must be normalised, got torch.uint8"):
            predict_labels(photograph, *small_networks, 0.5)
    for scales in ((), (0,), (1, -1)):
        with pytest.raises(ValueError, match="scales must be above 0"):
            infer(image, labels, *small_networks, scales=scales)
    found = infer(image, labels.numpy(), *small_networks, scales=(1,))
    torch.testing.assert_close(found, infer(image, labels, *small_networks, scales=(1,)))


def test_no_limit_of_the_side(small_networks):
    image, labels = torch.randn(3, 32, 48), torch.tensor([0, 1, 0])
    small, *whole = (infer(image, labels, *small_networks, max_side=m) for m in (16, None, 0, 48))
    assert all(torch.equal(one, whole[0]) for one in whole)
    assert not torch.equal(small, whole[0])


def test_the_mirror_image_follows():
    images = torch.randn(2, 3, 30, 50)
    for view in views(images, 1.5, flip=True):
        assert view.shape == (4, 3, 48, 80)
        torch.testing.assert_close(view[2:], view[:2].flip(3))


@pytest.mark.parametrize("flip", [True, False])
def test_several_photographs_at_a_time(small_networks, flip):
    """With other classes each, or none."""
    images = torch.randn(3, 3, 40, 60)
    labels = [torch.tensor([1, 0, 1]), torch.zeros(3), None]
    together = infer_batch(images, labels, *small_networks, InferenceSettings(flip=flip))
    for image, one, found in zip(images, labels, together, strict=True):
        [alone] = infer_batch(image[None], [one], *small_networks, InferenceSettings(flip=flip))
        assert torch.equal(found[0], alone[0])
        torch.testing.assert_close(found[1:], alone[1:], rtol=1e-5, atol=1e-5)


@given(st.integers(1, 5000))
def test_round_up(length):
    up = round_up(length)
    assert up % 16 == 0 and length <= up < length + 16


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.sampled_from([0, 0.25, 0.3, 1]), st.integers(0, 2**31))
def test_label_map_is_the_argmax(n, threshold, seed):
    """With cams that are equal, to each other and to the threshold: the first of them wins."""
    rng = np.random.default_rng(seed)
    classes = np.sort(rng.choice(20, n, replace=False))
    cams = rng.choice(np.array([0, 0.25, 0.3, 0.7, 1], np.float32), (n, 5, 6))
    scores = np.zeros((21, 5, 6), np.float32) - 1
    scores[0] = threshold
    scores[classes + 1] = cams
    assert (label_map(classes, cams, threshold) == scores.argmax(0)).all()


def test_classes_that_do_not_fit_into_a_label_map():
    cams = np.ones((1, 2, 2), np.float32)
    assert (label_map(np.array([253]), cams, 0.5) == 254).all()
    for index in (-1, 254):
        with pytest.raises(ValueError, match="0 to 253"):
            label_map(np.array([index]), cams, 0.5)
