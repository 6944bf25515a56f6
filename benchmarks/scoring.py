"""How good the cams of a trained classifier are, photograph by photograph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from benchmarks.bilinear import Bilinear
from benchmarks.packed_counts import near_best, packed
from datasets.collection import Collection
from datasets.images import read_saliency
from datasets.workers import cores
from utils.inference.cams import InferenceSettings
from utils.inference.collection_cams import Inferred, infer_collection
from utils.inference.label_maps import label_maps
from utils.labels.crf import CrfConstants, refine, require_crf
from utils.labels.crf_workers import CrfWorkers
from utils.runs.reader import Reader
from utils.scores.cam_validation import mean_average_precision
from utils.scores.confusion import confusion_matrix
from utils.scores.counts import Counts
from utils.scores.threshold_sweep import ThresholdSweep

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(18))
"""Of background, to 0.95; the best one counts, for every training by itself. (Results of
photographs were measured with those to 0.6; of trainings that learnt, none is best there.)"""

KEPT, KEPT_CRF = 2, 1
"""Thresholds either side of the best one whose counts are kept; after a CRF, which takes a third of
a second a photograph and threshold, those either side of the best one before it are tried."""


@dataclass(frozen=True)
class Inference:
    """How cams are inferred from a trained classifier.

    Attributes:
        beta: steps of affinity propagation; 0 leaves it out.
        gamma: affinities below this are cut.
        superpixels: upsample with the superpixel network's association; otherwise bilinearly, as
            plain CAM does (without DCR only, which reads that association).
        keep: in place of gamma: the share of affinities that are kept.
        scales: of the photographs, which are mirrored too then; none takes the benchmark's single
            scale, not mirrored.
        crf: refine the pseudo labels by a dense CRF.
        by_saliency: background is where the saliency map, not the strongest cam, is below the
            threshold.
    """

    beta: int = 0
    gamma: float = 0.6
    superpixels: bool = True
    keep: float | None = None
    scales: tuple[float, ...] = ()
    crf: bool = False
    by_saliency: bool = False

    def __str__(self) -> str:
        """In words, as tables and results files have it."""
        words = ["superpixels" if self.superpixels else "bilinear"]
        if self.beta:
            steps = "" if self.beta == 8 else f" beta {self.beta}"
            cut = f"gamma {self.gamma:g}" if self.keep is None else f"keep {self.keep:g}"
            words.append(f"AP{steps} {cut}")
        if self.scales:
            words.append(f"scales {' '.join(f'{scale:g}' for scale in self.scales)} mirrored")
        if self.by_saliency:
            words.append("background by saliency")
        return ", ".join([*words, "CRF"] if self.crf else words)


PLAIN = Inference(superpixels=False)
"""As in plain CAM: neither superpixels nor AP."""


@dataclass
class Scorer:
    """Scores one trained classifier.

    Args:
        photographs: with masks.
        classifier: on the device.
        scn: likewise.
        scales: of the photographs, which are not mirrored, unless an inference has its own.
        reader: of the photographs.

    Attributes:
        ranking: classification scores (K,) by id, of the first inference.
    """

    photographs: Collection
    classifier: nn.Module
    scn: nn.Module
    scales: Sequence[float]
    reader: Reader
    ranking: dict[str, np.ndarray] = field(default_factory=dict, init=False)
    _near_best: dict[Inference, tuple[float, ...]] = field(default_factory=dict, init=False)

    def score(self, inference: Inference) -> dict:
        """What the results file says of an inference: the best mIoU (%), its threshold, counts."""
        unrefined = replace(inference, crf=False)
        if not inference.crf or unrefined not in self._near_best:
            counts = self.count(unrefined)
            self._near_best[unrefined] = near_best(counts, KEPT_CRF).thresholds
        if inference.crf:
            counts = self.count_refined(inference, self._near_best[unrefined])
        best = counts.best()
        return {
            "miou": round(100 * float(counts.mious()[0, best]), 2),
            "threshold": counts.thresholds[best],
            "counts": packed(near_best(counts, KEPT)),
        }

    def mean_ap(self) -> float:
        """Mean average precision of the classification (%)."""
        return round(100 * mean_average_precision(self.photographs, self.ranking), 2)

    def count(self, inference: Inference) -> Counts:
        """The counts at all thresholds, without a CRF."""
        matrices = []
        for found in self._infer(inference):
            sweep = ThresholdSweep(self.photographs.num_classes, THRESHOLDS)
            sweep.add_present(found.classes, found.cams, found.mask)
            matrices.append(sweep.result())
        return Counts.of(THRESHOLDS, matrices)

    def count_refined(self, inference: Inference, thresholds: Sequence[float]) -> Counts:
        """The counts at some thresholds, the labels refined by a dense CRF."""
        require_crf()
        with CrfWorkers(cores()) as workers:
            waiting = []
            for found in self._infer(inference):
                labels = label_maps(found.classes, found.cams, thresholds)
                image = found.photograph
                given = (image, labels, found.mask, self.photographs.num_classes)
                waiting.append(workers.run(_refined_confusion, *given))
            return Counts.of(thresholds, [workers.taken(future) for future in waiting])

    def _infer(self, inference: Inference) -> Iterator[Inferred]:
        self.classifier.eval()
        settings = InferenceSettings(
            inference.scales or tuple(self.scales),
            bool(inference.scales),
            inference.beta,
            inference.gamma,
            keep=inference.keep,
        )
        networks = (self.classifier, self.scn if inference.superpixels else Bilinear())
        title = str(inference)
        for found in infer_collection(self.photographs, *networks, settings, self.reader, title):
            self.ranking.setdefault(found.id, found.scores)
            if inference.by_saliency:
                path = self.photographs.saliency_path(found.id)
                saliency = read_saliency(path, found.cams.shape[1:])
                found = replace(found, cams=cut_by(saliency, found.cams))
            yield found


def cut_by(saliency: np.ndarray, cams: np.ndarray) -> np.ndarray:
    """Cams of which the strongest has the value of the saliency map, and the others 0.

    So a salient pixel is of the class whose cam is strongest there, however weak; of several, or
    where all are 0, of the first.

    Args:
        saliency: (H, W) uint8.
        cams: (n, H, W).

    Returns:
        (n, H, W) float32 in 0..1.
    """
    return (cams == cams.max(0, initial=0)) * (saliency.astype(np.float32) / 255)


def _refined_confusion(
    image: np.ndarray, labels: np.ndarray, mask: np.ndarray, num_classes: int
) -> np.ndarray:
    """In a worker: confusion matrices (T, C, C) of labels (T, H, W) refined by their photograph."""
    refined = (refine(image, one, CrfConstants()) for one in labels)
    return np.stack([confusion_matrix(mask, one, num_classes) for one in refined])
