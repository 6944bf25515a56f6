"""Multi-scale, mirrored inference of class activation maps. docs/method.md, section 3."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.association import upsample
from networks.classifier import cam
from networks.superpixel import CELL
from utils.inference.photographed import MAX_SIDE, require_normalised, require_scales, shrink

SCALES = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class InferenceSettings:
    """How cams are inferred.

    Attributes:
        scales: of the sides.
        flip: mirror images too.
        beta: steps of affinity propagation.
        gamma: affinities below this are cut.
        predict_from: None takes the labels that are given; a probability takes the classes that
            reach it instead.
        keep: in place of gamma: the share of affinities that are kept, or None.
        max_side: a longer side of a photograph is scaled down to this; None or 0 for never.
    """

    scales: Sequence[float] = SCALES
    flip: bool = True
    beta: int = 8
    gamma: float = 0.6
    predict_from: float | None = None
    keep: float | None = None
    max_side: int | None = MAX_SIDE


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, align_corners=False, no antialiasing; (B, D, H, W) to `size` = (height, width)."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    if not images.shape[1]:  # no class in the photograph; interpolate refuses empty maps
        return images.new_zeros(*images.shape[:2], *size)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def round_up(length: int) -> int:
    """The next multiple of a superpixel cell's side, at least one cell."""
    return max(CELL, -(-length // CELL) * CELL)


def views(images: Tensor, scale: float, flip: bool) -> tuple[Tensor, Tensor]:
    """One scale of photographs as the two networks take them, with their mirror images.

    Args:
        images: normalised, (B, 3, H, W).
        scale: of the sides.
        flip: whether the mirror images follow.

    Returns:
        (for the SCN, for the classifier), each (B or 2 B, 3, h, w) with sides multiples of 16.
    """
    height, width = images.shape[2:]
    scaled = (max(1, round(height * scale)), max(1, round(width * scale)))
    full = (round_up(scaled[0]), round_up(scaled[1]))
    pair = []
    for view in (resize(images, full), resize(resize(images, scaled), full)):
        pair.append(torch.cat([view, view.flip(3)]) if flip else view)
    return pair[0], pair[1]


@torch.no_grad()
def infer_batch(
    images: Tensor,
    labels: Sequence[Tensor | None],
    classifier: nn.Module,
    scn: nn.Module,
    settings: InferenceSettings,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """`infer` for photographs of one size, with what else it computes.

    Args:
        images: normalised photographs (B, 3, H, W).
        labels: of each, (K,) 1 where the class is in the photograph; None for all classes.
        classifier: the classification network.
        scn: the superpixel network.
        settings: how, but for `predict_from` and `max_side`, which are the caller's.

    Returns:
        Of each (classes, cams, scores): indices of the classes in the photograph (n,), their cams
        (n, H, W) in 0..1, and the mean classification scores of all K classes (K,).
    """
    _require_normalised(images)
    require_scales(settings.scales)
    flip, count, (height, width) = settings.flip, len(images), images.shape[2:]
    full = (round_up(height), round_up(width))
    classes, totals, total_scores = None, [0] * count, 0
    for scale in settings.scales:
        for_scn, for_classifier = views(images, scale, flip)
        q = scn(for_scn)
        logits, scores = classifier(for_classifier, q, settings.beta, settings.gamma, settings.keep)
        if classes is None:
            classes = [_present(one, logits.shape[1] - 1, logits.device) for one in labels]
        total_scores = total_scores + scores[:, 1:].unflatten(0, (-1, count)).mean(0)
        for i, chosen in enumerate(classes):
            if len(chosen):
                # A cam needs its own logits only: classes that are not in the photograph stay
                # behind before the expensive full-resolution steps. i::count are its views.
                mine = upsample(logits[i::count, 1:][:, chosen], q[i::count])
                mine = resize(mine, full)
                totals[i] = totals[i] + mine[0] + (mine[1].flip(2) if flip else 0)
    found = []
    means = total_scores / len(settings.scales)
    for chosen, total, mean in zip(classes, totals, means, strict=True):
        if len(chosen):
            cams = resize(cam(total[None]), (height, width))[0]
        else:
            cams = logits.new_zeros(0, height, width)
        found.append((chosen, cams, mean))
    return found


def _require_normalised(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
    require_normalised(images)


def _present(labels: Tensor | None, count: int, device: torch.device) -> Tensor:
    """The indices of the classes in a photograph, of `count`, on the device."""
    wanted = torch.ones(count) if labels is None else torch.as_tensor(labels)
    if wanted.shape != (count,):
        raise ValueError(f"labels must be ({count},), got {tuple(wanted.shape)}")
    present = wanted.nonzero()[:, 0]
    if device.type == "cuda" and present.device.type == "cpu":
        present = present.pin_memory()  # copied without waiting for the GPU
    return present.to(device, non_blocking=True)


def infer(
    image: Tensor,
    labels: Tensor,
    classifier: nn.Module,
    scn: nn.Module,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    beta: int = 8,
    gamma: float = 0.6,
    keep: float | None = None,
    max_side: int | None = MAX_SIDE,
) -> Tensor:
    """Class activation maps of one photograph.

    Every scale is taken plain and mirrored; the logits, upsampled with the superpixels of that
    scale, are summed and normalised. docs/method.md, section 3.

    Args:
        image: ImageNet-normalised, (3, H, W); any size.
        labels: (K,) without background, a tensor or an array, 1 where the class is in the
            photograph.
        classifier: networks.classifier.Classifier, in evaluation mode.
        scn: networks.superpixel.SuperpixelNet, in evaluation mode.
        scales: of the sides.
        flip: mirror images too.
        beta: steps of affinity propagation.
        gamma: affinities below this are cut.
        keep: in place of gamma: the share of affinities that are kept; see `propagate`.
        max_side: a longer side is scaled down to this, and the cams up again; None or 0 for never.

    Returns:
        (K, H, W) in 0..1, float32 or better; zero for classes that are not in the photograph.
    """
    if image.ndim != 3:
        raise ValueError(f"image must be (3, H, W), got {tuple(image.shape)}")
    _require_normalised(image[None])
    settings = InferenceSettings(scales, flip, beta, gamma, keep=keep)
    seen = shrink(image, max_side)[None]
    [(classes, present, _)] = infer_batch(seen, [labels], classifier, scn, settings)
    cams = present.new_zeros(len(labels), *image.shape[1:])
    cams[classes] = resize(present[None], image.shape[1:])[0]
    return cams


@torch.no_grad()
def classification_scores(image: Tensor, classifier: nn.Module, scn: nn.Module) -> Tensor:
    """The scores (K,) of a normalised photograph (3, H, W) at its own size, not mirrored."""
    _require_normalised(image[None])
    for_scn, for_classifier = views(image[None], 1.0, flip=False)
    return classifier(for_classifier, scn(for_scn))[1][0, 1:].float()


def predict_labels(
    image: Tensor, classifier: nn.Module, scn: nn.Module, threshold: float
) -> Tensor:
    """Image-level labels for a photograph that has none.

    Args:
        image: normalised photograph (3, H, W).
        classifier: the classification network.
        scn: the superpixel network.
        threshold: a class counts as present if its probability, the sigmoid of its score, reaches
            this.

    Returns:
        (K,) 0/1; all 0 where no class is probable enough.
    """
    scores = classification_scores(image, classifier, scn)
    return (scores.sigmoid() >= threshold).to(torch.uint8)
