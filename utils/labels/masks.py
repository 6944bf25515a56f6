"""One pass over the photographs: segment, write masks, count pixels.

Each process takes its share. A photograph whose files are all written is noted in the journal, so
that a pass that was stopped goes on where it was.
"""

from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.collection import Collection
from datasets.images import read_label_map, write_label_map
from networks.deeplab import DeepLab
from utils.inference.folding import fold
from utils.inference.segmentation import Segmented, segment_collection
from utils.labels.crf import CrfConstants, refine_probabilities
from utils.labels.marks import ODD, Marked, gathered, odd_mark
from utils.labels.mask_evaluation_options import MaskEvaluationSettings
from utils.labels.writing import PhotographWriter
from utils.runs import devices, distributed
from utils.runs.run import Run
from utils.scores.confusion import confusion_matrix

PLAIN, REFINED = "masks", "masks_crf"
"""Folders of a run that hold masks."""


@dataclass(frozen=True)
class Outcome:
    """What a pass over the photographs gives.

    Attributes:
        confusion: of the masks by their folder, (1, C, C), rows ground truth.
        marked: the marks of photographs by id, in the first process only.
        images: how many photographs have their masks.
        scored: how many of them have a ground truth.
        segmented: how many were segmented just now.
    """

    confusion: dict[str, np.ndarray]
    marked: Marked
    images: int
    scored: int
    segmented: int


def _refine_and_write(
    path: Path,
    photograph: np.ndarray,
    classes: np.ndarray,
    probabilities: np.ndarray,
    mask: np.ndarray | None,
    num_classes: int,
    constants: CrfConstants,
) -> np.ndarray:
    """In a worker: refine and write the mask of a photograph; its confusion matrix (C, C)."""
    refined = classes.astype(np.uint8)[refine_probabilities(photograph, probabilities, constants)]
    write_label_map(path, refined)
    return _counted(mask, refined, num_classes)


def _counted(mask: np.ndarray | None, labels: np.ndarray, num_classes: int) -> np.ndarray:
    if mask is None:
        return np.zeros((num_classes, num_classes), np.int64)
    return confusion_matrix(mask, labels, num_classes)


class MaskWriter(PhotographWriter):
    """Writes and counts masks behind the inference.

    Args:
        folder: of the run.
        settings: what is written.
        num_classes: C, background included.
    """

    def __init__(self, folder: Path, settings: MaskEvaluationSettings, num_classes: int) -> None:
        self.num_classes, self.crf = num_classes, settings.crf
        self.kinds = (PLAIN,) if settings.crf is None else (PLAIN, REFINED)
        counts = dict.fromkeys(self.kinds, (num_classes, num_classes))
        workers = settings.crf_workers if settings.crf else 0
        shapes = {**counts, "scored": (1,), ODD: (2,)}
        super().__init__(folder, shapes, settings.overlays, workers, marks=(ODD,))

    def files(self, identifier: str) -> list[Path]:
        """All files of a photograph."""
        masks = [mask_path(self.folder, kind, identifier) for kind in self.kinds]
        return [*super().files(identifier), *masks]

    def take(self, found: Segmented) -> None:
        """Refine, write and count one photograph soon."""
        refined = None
        if self.workers is not None:
            path = mask_path(self.folder, REFINED, found.id)
            known = (found.classes, found.probabilities, found.mask, self.num_classes)
            refined = self.workers.run(_refine_and_write, path, found.photograph, *known, self.crf)
        found = replace(found, probabilities=None)  # which are large, and may wait long
        self.writer.submit(self._finish, found, refined)

    def _finish(self, found: Segmented, refined: "Future[np.ndarray] | None") -> None:
        labels = found.labels
        write_label_map(mask_path(self.folder, PLAIN, found.id), labels)
        counts = {
            PLAIN: _counted(found.mask, labels, self.num_classes),
            "scored": np.array([found.mask is not None], np.int64),
            ODD: odd_mark(not labels.any(), found.shrunk),
        }
        if refined is not None:
            counts[REFINED] = self.workers.taken(refined)
            labels = read_label_map(mask_path(self.folder, REFINED, found.id))
        self.draw(found.id, found.photograph, labels)
        self.journal.add(found.id, counts)


def mask_path(folder: Path, kind: str, identifier: str) -> Path:
    """Where a mask lies in the folder of a run; `kind` is PLAIN or REFINED."""
    return folder / kind / f"{identifier}.png"


def segment_and_write(
    run: Run,
    photographs: Collection,
    network: DeepLab,
    settings: MaskEvaluationSettings,
) -> Outcome:
    """Segment every photograph that is not done, write its files, count it where it has a mask."""
    folded = devices.parallel(fold(network), run.device)
    out = MaskWriter(run.folder, settings, photographs.num_classes)
    done, mine = out.take_up(run, photographs)
    with out:
        for found in segment_collection(mine, folded, settings.inference, run.reader):
            out.take(found)
    totals = out.journal.totals()
    added = int(distributed.all_reduce_counts(np.array([out.journal.added]))[0])
    return Outcome(
        confusion={kind: totals[kind][None] for kind in out.kinds},
        marked=gathered(out.journal.marked, photographs.ids),
        images=len(done) + added,
        scored=int(totals["scored"][0]),
        segmented=added,
    )
