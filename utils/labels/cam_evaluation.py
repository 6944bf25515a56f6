"""The recipe of the classifier's evaluators. docs/method.md, section 3."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from datasets.collection import Collection
from datasets.files import InputError, write_bytes, write_json
from datasets.images import encode_png, read_label_map
from utils.checkpoints import SHIPPED, Trained, open_trained
from utils.inference.label_maps import USUAL_THRESHOLD
from utils.labels import export_deeplab, journal
from utils.labels.cam_evaluation_options import CamEvaluationSettings
from utils.labels.crf import require_crf
from utils.labels.photographs import (
    KnownClasses,
    fingerprints,
    open_photographs,
    say_what_is_odd,
)
from utils.labels.pseudo_labels import (
    PLAIN,
    REFINED,
    Outcome,
    gallery_of,
    infer_and_write,
)
from utils.pictures.contact_sheet import labelled_sheet
from utils.pictures.report import Evaluation, write_report
from utils.runs import devices, distributed
from utils.runs.best_labels import best_labels
from utils.runs.run import Run
from utils.runs.wording import counted, source_of
from utils.scores.tables import score_table, table_in

NAMES = {PLAIN: "pseudo labels", REFINED: "refined by the dense CRF"}
"""What is said of the labels in a folder."""

DETAILS = (
    *("checkpoint", "labels", "score_threshold", "scales", "flip"),
    *("beta", "gamma", "gamma_keep"),
)
"""What the report says of how the cams were inferred."""


def evaluate(settings: CamEvaluationSettings) -> None:
    """The recipe: photographs and networks, cams to files and counts, scores and pictures.

    An evaluation that was stopped goes on; of one that is finished the result is printed again.
    """
    device = devices.choose(settings.run.device)
    trained = open_trained(settings.checkpoint, settings.scn)
    count = trained.classifier.num_classes
    known = KnownClasses(settings.checkpoint, trained.classes, count)
    photographs = open_photographs(settings.photographs, known)
    thresholds = thresholds_to_write(settings, trained, photographs.masks is not None)
    settings = replace(settings, outputs=replace(settings.outputs, thresholds=thresholds))
    if settings.outputs.crf is not None:
        require_crf()
    if settings.export_deeplab is not None:
        export_deeplab.check(settings.export_deeplab, photographs)

    def work(run: Run) -> None:
        announce(run, settings, photographs, trained, device)
        started = time.monotonic()
        outcome = infer_and_write(
            run, photographs, trained, settings.inference, settings.outputs, device
        )
        seconds = time.monotonic() - started
        skipped = run.list_skipped()
        if distributed.is_first():
            about = description(settings, photographs, outcome, seconds) | {"skipped": skipped}
            finish(run, settings, photographs, trained, outcome, about)

    networks = {"--checkpoint": trained.classifier, "--scn": trained.scn}
    journal.carry_out(settings.run, device, fingerprints(photographs, networks), work, tables_in)
    if settings.export_deeplab is not None and distributed.is_first():
        labels = best_labels(settings.run.folder)
        pairs = export_deeplab.export(settings.export_deeplab, photographs, labels)
        print(f"for deeplab-pytorch: {pairs}")


def tables_in(found: dict) -> str:
    """The scores that result.json holds, in words."""
    tables = [table_in(found).table()] if "thresholds" in found else []
    if "crf" in found:
        tables.append(f"{NAMES[REFINED]}\n{table_in(found['crf']).table()}")
    return "\n\n".join(tables)


def announce(
    run: Run,
    settings: CamEvaluationSettings,
    photographs: Collection,
    trained: Trained,
    device: torch.device,
) -> None:
    """Say what is evaluated on what, and what may be unwanted about it."""
    scored = photographs.masks is not None
    run.say(
        f"pseudo labels for {counted(len(photographs.ids), 'photograph')} of "
        f"{source_of(photographs, settings.photographs.images)} from {settings.checkpoint}, on "
        f"{devices.describe(device)}; "
        f"{'scored against masks' if scored else 'no masks, so not scored'}; "
        f"writing to {run.folder}"
    )
    say_what_is_odd(run, photographs)
    if trained.shipped_scn:
        run.note(
            f"{settings.checkpoint} holds no superpixel network; taking {SHIPPED} "
            "(--scn names the one it was trained with)"
        )
    if settings.outputs.uncertain is not None:
        low, high = settings.outputs.uncertain
        run.say(
            f"written labels are 255 where {low:g} < strongest cam <= {high:g}; "
            "scores are those of the labels without 255"
        )


def thresholds_to_write(
    settings: CamEvaluationSettings, trained: Trained, scored: bool
) -> tuple[float, ...]:
    """All thresholds where they can be compared; else the one given, or the best in training.

    Raises:
        InputError: two thresholds would share a folder.
    """
    if not scored:
        choices = (settings.threshold, trained.threshold, USUAL_THRESHOLD)
        return (next(choice for choice in choices if choice is not None),)
    extra = () if settings.threshold is None else (settings.threshold,)
    thresholds = tuple(sorted({*settings.outputs.thresholds, *extra}))
    if len({f"{threshold:g}" for threshold in thresholds}) < len(thresholds):
        raise InputError("--thresholds: two of them agree in six digits and would share a folder")
    return thresholds


def description(
    settings: CamEvaluationSettings,
    photographs: Collection,
    outcome: Outcome,
    seconds: float,
) -> dict:
    """What result.json says besides the scores; seconds are those of the `inferred` photographs."""
    result = {
        "dataset": photographs.name,
        "split": photographs.split,
        "images": outcome.images,
        "checkpoint": str(settings.checkpoint),
        "labels": settings.photographs.labels or "given",
        "scales": list(settings.inference.scales),
        "flip": settings.inference.flip,
        "beta": settings.inference.beta,
        **cut_of(settings),
        "inferred": outcome.inferred,
        "seconds": round(seconds, 2),
        "images_per_second": round(outcome.inferred / seconds, 3),
    }
    if settings.outputs.uncertain is not None:
        result["uncertain"] = list(settings.outputs.uncertain)
    if settings.inference.predict_from is not None:
        result["score_threshold"] = settings.inference.predict_from
    return result


def cut_of(settings: CamEvaluationSettings) -> dict:
    """Where affinities are cut, by the option that says so."""
    keep = settings.inference.keep
    return {"gamma": settings.inference.gamma} if keep is None else {"gamma_keep": keep}


def scores_of(
    run: Run, photographs: Collection, thresholds: Sequence[float], outcome: Outcome
) -> tuple[dict, str, float]:
    """Print the scores.

    Returns:
        (what result.json says of them, the folder of the best labels, their threshold).
    """
    plain = score_table(photographs.classes, thresholds, outcome.confusion)
    run.say(plain.table())
    result, folder, best = plain.as_json(), PLAIN, plain
    if outcome.refined is not None:
        refined = score_table(photographs.classes, thresholds, outcome.refined)
        run.say(f"\n{NAMES[REFINED]}\n{refined.table()}")
        result["crf"] = refined.as_json()
        if refined.best_miou > plain.best_miou:
            folder, best = REFINED, refined
    return result, folder, best.thresholds[best.best]


def finish(
    run: Run,
    settings: CamEvaluationSettings,
    photographs: Collection,
    trained: Trained,
    outcome: Outcome,
    about: dict,
) -> None:
    """Print and write scores and pictures; `about` is what result.json says besides."""
    thresholds = settings.outputs.thresholds
    if photographs.masks is None:
        folder = REFINED if settings.outputs.crf else PLAIN
        threshold = thresholds[0]
        result = about | {"threshold": threshold}
    else:
        found, folder, threshold = scores_of(run, photographs, thresholds, outcome)
        result = about | found
    result["best_labels"] = f"{folder}/{threshold:g}"
    draw(run, settings, photographs, trained, outcome, result, folder, threshold)
    # Written last: with it the evaluation counts as finished.
    write_json(run.folder / journal.RESULT, result)
    run.say(f"pseudo labels: {run.folder / result['best_labels']}")
    if settings.photographs.images is None:
        run.say_next(f"train_seg.py --labels_from {settings.run.tag}")


def draw(
    run: Run,
    settings: CamEvaluationSettings,
    photographs: Collection,
    trained: Trained,
    outcome: Outcome,
    result: dict,
    folder: str,
    threshold: float,
) -> None:
    """Write the contact sheet and the report of the labels in `folder` at `threshold`."""
    labels = run.folder / folder / f"{threshold:g}"
    sheet = run.folder / "contact_sheet.png"
    pictures = labelled_sheet(
        outcome.shown,
        trained.scn,
        lambda found: read_label_map(labels / f"{found.id}.png"),
        f"{NAMES[folder]} ({threshold:g})",
        photographs.classes,
    )
    write_bytes(sheet, encode_png(pictures))
    run.say(f"{result['images_per_second']:.2f} images/s; pictures: {sheet}")
    report = run.folder / "report.html"
    gallery = gallery_of(run.folder, photographs, settings.outputs)
    evaluated = evaluation_of(settings, photographs, outcome, result, folder, threshold)
    left_out = write_report(report, evaluated, photographs, gallery, labels)
    run.say(f"report, to open in a browser: {report}")
    if left_out:
        count = counted(left_out, "photograph")
        run.say(f"not in it, since pictures or pseudo label are missing: {count}")
    if settings.outputs.overlays:
        run.say(f"labels drawn on the photographs: {run.folder / 'overlays'}")


def evaluation_of(
    settings: CamEvaluationSettings,
    photographs: Collection,
    outcome: Outcome,
    result: dict,
    folder: str,
    threshold: float,
) -> Evaluation:
    """What the report shows: all scores, and the labels of `folder` at `threshold`."""
    found = {PLAIN: outcome.confusion, REFINED: outcome.refined}
    scored = photographs.masks is not None
    again = outcome.inferred < outcome.images
    seconds = f"seconds, the last {outcome.inferred} of them" if again else "seconds"
    return Evaluation(
        title=f"Pseudo labels: {settings.run.tag}",
        headline={
            "photographs": result["images"],
            seconds: result["seconds"],
            "photographs/s": result["images_per_second"],
        },
        details={
            "data set": source_of(photographs, settings.photographs.images),
            **{name: result[name] for name in DETAILS if name in result},
        },
        threshold=threshold,
        thresholds=settings.outputs.thresholds,
        confusion={NAMES[k]: v for k, v in found.items() if scored and v is not None},
        shown=NAMES[folder],
    )
