"""One pass over the photographs: infer, write pseudo labels and cams, count pixels.

Each process takes its share. A photograph whose files are all written is noted in the journal, so
that a pass that was stopped goes on where it was.
"""

from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.collection import Collection, evenly_spread
from datasets.images import read_label_map
from utils.checkpoints import Trained
from utils.inference.collection_cams import InferenceSettings, Inferred, infer_collection
from utils.inference.folding import fold
from utils.inference.label_maps import label_maps
from utils.labels.crf import CrfConstants, Refiner
from utils.labels.journal import Journal
from utils.labels.pseudo_labels import PseudoLabels, uncertain_pixels, without
from utils.labels.sharing import SHEET_ROWS, share_out
from utils.pictures.gallery import Gallery
from utils.runs import devices, distributed
from utils.runs.background import BackgroundWriter
from utils.runs.run import Run
from utils.scores.threshold_sweep import ThresholdSweep

PLAIN, REFINED = "pseudo_labels", "pseudo_labels_crf"
"""Folders of a run that hold pseudo labels."""


@dataclass
class Outcome:
    """What a pass over the photographs gives.

    Attributes:
        confusion: of the pseudo labels, (thresholds, C, C).
        refined: of the refined ones, or None.
        shown: in the first process: a few photographs, evenly spread, for the contact sheet.
        images: how many photographs have their pseudo labels.
        inferred: how many were inferred just now.
    """

    confusion: np.ndarray
    refined: np.ndarray | None
    shown: list[Inferred]
    images: int
    inferred: int


@dataclass(frozen=True)
class OutputSettings:
    """What an evaluator writes of every photograph.

    Attributes:
        thresholds: of background; the labels of each are written and scored.
        save_cams: formats in which cams are written too, see utils.labels.pseudo_labels.
        overlays: labels are drawn on the photographs too.
        uncertain: (LOW, HIGH): written labels are 255 where LOW < strongest cam <= HIGH; or None.
        report_images: photographs in the report.
        crf: constants of the dense CRF that refines the labels too, or None.
        crf_workers: processes that do so.
    """

    thresholds: tuple[float, ...]
    save_cams: tuple[str, ...] = ()
    overlays: bool = False
    uncertain: tuple[float, float] | None = None
    report_images: int = 300
    crf: CrfConstants | None = None
    crf_workers: int = 1


class Labeller:
    """Writes and counts photographs behind the inference; a context manager.

    Args:
        folder: of the run.
        settings: what is written.
        num_classes: C, background included.
    """

    def __init__(self, folder: Path, settings: OutputSettings, num_classes: int) -> None:
        self.thresholds, self.uncertain = settings.thresholds, settings.uncertain
        self.sweep = ThresholdSweep(num_classes, self.thresholds)
        self.out = PseudoLabels(folder, self.thresholds, settings.save_cams, settings.overlays)
        shapes = {"counts": self.sweep.counts.shape}
        self.refiner = None
        if settings.crf is not None:
            places = (folder / REFINED, self.thresholds, num_classes)
            self.refiner = Refiner(*places, settings.crf, settings.crf_workers)
            shapes["refined"] = (len(self.thresholds), num_classes, num_classes)
        self.journal = Journal(folder, shapes)
        self.writer = BackgroundWriter()
        self._stack = ExitStack()

    def complete(self, identifier: str) -> bool:
        """Whether all files of a photograph are there."""
        refined = self.refiner is None or self.refiner.complete(identifier)
        return self.out.complete(identifier) and refined

    def take(self, found: Inferred) -> None:
        """Label, refine, write and count one photograph soon."""
        if self.refiner is None:
            self.writer.submit(self._finish, found)
        else:
            known = self._labels(found)
            self.writer.submit(self._finish, found, known, self.refiner.submit(found, *known))

    def _labels(self, found: Inferred) -> tuple[np.ndarray, np.ndarray | None]:
        labels = label_maps(found.classes, found.cams, self.thresholds)
        return labels, uncertain_pixels(found.cams, self.uncertain)

    def _finish(
        self,
        found: Inferred,
        known: tuple[np.ndarray, np.ndarray | None] | None = None,
        refined: "Future[np.ndarray] | None" = None,
    ) -> None:
        labels = without(*(known or self._labels(found)))
        self.out.write(found, labels)
        drawn = labels[0]
        counts = {"counts": np.zeros_like(self.sweep.counts)}
        if found.mask is not None:
            counts["counts"] = self.sweep.count(found.classes, found.cams, found.mask)
        if refined is not None:
            counts["refined"] = self.refiner.taken(refined)
            drawn = read_label_map(self.refiner.paths(found.id)[0])
        self.out.draw(found, drawn)
        self.journal.add(found.id, counts)

    def __enter__(self) -> "Labeller":
        if self.refiner is not None:
            self._stack.enter_context(self.refiner)
        self._stack.enter_context(self.journal)
        self._stack.enter_context(self.writer)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)


def infer_and_write(
    run: Run,
    photographs: Collection,
    trained: Trained,
    inference: InferenceSettings,
    outputs: OutputSettings,
    device: torch.device,
) -> Outcome:
    """Infer every photograph that is not done, write its files, count it where it has a mask."""
    classifier, scn = (
        devices.parallel(fold(network), device) for network in (trained.classifier, trained.scn)
    )
    labeller = Labeller(run.folder, outputs, photographs.num_classes)
    done = labeller.journal.finished(labeller.complete)
    rows = set(evenly_spread(photographs.ids, SHEET_ROWS))
    gallery = gallery_of(run.folder, photographs, outputs)
    mine = share_out(run, photographs, done, lambda i: i in rows or gallery.lacks(i))
    readers = run.settings.readers(device)
    shown: dict[str, Inferred] = {}
    count = 0
    with labeller:
        for found in infer_collection(
            mine, classifier, scn, inference, device, readers, "cams", run.bad, gallery.lacks
        ):
            count += 1
            if found.superpixels is not None:
                labeller.writer.submit(gallery.add, found, found.superpixels)
            if found.id not in done:
                labeller.take(found)
            if found.id in rows:
                shown[found.id] = found
    return outcome_of(labeller, photographs, len(done), shown, count)


def gallery_of(folder: Path, photographs: Collection, outputs: OutputSettings) -> Gallery:
    """The pictures that only inference can draw, for the report."""
    ids = evenly_spread(photographs.ids, outputs.report_images)
    return Gallery(folder / "report", ids, len(photographs.classes))


def outcome_of(
    labeller: Labeller,
    photographs: Collection,
    done: int,
    shown: dict[str, Inferred],
    inferred: int,
) -> Outcome:
    """What all processes did together."""
    totals = labeller.journal.totals()
    labeller.sweep.counts = totals["counts"]
    gathered = {i: one for part in distributed.gather(shown) for i, one in part.items()}
    ordered = [gathered[i] for i in photographs.ids if i in gathered]
    counts = distributed.total_counts(np.array([inferred, labeller.journal.added]))
    return Outcome(
        labeller.sweep.result(),
        totals.get("refined"),
        ordered,
        images=done + int(counts[1]),
        inferred=int(counts[0]),
    )
