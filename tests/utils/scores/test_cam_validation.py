"""What is scored after every epoch, against plain loops over photographs, classes and ranks."""

import numpy as np
import pytest
import torch

from datasets.collection import with_masks
from datasets.demo import generate
from datasets.images import read_label_map, read_photograph
from datasets.prepared import load_collection
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.normalisation import normalise
from networks.superpixel import SuperpixelNet
from tests.utils.scores.plain_miou import plain_miou
from utils.inference.cams import InferenceSettings, infer
from utils.runs.reader import Reader
from utils.scores.cam_validation import classification_map, validate

THRESHOLDS = (0.2, 0.5, 0.8)


@pytest.fixture
def scenes(tmp_path):
    """Six photographs, the second without a mask."""
    generate(tmp_path, images=6, validation=2, size=64, seed=0)
    collection = load_collection("custom", tmp_path, "train_aug", quiet=True)
    collection.mask_path(collection.ids[1]).unlink()
    return collection


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(3)
    classifier = Classifier(build_backbone("resnet18"), 7)
    torch.nn.init.normal_(classifier.classifier.weight)
    return classifier, SuperpixelNet().eval()


def photograph(scenes, identifier):
    image = read_photograph(scenes.images[identifier])
    return normalise(torch.from_numpy(image).permute(2, 0, 1))


def cams_of(scenes, identifier, networks):
    labels = torch.from_numpy(scenes.labels[identifier])
    image = photograph(scenes, identifier)
    return infer(image, labels, *networks, scales=(1.0,), flip=False, beta=0).numpy()


def miou_of_cams(scenes, ids, networks, threshold):
    found, truth = [], []
    for identifier in ids:
        cams = cams_of(scenes, identifier, networks)
        background = np.full((1, *cams.shape[1:]), threshold)
        found.append(np.concatenate([background, cams]).argmax(0))
        truth.append(read_label_map(scenes.mask_path(identifier)))
    return plain_miou(found, truth, scenes.num_classes)


def plain_map(scenes, scores):
    """Over classes that occur, the mean over their photographs of the precision at each's rank."""
    every = []
    for k in range(len(scenes.classes)):
        ranked = sorted(scores, key=lambda identifier: -scores[identifier][k])
        hits = [bool(scenes.labels[identifier][k]) for identifier in ranked]
        precisions = [np.mean(hits[: i + 1]) for i, hit in enumerate(hits) if hit]
        if precisions:
            every.append(np.mean(precisions))
    return np.mean(every)


def scores_of(scenes, networks):
    classifier, scn = networks
    scores = {}
    for identifier in scenes.ids:
        image = photograph(scenes, identifier)[None]
        size = [-(-side // 16) * 16 for side in image.shape[2:]]
        image = torch.nn.functional.interpolate(image, size, mode="bilinear")
        with torch.no_grad():
            scores[identifier] = classifier.eval()(image, scn(image))[1][0, 1:].numpy()
    return scores


def reader(bad=None):
    return Reader(torch.device("cpu"), 0, bad)


def test_cams_and_classification(scenes, networks):
    networks[0].train()  # as a training leaves it
    masked = with_masks(scenes)
    settings = InferenceSettings((1.0,), False, beta=0)
    shown = scenes.ids[2:4]
    found = validate(scenes, *networks, settings, THRESHOLDS, reader(), show=shown)
    mious = [miou_of_cams(scenes, masked, networks, threshold) for threshold in THRESHOLDS]
    assert len(masked) == len(scenes.ids) - 1 and len({f"{m:.3f}" for m in mious}) == 3
    assert found.miou == pytest.approx(max(mious), abs=1e-3)
    assert found.threshold == THRESHOLDS[int(np.argmax(mious))]
    scores = scores_of(scenes, networks)
    assert 0.1 < found.mean_ap < 1
    assert found.mean_ap == pytest.approx(plain_map(scenes, scores), abs=1e-9)
    cams = [cams_of(scenes, identifier, networks) for identifier in scenes.ids]
    means = [
        cam.mean()
        for identifier, each in zip(scenes.ids, cams, strict=True)
        for cam in each[scenes.labels[identifier] == 1]
    ]
    assert found.means == pytest.approx(means, abs=1e-4)
    assert tuple(one.id for one in found.shown) == shown
    assert all(one.superpixels is not None for one in found.shown)


def test_classification_alone(scenes, networks):
    networks[0].train()
    expected = plain_map(scenes, scores_of(scenes, networks))
    networks[0].train()
    assert classification_map(scenes, *networks, reader()) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(classification_map(scenes.subset([]), *networks, reader()))


def test_photographs_that_cannot_be_read_do_not_count(scenes, networks):
    expected = classification_map(scenes.subset(scenes.ids[1:]), *networks, reader())
    scenes.images[scenes.ids[0]].write_bytes(b"")
    bad = []
    assert classification_map(scenes, *networks, reader(bad.append)) == expected
    assert len(bad) == 1 and f"{scenes.ids[0]}." in bad[0]
