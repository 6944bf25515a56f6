"""How good the cams and the classification of a collection are."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from datasets.collection import Collection
from networks.normalisation import normalise
from utils.inference.cams import InferenceSettings, classification_scores
from utils.inference.collection_cams import Inferred, infer_collection
from utils.inference.photographed import MAX_SIDE, shrink
from utils.runs import distributed
from utils.runs.reader import Reader
from utils.scores.average_precision import average_precision
from utils.scores.confusion import best_of, class_scores, mean_known
from utils.scores.threshold_sweep import ThresholdSweep


@dataclass(frozen=True)
class Validation:
    """How good the cams of some photographs are.

    Attributes:
        threshold: the best background threshold.
        miou: at that threshold, 0..1.
        mean_ap: mean average precision of the classification, 0..1.
        means: of every cam, 0..1; in the first process only.
        shown: those of the photographs that were to be shown; in the first process only.
    """

    threshold: float
    miou: float
    mean_ap: float
    means: list[float]
    shown: list[Inferred]


def validate(
    collection: Collection,
    classifier: nn.Module,
    scn: nn.Module,
    settings: InferenceSettings,
    thresholds: Sequence[float],
    reader: Reader,
    show: Container[str] = (),
) -> Validation:
    """Score the cams of a collection; photographs without a mask do not count in the mIoU.

    Several processes share the photographs; all get the scores of the whole, digit for digit.
    What was inferred for the ids in `show`, superpixels too, is handed out as well.
    """
    mine = collection.subset(distributed.share(collection.ids))
    sweep = ThresholdSweep(collection.num_classes, thresholds)
    ranking: dict[str, np.ndarray] = {}
    shown: list[Inferred] = []
    means: list[float] = []
    classifier.eval()
    for found in infer_collection(
        mine, classifier, scn, settings, reader, "scoring", lambda i: i in show
    ):
        if found.mask is not None:
            sweep.add_present(found.classes, found.cams, found.mask)
        ranking[found.id] = found.scores
        means.extend(found.cams.mean((1, 2)))
        if found.id in show:
            shown.append(found)
    sweep.counts = distributed.all_reduce_counts(sweep.counts)
    ranking = merged(ranking)
    mious = [class_scores(matrix).miou for matrix in sweep.result()]
    best = best_of(mious)
    mean_ap = mean_average_precision(collection, ranking)
    means, shown = (
        [one for part in distributed.gather(found) for one in part] for found in (means, shown)
    )
    return Validation(sweep.thresholds[best], mious[best], mean_ap, means, shown)


@torch.no_grad()
def classification_map(
    collection: Collection,
    classifier: nn.Module,
    scn: nn.Module,
    reader: Reader,
) -> float:
    """The mAP of the classification of photographs at their own size, shared by all processes."""
    mine = collection.subset(distributed.share(collection.ids))
    ranking: dict[str, np.ndarray] = {}
    classifier.eval()
    for item in reader.read(mine, "classifying"):
        image = item["image"].to(reader.device, non_blocking=True)
        image = normalise(shrink(image, MAX_SIDE))
        ranking[item["id"]] = classification_scores(image, classifier, scn).cpu().numpy()
    return mean_average_precision(collection, merged(ranking))


def merged(ranking: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The classification scores by id that all processes found, in all processes."""
    parts = distributed.broadcast(distributed.gather(ranking))
    return {identifier: score for part in parts for identifier, score in part.items()}


def mean_average_precision(collection: Collection, ranking: Mapping[str, np.ndarray]) -> float:
    """The mAP of classification scores (K,) by id; NaN where no class has a positive."""
    ids = [identifier for identifier in collection.ids if identifier in ranking]
    if not ids:
        return float("nan")
    labels = np.stack([collection.labels[identifier] for identifier in ids])
    ap = average_precision(np.stack([ranking[identifier] for identifier in ids]), labels)
    return mean_known(ap)
