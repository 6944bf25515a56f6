"""The objective of the classifier's trainings, against docs/method.md, section 2, step by step."""

import numpy as np
import pytest
import torch

import train_cls_image
import train_cls_sal
from networks import reference
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from tests.networks.test_ipc import loop_ipc
from tests.utils.inference.test_folding import lived
from utils.training.supervision import ClassifierLoss, SupervisedNetwork, frozen_copy

SIDE, CELL = 96, 16
SUPERVISIONS = {"image": train_cls_image.SUPERVISION, "saliency": train_cls_sal.SUPERVISION}


@pytest.fixture(scope="module")
def networks():
    """With weights that leave cams of every strength, and with statistics of their own."""
    classifier = lived(Classifier(build_backbone("resnet18"), 4))
    torch.nn.init.normal_(classifier.classifier.weight, std=0.1)
    return classifier, lived(SuperpixelNet())


@pytest.fixture
def batch():
    """Three photographs: one fills its crop, two leave padding, one of these everywhere."""
    rng = np.random.default_rng(0)
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)),
        "saliency": torch.from_numpy(rng.integers(0, 256, (3, SIDE, SIDE, 1), np.uint8)),
        "box": torch.tensor([[0, 0, SIDE, SIDE], [0, 33, 80, SIDE], [16, 5, 70, 90]]),
        "labels": torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]]),
    }


@torch.no_grad()
def one_photograph(item, kind, classifier, scn, beta):
    """(scores, cams, target) of one: (K,), (K, h, w), (T, h, w) arrays."""
    top, left, bottom, right = item["box"].tolist()
    colours = (item["image"].double().numpy() / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    image = np.zeros((1, 3, SIDE, SIDE), np.float32)
    image[0, :, top:bottom, left:right] = colours.transpose(2, 0, 1)[:, top:bottom, left:right]
    image = torch.from_numpy(image)
    q = scn(image)
    logits, scores = classifier(image, q, beta, 0.6)
    saliency = item["saliency"].permute(2, 0, 1)[None] / 255
    target = image if kind == "image" else torch.cat([saliency, 1 - saliency], 1)
    target = reference.pool(target, q)[0].numpy()
    for i in range(SIDE // CELL):
        for j in range(SIDE // CELL):
            if not (top <= i * CELL < bottom and left <= j * CELL < right):
                target[:, i, j] = 0
    cams = []
    for present, one in zip(item["labels"].numpy(), logits[0, 1:].double().numpy(), strict=True):
        positive = np.maximum(one, 0)
        cams.append(present * np.maximum(positive - 1e-5, 0) / (positive.max() + 1e-5))
    return scores[0, 1:].double().numpy(), np.stack(cams), target.astype(np.float64)


@pytest.mark.parametrize(
    ("kind", "patches", "threshold", "beta"),
    [("image", 9, 0.1, 8), ("image", 4, 0.6, 0), ("saliency", 1, 0.01, 0)],
)
def test_both_losses(networks, batch, kind, patches, threshold, beta):
    items = [{name: value[i] for name, value in batch.items()} for i in range(3)]
    found = [one_photograph(item, kind, *networks, beta) for item in items]
    scores, cams, targets = (np.stack(part) for part in zip(*found, strict=True))
    sure = 1 / (1 + np.exp(-scores))
    labels = batch["labels"].numpy()
    classification = -np.mean(labels * np.log(sure) + (1 - labels) * np.log(1 - sure))
    ipc = loop_ipc(cams, targets, patches, threshold)

    network = SupervisedNetwork(networks[0], frozen_copy(networks[1]), beta, 0.6)
    objective = ClassifierLoss(network, SUPERVISIONS[kind], 0.3, patches, threshold)
    losses = objective(batch)
    assert losses["classification"].item() == pytest.approx(classification, rel=1e-5)
    assert losses["ipc"].item() == pytest.approx(ipc, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(classification + 0.3 * ipc, rel=1e-4)


def test_the_superpixel_network_is_frozen(networks, batch):
    """Its batch statistics too, whatever mode the classifier is in."""
    scn = frozen_copy(networks[1])
    scn.some_norm = torch.nn.BatchNorm2d(3)  # folding leaves none of its own
    network = SupervisedNetwork(networks[0], scn, 0, 0.6).train()
    assert network.classifier.training and not any(part.training for part in scn.modules())
    network.eval()
    ClassifierLoss(network, SUPERVISIONS["image"], 0.3, 9, 0.1)(batch)["loss"].backward()
    assert all(one.grad is not None for one in networks[0].parameters())
    assert all(one.grad is None for one in scn.parameters())
    networks[0].zero_grad()
