"""The objective of the superpixel network's training, against docs/method.md, section 1."""

import cv2
import numpy as np
import pytest
import torch

from networks import reference
from networks.superpixel import SuperpixelNet
from tests.utils.inference.test_folding import lived
from utils.training.superpixels import TERMS, SuperpixelLoss, mean_over_images

SIDE = 64


@pytest.fixture
def batch():
    """Three photographs: one fills its crop, two leave padding, which counts in the loss."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    lab = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in images])
    box = torch.tensor([[0, 0, SIDE, SIDE], [0, 13, 50, SIDE], [16, 5, 40, 60]])
    return {"image": torch.from_numpy(images), "lab": torch.from_numpy(lab), "box": box}


def expected_loss(batch, scn, chroma, objective):
    """The terms for each photograph alone, in float64; their means over photographs."""
    each = []
    for image, lab, box in zip(*batch.values(), strict=True):
        top, left, bottom, right = box.tolist()
        colours = (image.double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
            [0.229, 0.224, 0.225]
        )
        padded = torch.zeros(1, 3, SIDE, SIDE)
        padded[0, :, top:bottom, left:right] = colours.permute(2, 0, 1)[:, top:bottom, left:right]
        with torch.no_grad():
            q = scn(padded).double()
        target = lab.double().permute(2, 0, 1)[None] / 255
        target[:, 1:] *= chroma
        if objective == "clustering":
            terms = (reference.clustering_loss(q, target, 0.007),)
        else:
            terms = reference.scn_loss(q, target, 0.003)
        each.append(torch.stack(terms))
    return sum(each) / len(each)


@pytest.mark.parametrize(
    ("objective", "weight", "chroma"),
    [("reconstruction", 0.003, 1.0), ("reconstruction", 0.003, 2.5), ("clustering", 0.007, 1.0)],
)
def test_the_loss_of_a_batch(batch, objective, weight, chroma):
    scn = lived(SuperpixelNet())
    network = SuperpixelLoss(scn, weight, objective, chroma)
    losses = mean_over_images(network, TERMS[objective])(batch)
    assert next(iter(losses)) == "loss"
    expected = expected_loss(batch, scn, chroma, objective)
    torch.testing.assert_close(
        torch.stack([*losses.values()]).double(), expected, rtol=1e-4, atol=0
    )
