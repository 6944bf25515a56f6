"""The plain formulation of whole steps: what published code of this kind does, as the baseline.

Channels first, batch normalisation left as it is, every image and its mirror by itself, all classes
at full resolution, one pass over the labels a class and threshold, images normalised in the loader.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from networks import reference
from networks.classifier import Classifier, cam
from networks.ipc import ipc_loss
from networks.normalisation import IMAGENET_MEAN, IMAGENET_STD
from utils.inference.cams import round_up


class PlainClassifier(Classifier):
    """The classification network on the plain operators."""

    def forward(
        self,
        images: Tensor,
        q: Tensor,
        beta: int = 0,
        gamma: float = 0.6,
        keep: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As Classifier.forward."""
        x4 = self.backbone.stem_to_4(images)
        embedding = self.dcr.embed(q)
        kernels4 = self.dcr.kernels4(x4, embedding)
        x4 = reference.reassemble(x4 * self.dcr.gate4(x4), kernels4)
        x5 = self.backbone.stage5(x4)
        kernels5 = self.dcr.kernels5(x5, embedding)
        activations = self.classifier(x5 * self.dcr.gate5(x5.detach()))
        logits = reference.reassemble(activations, kernels5)
        scores = activations.mean((2, 3))
        return reference.propagate(logits, x4, beta, gamma, keep) if beta else logits, scores


def losses(
    classifier: nn.Module, scn: nn.Module, images: Tensor, labels: Tensor, beta: int
) -> Tensor:
    """Total loss of a batch, supervised by the image."""
    with torch.no_grad():
        q = scn(images)
        target = reference.pool(images, q)
    logits, scores = classifier(images, q, beta, 0.6)
    classification = F.multilabel_soft_margin_loss(scores[:, 1:], labels)
    fg_cam = cam(logits[:, 1:]) * labels[:, :, None, None]
    return classification + 0.3 * ipc_loss(fg_cam, target, 9, 0.1)


@torch.no_grad()
def infer(
    image: Tensor,
    labels: Tensor,
    classifier: nn.Module,
    scn: nn.Module,
    scales: Sequence[float] = (0.5, 1, 1.5, 2),
) -> Tensor:
    """As utils.cams.infer, one image at a time: (K, H, W)."""
    height, width = image.shape[1:]
    full = (round_up(height), round_up(width))
    total = 0
    for scale in scales:
        scaled = (round(height * scale), round(width * scale))
        size = (round_up(scaled[0]), round_up(scaled[1]))
        for flip in (False, True):
            view = image[None].flip(3) if flip else image[None]
            q = scn(_resize(view, size))
            logits, _ = classifier(_resize(_resize(view, scaled), size), q, 8, 0.6)
            logits = _resize(reference.upsample(logits, q), full)
            total = total + (logits.flip(3) if flip else logits)
    cams = cam(total[:, 1:]) * labels[None, :, None, None]
    return _resize(cams, (height, width))[0]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def threshold_counts(
    cams: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]
) -> np.ndarray:
    """Hits, predicted and true pixels by class and threshold: (thresholds, C, 3)."""
    num_classes = len(cams) + 1
    counts = np.zeros((len(thresholds), num_classes, 3), np.int64)
    scored = truth < 255
    for i, threshold in enumerate(thresholds):
        stacked = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), cams])
        prediction = stacked.argmax(0)
        for k in range(num_classes):
            predicted = (prediction == k) * scored
            true = (truth == k) * scored
            hit = true * (prediction == truth)
            counts[i, k] = hit.sum(), predicted.sum(), true.sum()
    return counts


def load_crop(path: Path, crop: int, rng: np.random.Generator) -> Tensor:
    """One training crop, decoded and resized by Pillow, normalised in float: (3, crop, crop)."""
    image = Image.open(path).convert("RGB")
    scale = rng.integers(320, 641) / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    values = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    values = (values / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    if rng.random() < 0.5:
        values = np.fliplr(values)
    height, width = values.shape[:2]
    container = np.zeros((crop, crop, 3), np.float32)
    rows, columns = min(height, crop), min(width, crop)
    y, x = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    top, left = rng.integers(0, crop - rows + 1), rng.integers(0, crop - columns + 1)
    window = values[y : y + rows, x : x + columns]
    container[top : top + rows, left : left + columns] = window
    return torch.from_numpy(container.transpose(2, 0, 1).copy())
