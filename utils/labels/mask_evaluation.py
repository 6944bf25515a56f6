"""The recipe of the segmentation network's evaluator. docs/method.md, section 5."""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from datasets.collection import Collection, evenly_spread
from datasets.files import write_bytes, write_json
from datasets.images import encode_png, read_label_map, read_photograph
from datasets.loading import ground_truth_of
from utils.checkpoints import TrainedSegmentation, open_segmentation
from utils.inference.segmentation import side_limit
from utils.labels import submission
from utils.labels.crf import require_crf
from utils.labels.evaluation import carry_out
from utils.labels.marks import BLANK, about_scaling, odd_ids
from utils.labels.mask_evaluation_options import MaskEvaluationSettings
from utils.labels.masks import PLAIN, REFINED, Outcome, mask_path, segment_and_write
from utils.labels.photographs import (
    KnownClasses,
    fingerprints,
    open_photographs,
    require_some,
    say_what_is_odd,
)
from utils.labels.results import (
    REFINED_BY,
    about_evaluation,
    best_folder,
    headline,
    scores_as_json,
    scores_in_words,
    tables_in,
    tables_of,
)
from utils.pictures.contact_sheet import SHEET_ROWS, label_map_sheet
from utils.pictures.gallery import Gallery
from utils.pictures.report import PageContent, write_report
from utils.runs import devices, distributed
from utils.runs.progress import progress
from utils.runs.run import RESULT, Run
from utils.runs.wording import counted, counted_ids, source_of
from utils.scores.tables import percent

NAMES = {PLAIN: "predictions", REFINED: REFINED_BY}
"""What is said of the masks in a folder."""

DETAILS = ("checkpoint", "scales", "max_side", "flip", "restrict", "crf_constants")
"""What the report says of how the masks were made."""


def evaluate(settings: MaskEvaluationSettings) -> None:
    """The recipe: photographs and network, masks to files and counts, scores and pictures.

    An evaluation that was stopped goes on; of one that is finished the result is printed again.
    """
    device = devices.choose(settings.run.device)
    trained = open_segmentation(settings.checkpoint)
    known = KnownClasses(settings.checkpoint, trained.classes, trained.network.num_classes)
    restricted = settings.inference.restrict
    photographs = open_photographs(settings.photographs, known, restricted, predictable=False)
    if settings.crf is not None:
        require_crf()
    if settings.submission is not None:
        submission.check(photographs)
    max_side = side_limit(settings.inference.max_side, trained.network)
    inference = replace(settings.inference, max_side=max_side)
    settings = replace(settings, inference=inference)
    evaluation = MaskEvaluation(settings, photographs, trained)
    made_from = fingerprints(photographs, {"--checkpoint": trained.network})
    carry_out(settings.run, device, made_from, evaluation.work, show=scores_in)
    if settings.submission is not None and distributed.is_first():
        folder = settings.run.folder / (PLAIN if settings.crf is None else REFINED)
        count = submission.write(settings.submission, photographs, folder)
        print(f"for VOC's test server: {count} masks of {folder} in {settings.submission}")


def scores_in(result: dict) -> str:
    """The scores that result.json holds, in words: tables, and on what they were measured."""
    mious = [found.best_miou for found in tables_in(result)]
    lines = map(partial(miou_in_words, result), mious, ("no CRF", "dense CRF"))
    return "\n".join(filter(None, [scores_in_words(result), *lines]))


def miou_in_words(result: dict, miou: float, refined: str) -> str:
    """An mIoU (0..1), and how and on what it was measured."""
    how = [counted(result["scored_images"], "photograph")]
    how.append("scales " + " ".join(f"{scale:g}" for scale in result["scales"]))
    how += ["mirrored"] if result["flip"] else []
    how += ["restricted to image-level labels"] if result["restrict"] else []
    where = f"{result['dataset']} {result['split']}"
    return f"mIoU {percent(miou)} on {where} ({', '.join([*how, refined])})"


@dataclass(frozen=True)
class MaskEvaluation:
    """What a run of the segmentation network's evaluator does.

    Attributes:
        settings: what the evaluator is told.
        photographs: to segment; scored if they have masks.
        trained: the network.
    """

    settings: MaskEvaluationSettings
    photographs: Collection
    trained: TrainedSegmentation

    def work(self, run: Run) -> None:
        """Segment and write, then score and show; result.json comes last."""
        self.announce(run)
        started = time.monotonic()
        outcome = segment_and_write(run, self.photographs, self.trained.network, self.settings)
        seconds = time.monotonic() - started
        skipped = run.list_skipped()
        if not distributed.is_first():
            return
        require_some(outcome.images)
        run.note(*about_scaling(outcome.marked, self.settings.inference.max_side))
        blank = odd_ids(outcome.marked, BLANK)
        if 2 * len(blank) > outcome.images:
            run.note(f"all background: {counted_ids(blank)}")
        scores, shown = self.scores(outcome)
        result = self.description(outcome, seconds) | {"skipped": skipped} | scores
        result["best_labels"] = shown
        if self.photographs.has_masks:
            run.say(scores_in(result))
        self.draw(run, outcome, result, shown)
        # Written last: with it the evaluation counts as finished.
        write_json(run.folder / RESULT, result)
        run.say(f"masks: {run.folder / shown}")

    def announce(self, run: Run) -> None:
        """Say what is segmented by what."""
        settings = self.settings
        run.say(
            f"masks for {counted(len(self.photographs.ids), 'photograph')} of "
            f"{source_of(self.photographs, settings.photographs.images)} from "
            f"{settings.checkpoint} ({self.trained.backbone}), on "
            f"{devices.describe(run.device)}; "
            f"{'scored' if self.photographs.has_masks else 'no ground truth, so not scored'}; "
            f"writing to {run.folder}"
        )
        say_what_is_odd(run, self.photographs)

    def scores(self, outcome: Outcome) -> tuple[dict, str]:
        """What result.json says of the scores, and the folder of the best masks.

        Without ground truth there are no scores, and refined masks, if any, are shown.
        """
        if not self.photographs.has_masks:
            return {}, PLAIN if self.settings.crf is None else REFINED
        tables = tables_of(self.photographs.classes, [None], outcome.confusion)
        return scores_as_json(tables), best_folder(tables)

    def description(self, outcome: Outcome, seconds: float) -> dict:
        """What result.json says besides the scores; the time is that of the `segmented` ones."""
        inference, crf = self.settings.inference, self.settings.crf
        result = {
            **about_evaluation(
                self.photographs,
                self.settings.checkpoint,
                inference,
                outcome.images,
                outcome.segmented,
                seconds,
            ),
            "scored_images": outcome.scored,
            "restrict": inference.restrict,
            "segmented": outcome.segmented,
        }
        if crf is not None:
            constants = asdict(crf)
            constants.pop("confidence")  # has no part in refining probabilities
            result["crf_constants"] = constants
        return result

    def draw(self, run: Run, outcome: Outcome, result: dict, shown: str) -> None:
        """Write the contact sheet, and the report of the masks in the folder `shown`."""
        kinds = tuple(outcome.confusion)
        done = self.photographs.subset(
            i for i in self.photographs.ids if mask_path(run.folder, shown, i).is_file()
        )
        sheet = run.folder / "contact_sheet.png"
        titles = (*(NAMES[kind] for kind in kinds), "ground truth")
        rows = sheet_rows(run.folder, done, kinds)
        write_bytes(sheet, encode_png(label_map_sheet(titles, rows, self.photographs.classes)))
        run.say(f"{result['images_per_second']:.2f} images/s; pictures: {sheet}")
        report = run.folder / "report.html"
        gallery = fill_gallery(run.folder, done, shown, self.settings.report_images)
        evaluated = self.reported(outcome, result, shown)
        write_report(report, evaluated, self.photographs, gallery, run.folder / shown)
        run.say(f"report, to open in a browser: {report}")
        if self.settings.overlays:
            run.say(f"masks drawn on the photographs: {run.folder / 'overlays'}")

    def reported(self, outcome: Outcome, result: dict, shown: str) -> PageContent:
        """What the report shows: the scores, and the masks in the folder `shown`."""
        found = outcome.confusion.items() if self.photographs.has_masks else ()
        return PageContent(
            title=f"Segmentation: {self.settings.run.tag}",
            headline=headline(result, outcome.segmented),
            details={
                "data set": source_of(self.photographs, self.settings.photographs.images),
                **{name: result[name] for name in DETAILS if name in result},
            },
            confusion={NAMES[kind]: matrix for kind, matrix in found},
            shown=NAMES[shown],
            label="prediction",
        )


def sheet_rows(folder: Path, photographs: Collection, kinds: tuple[str, ...]) -> list[tuple]:
    """Rows of the contact sheet: id, photograph, masks of every kind and ground truth or None."""
    rows = []
    for identifier in evenly_spread(photographs.ids, SHEET_ROWS):
        image = read_photograph(photographs.images[identifier])
        masks = [read_label_map(mask_path(folder, kind, identifier)) for kind in kinds]
        truth = ground_truth_of(photographs, identifier, image.shape[:2])
        rows.append((identifier, image, [*masks, truth]))
    return rows


def fill_gallery(folder: Path, photographs: Collection, shown: str, count: int) -> Gallery:
    """The report's thumbnails, drawn from photographs and masks."""
    ids = evenly_spread(photographs.ids, count)
    gallery = Gallery(folder / "report", ids, len(photographs.classes))
    for identifier in progress([i for i in ids if gallery.lacks(i)], "report", "image"):
        labels = read_label_map(mask_path(folder, shown, identifier))
        classes = [k - 1 for k in range(1, photographs.num_classes) if (labels == k).any()]
        image = read_photograph(photographs.images[identifier])
        gallery.add_photograph(identifier, image, classes)
    return gallery
