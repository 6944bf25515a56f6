"""One pass over the photographs: infer, write pseudo labels and cams, count pixels.

Each process takes its share. A photograph whose files are all written is noted in the journal, so
that a pass that was stopped goes on where it was.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.collection import Collection, evenly_spread
from datasets.images import read_label_map, write_label_map
from utils.checkpoints import Trained
from utils.inference.cams import InferenceSettings
from utils.inference.collection_cams import Inferred, infer_collection
from utils.inference.folding import fold
from utils.inference.label_maps import label_maps, uncertain_pixels, with_ignored
from utils.labels.cam_formats import CAM_FORMATS
from utils.labels.crf import CrfConstants, refine
from utils.labels.marks import ODD, Marked, gathered, odd_mark
from utils.labels.writing import PhotographWriter
from utils.pictures.contact_sheet import SHEET_ROWS
from utils.pictures.gallery import Gallery
from utils.runs import devices, distributed
from utils.runs.run import Run
from utils.scores.confusion import confusion_matrix
from utils.scores.threshold_sweep import ThresholdSweep

PLAIN, REFINED = "pseudo_labels", "pseudo_labels_crf"
"""Folders of a run that hold pseudo labels."""

PRESENT = "present"
"""A mark of the journal (K,): the classes in the photograph."""


@dataclass
class Outcome:
    """What a pass over the photographs gives.

    Attributes:
        confusion: of the pseudo labels by their folder, (thresholds, C, C), rows ground truth.
        shown: in the first process: a few photographs, evenly spread, for the contact sheet.
        marked: by id the places in PRESENT and in ODD of photographs; in the first process only.
        images: how many photographs have their pseudo labels.
        inferred: how many were inferred just now.
    """

    confusion: dict[str, np.ndarray]
    shown: list[Inferred]
    marked: Marked
    images: int
    inferred: int


@dataclass(frozen=True)
class OutputSettings:
    """What an evaluator writes of every photograph.

    Attributes:
        thresholds: of background; the labels of each are written and scored.
        save_cams: formats in which cams are written too, see utils.labels.cam_formats.
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


class PseudoLabelWriter(PhotographWriter):
    """Writes and counts pseudo labels behind the inference.

    Args:
        folder: of the run.
        settings: what is written.
        num_classes: C, background included.
    """

    def __init__(self, folder: Path, settings: OutputSettings, num_classes: int) -> None:
        self.settings, self.num_classes = settings, num_classes
        self.sweep = ThresholdSweep(num_classes, settings.thresholds)
        self.kinds = (PLAIN,) if settings.crf is None else (PLAIN, REFINED)
        shapes = {"counts": self.sweep.counts.shape, PRESENT: (num_classes - 1,), ODD: (2,)}
        if settings.crf is not None:
            shapes["refined"] = (len(settings.thresholds), num_classes, num_classes)
        workers = settings.crf_workers if settings.crf else 0
        super().__init__(folder, shapes, settings.overlays, workers, marks=(PRESENT, ODD))

    def label_files(self, identifier: str, kind: str = PLAIN) -> list[Path]:
        """The label maps of a photograph, one a threshold; `kind` is PLAIN or REFINED."""
        folder = self.folder / kind
        return [folder / f"{t:g}" / f"{identifier}.png" for t in self.settings.thresholds]

    def cam_files(self, identifier: str) -> dict[str, Path]:
        """The files of a photograph's cams by their format."""
        formats = {name: CAM_FORMATS[name] for name in self.settings.save_cams}
        return {
            name: self.folder / one.folder / f"{identifier}{one.ending}"
            for name, one in formats.items()
        }

    def files(self, identifier: str) -> list[Path]:
        """All files of a photograph."""
        labels = [path for kind in self.kinds for path in self.label_files(identifier, kind)]
        return [*super().files(identifier), *labels, *self.cam_files(identifier).values()]

    def take(self, found: Inferred) -> None:
        """Label, refine, write and count one photograph soon."""
        if self.workers is None:
            self.writer.submit(self._finish, found)
            return
        known = self._labels(found)
        refined = self.workers.run(
            _refine_and_write,
            self.label_files(found.id, REFINED),
            found.photograph,
            *known,
            found.mask,
            self.num_classes,
            self.settings.crf,
        )
        self.writer.submit(self._finish, found, known, refined)

    def _labels(self, found: Inferred) -> tuple[np.ndarray, np.ndarray | None]:
        labels = label_maps(found.classes, found.cams, self.settings.thresholds)
        return labels, uncertain_pixels(found.cams, self.settings.uncertain)

    def _finish(
        self,
        found: Inferred,
        known: tuple[np.ndarray, np.ndarray | None] | None = None,
        refined: "Future[np.ndarray] | None" = None,
    ) -> None:
        labels = with_ignored(*(known or self._labels(found)))
        self.write(found, labels)
        drawn, counts = labels[0], self._counts(found)
        if refined is not None:
            counts["refined"] = self.workers.taken(refined)
            drawn = read_label_map(self.label_files(found.id, REFINED)[0])
        self.draw(found.id, found.photograph, drawn)
        self.journal.add(found.id, counts)

    def _counts(self, found: Inferred) -> dict[str, np.ndarray]:
        counted = np.zeros_like(self.sweep.counts)
        if found.mask is not None:
            counted = self.sweep.count(found.classes, found.cams, found.mask)
        present = np.zeros(self.num_classes - 1, np.int64)
        present[found.classes] = 1
        blank = len(found.classes) > 0 and not found.cams.any()
        return {"counts": counted, PRESENT: present, ODD: odd_mark(blank, found.shrunk)}

    def write(self, found: Inferred, labels: np.ndarray) -> None:
        """Write the labels (thresholds, H, W) uint8 of one photograph, and its cams."""
        for path, one in zip(self.label_files(found.id), labels, strict=True):
            write_label_map(path, one)
        for name, path in self.cam_files(found.id).items():
            CAM_FORMATS[name].write(path, found)


def _refine_and_write(
    paths: list[Path],
    photograph: np.ndarray,
    labels: np.ndarray,
    uncertain: np.ndarray | None,
    mask: np.ndarray | None,
    num_classes: int,
    constants: CrfConstants,
) -> np.ndarray:
    """In a worker: refine labels (T, H, W) and write them, 255 where they are uncertain.

    Returns:
        Their confusion matrices (T, C, C), without regard to what is uncertain; zeros without a
        mask.
    """
    confusion = np.zeros((len(labels), num_classes, num_classes), np.int64)
    for i, path in enumerate(paths):
        refined = refine(photograph, labels[i], constants)
        write_label_map(path, with_ignored(refined, uncertain))
        if mask is not None:
            confusion[i] = confusion_matrix(mask, refined, num_classes)
    return confusion


def infer_and_write(
    run: Run,
    photographs: Collection,
    trained: Trained,
    inference: InferenceSettings,
    outputs: OutputSettings,
) -> Outcome:
    """Infer every photograph that is not done, write its files, count it where it has a mask."""
    classifier, scn = (
        devices.parallel(fold(network), run.device) for network in (trained.classifier, trained.scn)
    )
    out = PseudoLabelWriter(run.folder, outputs, photographs.num_classes)
    rows = set(evenly_spread(photographs.ids, SHEET_ROWS))
    gallery = gallery_of(run.folder, photographs, outputs)

    def pictured(identifier: str) -> bool:
        return identifier in rows or gallery.lacks(identifier)

    done, mine = out.take_up(run, photographs, pictured)
    shown: dict[str, Inferred] = {}
    count = 0
    with out:
        for found in infer_collection(
            mine, classifier, scn, inference, run.reader, "cams", pictured
        ):
            count += 1
            if gallery.lacks(found.id):
                out.writer.submit(gallery.add, found, found.superpixels)
            if found.id not in done:
                out.take(found)
            if found.id in rows:
                shown[found.id] = found
    return outcome_of(out, photographs, len(done), shown, count)


def gallery_of(folder: Path, photographs: Collection, outputs: OutputSettings) -> Gallery:
    """The pictures that only inference can draw, for the report."""
    ids = evenly_spread(photographs.ids, outputs.report_images)
    return Gallery(folder / "report", ids, len(photographs.classes))


def outcome_of(
    out: PseudoLabelWriter,
    photographs: Collection,
    done: int,
    shown: dict[str, Inferred],
    inferred: int,
) -> Outcome:
    """What all processes did together."""
    totals = out.journal.totals()
    out.sweep.counts = totals["counts"]
    shown = {i: one for part in distributed.gather(shown) for i, one in part.items()}
    counts = distributed.all_reduce_counts(np.array([inferred, out.journal.added]))
    confusion = {PLAIN: out.sweep.result()}
    if "refined" in totals:
        confusion[REFINED] = totals["refined"]
    return Outcome(
        confusion,
        [shown[i] for i in photographs.ids if i in shown],
        gathered(out.journal.marked, photographs.ids),
        images=done + int(counts[1]),
        inferred=int(counts[0]),
    )
