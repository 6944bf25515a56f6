"""Class activation maps of whole collections."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from datasets.loading import Photographs, photograph_loader
from networks.normalisation import normalise
from utils.inference.cams import SCALES, infer_with_scores, predict_labels
from utils.inference.label_maps import label_map
from utils.runs.progress import progress


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
    """

    scales: Sequence[float] = SCALES
    flip: bool = True
    beta: int = 8
    gamma: float = 0.6
    predict_from: float | None = None
    keep: float | None = None


@dataclass(frozen=True)
class Inferred:
    """What is known about one photograph after inference.

    Attributes:
        id: of the photograph.
        image: (3, H, W) uint8 on the CPU.
        classes: (n,) foreground class indices, 0-based, of the classes in it.
        cams: (n, H, W) float32 in 0..1.
        scores: (K,) classification scores.
        mask: (H, W) uint8 ground truth, or None.
    """

    id: str
    image: Tensor
    classes: np.ndarray
    cams: np.ndarray
    scores: np.ndarray
    mask: np.ndarray | None


def infer_collection(
    collection: Collection,
    classifier: nn.Module,
    scn: nn.Module,
    settings: InferenceSettings,
    device: torch.device,
    workers: int,
    title: str,
    bad: Callable[[str], None],
) -> Iterator[Inferred]:
    """Infer the cams of every photograph, in order, under a progress bar.

    The networks must be in evaluation mode on the device. A photograph whose labels are unknown is
    inferred for all classes. One that cannot be read, or whose mask cannot, is left out after
    `bad(message)`, which may raise.
    """
    loader = photograph_loader(Photographs(collection), workers, pin=device.type == "cuda")
    for item in progress(loader, title, "image"):
        if "error" in item:
            bad(item["error"])
            continue
        image = normalise(item["image"].to(device, non_blocking=True))
        labels = item["labels"]
        if settings.predict_from is not None:
            labels = predict_labels(image, classifier, scn, settings.predict_from)
        classes, cams, class_scores = infer_with_scores(
            image,
            labels,
            classifier,
            scn,
            settings.scales,
            settings.flip,
            settings.beta,
            settings.gamma,
            settings.keep,
        )
        yield Inferred(
            id=item["id"],
            image=item["image"],
            classes=classes.cpu().numpy(),
            cams=cams.float().cpu().numpy(),
            scores=class_scores.float().cpu().numpy(),
            mask=item["mask"],
        )


def labels_at(threshold: float) -> Callable[[Inferred], np.ndarray]:
    """The pseudo labels (H, W) of what was inferred, at a background threshold."""
    return lambda found: label_map(found.classes, found.cams, threshold)
