"""The recipe of the segmentation network's evaluator. docs/method.md, section 5."""

import time
from dataclasses import asdict
from pathlib import Path

import torch

from datasets.collection import Collection, evenly_spread, missing_masks
from datasets.files import write_bytes, write_json
from datasets.images import encode_png, read_label_map, read_photograph
from datasets.loading import read_ground_truth
from utils.checkpoints import TrainedSegmentation, open_segmentation
from utils.labels import journal, submission
from utils.labels.crf import require_crf
from utils.labels.mask_evaluation_options import MaskEvaluationSettings
from utils.labels.masks import PLAIN, REFINED, Outcome, mask_path, segment_and_write
from utils.labels.photographs import (
    KnownClasses,
    fingerprints,
    open_photographs,
    say_what_is_odd,
)
from utils.labels.sharing import SHEET_ROWS
from utils.pictures.contact_sheet import label_map_sheet
from utils.pictures.gallery import Gallery
from utils.pictures.report import Evaluation, write_report
from utils.runs import devices, distributed
from utils.runs.progress import progress
from utils.runs.run import Run
from utils.runs.wording import counted, source_of
from utils.scores.tables import percent, score_table, table_in

NAMES = {PLAIN: "predictions", REFINED: "refined by the dense CRF"}
"""What is said of the masks in a folder."""

DETAILS = ("checkpoint", "scales", "flip", "restrict", "crf_constants")
"""What the report says of how the masks were made."""


def evaluate(settings: MaskEvaluationSettings) -> None:
    """The recipe: photographs and network, masks to files and counts, scores and pictures.

    An evaluation that was stopped goes on; of one that is finished the result is printed again.
    """
    device = devices.choose(settings.run.device)
    trained = open_segmentation(settings.checkpoint)
    known = KnownClasses(settings.checkpoint, trained.classes, trained.network.num_classes)
    photographs = open_photographs(settings.photographs, known, settings.inference.restrict)
    if settings.crf is not None:
        require_crf()
    if settings.submission is not None:
        submission.check(photographs)

    def work(run: Run) -> None:
        announce(run, settings, photographs, trained, device)
        started = time.monotonic()
        outcome = segment_and_write(run, photographs, trained.network, settings, device)
        seconds = time.monotonic() - started
        skipped = run.list_skipped()
        if distributed.is_first():
            about = description(settings, photographs, outcome, seconds) | {"skipped": skipped}
            finish(run, settings, photographs, outcome, about)

    made_from = fingerprints(photographs, {"--checkpoint": trained.network})
    journal.carry_out(settings.run, device, made_from, work, show=scores_in)
    if settings.submission is not None and distributed.is_first():
        folder = settings.run.folder / (PLAIN if settings.crf is None else REFINED)
        count = submission.write(settings.submission, photographs, folder)
        print(f"for VOC's test server: {count} masks of {folder} in {settings.submission}")


def announce(
    run: Run,
    settings: MaskEvaluationSettings,
    photographs: Collection,
    trained: TrainedSegmentation,
    device: torch.device,
) -> None:
    """Say what is segmented by what."""
    scored = photographs.masks is not None
    run.say(
        f"masks for {counted(len(photographs.ids), 'photograph')} of "
        f"{source_of(photographs, settings.photographs.images)} from {settings.checkpoint} "
        f"({trained.backbone}), on "
        f"{devices.describe(device)}; {'scored' if scored else 'no ground truth, so not scored'}; "
        f"writing to {run.folder}"
    )
    say_what_is_odd(run, photographs)


def description(
    settings: MaskEvaluationSettings, photographs: Collection, outcome: Outcome, seconds: float
) -> dict:
    """What result.json says besides the scores; the time is that of the `segmented` ones."""
    result = {
        "dataset": photographs.name,
        "split": photographs.split,
        "images": outcome.images,
        "scored_images": outcome.scored,
        "checkpoint": str(settings.checkpoint),
        "scales": list(settings.inference.scales),
        "flip": settings.inference.flip,
        "restrict": settings.inference.restrict,
        "segmented": outcome.segmented,
        "seconds": round(seconds, 2),
        "images_per_second": round(outcome.segmented / seconds, 3),
    }
    if settings.crf is not None:
        constants = asdict(settings.crf)
        constants.pop("confidence")  # has no part in refining probabilities
        result["crf_constants"] = constants
    return result


def finish(
    run: Run,
    settings: MaskEvaluationSettings,
    photographs: Collection,
    outcome: Outcome,
    about: dict,
) -> None:
    """Print and write scores and pictures; `about` is what result.json says besides."""
    result, shown = dict(about), PLAIN if settings.crf is None else REFINED
    if photographs.masks is not None:
        tables = {
            kind: score_table(photographs.classes, [None], matrix[None])
            for kind, matrix in outcome.confusion.items()
        }
        shown = max(tables, key=lambda kind: tables[kind].best_miou)
        result |= tables[PLAIN].as_json()
        if REFINED in tables:
            result["crf"] = tables[REFINED].as_json()
        run.say(scores_in(result))
    result["best_labels"] = shown
    draw(run, settings, photographs, outcome, result, shown)
    # Written last: with it the evaluation counts as finished.
    write_json(run.folder / journal.RESULT, result)
    run.say(f"masks: {run.folder / shown}")


def scores_in(result: dict) -> str:
    """The scores that result.json holds, in words: tables, and on what they were measured."""
    if "thresholds" not in result:
        return ""
    lines = [table_in(result).table()]
    if "crf" in result:
        lines += ["", NAMES[REFINED], table_in(result["crf"]).table(), ""]
    lines.append(headline(result, table_in(result).best_miou, "no CRF"))
    if "crf" in result:
        lines.append(headline(result, table_in(result["crf"]).best_miou, "dense CRF"))
    return "\n".join(lines)


def headline(result: dict, miou: float, refined: str) -> str:
    """An mIoU (0..1), and how and on what it was measured."""
    how = [counted(result["scored_images"], "photograph")]
    how.append("scales " + " ".join(f"{scale:g}" for scale in result["scales"]))
    how += ["mirrored"] if result["flip"] else []
    how += ["restricted to image-level labels"] if result["restrict"] else []
    where = f"{result['dataset']} {result['split']}"
    return f"mIoU {percent(miou)} on {where} ({', '.join([*how, refined])})"


def draw(
    run: Run,
    settings: MaskEvaluationSettings,
    photographs: Collection,
    outcome: Outcome,
    result: dict,
    shown: str,
) -> None:
    """Write the contact sheet, and the report of the masks in the folder `shown`."""
    kinds = tuple(outcome.confusion)
    done = photographs.subset(
        i for i in photographs.ids if mask_path(run.folder, shown, i).is_file()
    )
    sheet = run.folder / "contact_sheet.png"
    titles = (*(NAMES[kind] for kind in kinds), "ground truth")
    rows = sheet_rows(run.folder, done, kinds)
    write_bytes(sheet, encode_png(label_map_sheet(titles, rows, photographs.classes)))
    run.say(f"{result['images_per_second']:.2f} images/s; pictures: {sheet}")
    report = run.folder / "report.html"
    gallery = fill_gallery(run.folder, done, shown, settings.report_images)
    evaluated = evaluation_of(settings, photographs, outcome, result, shown)
    write_report(report, evaluated, photographs, gallery, run.folder / shown)
    run.say(f"report, to open in a browser: {report}")
    if settings.overlays:
        run.say(f"masks drawn on the photographs: {run.folder / 'overlays'}")


def sheet_rows(folder: Path, photographs: Collection, kinds: tuple[str, ...]) -> list[tuple]:
    """Rows of the contact sheet: id, photograph, masks of every kind and ground truth or None."""
    rows, unmasked = [], frozenset(missing_masks(photographs))
    for identifier in evenly_spread(photographs.ids, SHEET_ROWS):
        image = read_photograph(photographs.images[identifier])
        masks = [read_label_map(mask_path(folder, kind, identifier)) for kind in kinds]
        truth = None
        if identifier not in unmasked:
            truth = read_ground_truth(photographs, identifier, image.shape[:2])
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


def evaluation_of(
    settings: MaskEvaluationSettings,
    photographs: Collection,
    outcome: Outcome,
    result: dict,
    shown: str,
) -> Evaluation:
    """What the report shows: the scores, and the masks in the folder `shown`."""
    scored = photographs.masks is not None
    return Evaluation(
        title=f"Segmentation: {settings.run.tag}",
        headline={
            "photographs": result["images"],
            "seconds": result["seconds"],
            "photographs/s": result["images_per_second"],
        },
        details={
            "data set": source_of(photographs, settings.photographs.images),
            **{name: result[name] for name in DETAILS if name in result},
        },
        confusion={NAMES[k]: matrix for k, matrix in outcome.confusion.items() if scored},
        shown=NAMES[shown],
        label="prediction",
    )
