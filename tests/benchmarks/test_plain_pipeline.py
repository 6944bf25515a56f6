"""The fast paths of whole steps agree with the plain formulation."""

import numpy as np
import pytest
import torch

from benchmarks import plain_pipeline
from benchmarks.plain_pipeline import PlainClassifier, threshold_counts
from networks.backbone import build_backbone
from networks.classifier import Classifier, cam
from networks.ipc import ipc_loss
from networks.superpixel import SuperpixelNet
from tests.utils.inference.test_folding import lived
from utils.inference.cams import infer
from utils.inference.folding import fold
from utils.scores.threshold_sweep import ThresholdSweep
from utils.training.supervision import SupervisedNetwork, frozen_copy


def networks():
    """The classifier on fast and on plain operators, same weights, and the SCN."""
    ours = lived(Classifier(build_backbone("resnet18"), 6))
    ours.classifier.weight.data.abs_()
    same = PlainClassifier(build_backbone("resnet18"), 6).eval()
    same.load_state_dict(ours.state_dict())
    return ours, same, lived(SuperpixelNet())


def test_inference():
    ours, same, scn = networks()
    image, labels = torch.randn(3, 70, 90), torch.tensor([1.0, 0, 1, 0, 1])
    fast = infer(image, labels, fold(ours), fold(scn))
    plain = plain_pipeline.infer(image, labels, same, scn)
    assert plain.std() > 0.01
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_loss_and_gradients_of_a_step():
    ours, same, scn = networks()
    images = torch.randn(2, 3, 96, 96)
    labels = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1.0, 0, 0, 0]])
    whole = torch.tensor([[0, 0, 96, 96]] * 2)
    network = SupervisedNetwork(ours, frozen_copy(scn), beta=8, gamma=0.6).eval()
    logits, scores, target = network(images, images, whole)
    classification = torch.nn.functional.multilabel_soft_margin_loss(scores[:, 1:], labels)
    fg_cam = cam(logits[:, 1:]) * labels[:, :, None, None]
    fast = classification + 0.3 * ipc_loss(fg_cam, target, 9, 0.1)
    plain = plain_pipeline.losses(same, scn, images, labels, beta=8)
    assert fast.item() == pytest.approx(plain.item(), rel=1e-5)
    fast.backward()
    plain.backward()
    for (name, one), two in zip(ours.named_parameters(), same.parameters(), strict=True):
        assert (one.grad - two.grad).abs().max() <= 1e-3 * two.grad.abs().max() + 1e-7, name


def test_threshold_counts():
    rng = np.random.default_rng(0)
    cams = rng.random((4, 20, 30), np.float32)
    truth = rng.choice([0, 1, 3, 255], (20, 30)).astype(np.uint8)
    sweep = ThresholdSweep(5, (0.2, 0.9))
    sweep.add(cams, truth)
    matrices = sweep.result()
    counts = threshold_counts(cams, truth, (0.2, 0.9))
    assert (counts[..., 0] == matrices.diagonal(axis1=1, axis2=2)).all()
    assert (counts[..., 1] == matrices.sum(1)).all()
    assert (counts[..., 2] == matrices.sum(2)).all()
