"""The recipe of the classifier's evaluators. docs/method.md, section 3."""

import time
from dataclasses import dataclass, replace

from datasets.collection import Collection
from datasets.files import write_bytes, write_json
from datasets.images import encode_png, read_label_map
from datasets.labels import write_csv_labels
from utils.checkpoints import SHIPPED, Trained, open_trained
from utils.inference.label_maps import USUAL_THRESHOLD
from utils.labels import export_deeplab
from utils.labels.cam_evaluation_options import THRESHOLDS, CamEvaluationSettings, require_folders
from utils.labels.crf import require_crf
from utils.labels.evaluation import carry_out
from utils.labels.marks import BLANK, about_scaling, odd_ids
from utils.labels.photographs import (
    KnownClasses,
    fingerprints,
    open_photographs,
    require_some,
    say_what_is_odd,
)
from utils.labels.pseudo_labels import (
    PLAIN,
    PRESENT,
    REFINED,
    Outcome,
    gallery_of,
    infer_and_write,
)
from utils.labels.results import (
    REFINED_BY,
    about_evaluation,
    best_folder,
    headline,
    scores_as_json,
    scores_in_words,
    tables_of,
)
from utils.pictures.contact_sheet import labelled_sheet
from utils.pictures.report import PageContent, write_report
from utils.runs import devices, distributed
from utils.runs.best_labels import best_labels
from utils.runs.data import own_list
from utils.runs.run import PREDICTED_FILE, RESULT, Run
from utils.runs.wording import counted, counted_ids, source_of

NAMES = {PLAIN: "pseudo labels", REFINED: REFINED_BY}
"""What is said of the labels in a folder."""

NOT_LEARNED = ("val", "test")
"""Splits from which no segmentation network is trained."""

DETAILS = (
    *("checkpoint", "labels", "score_threshold", "scales", "max_side", "flip"),
    *("beta", "gamma", "gamma_keep"),
)
"""What the report says of how the cams were inferred."""


@dataclass(frozen=True)
class Labels:
    """The pseudo labels that a result names and its pictures show.

    Attributes:
        folder: PLAIN or REFINED.
        threshold: of background.
    """

    folder: str
    threshold: float

    @property
    def path(self) -> str:
        """In the folder of the run."""
        return f"{self.folder}/{self.threshold:g}"


def evaluate(settings: CamEvaluationSettings) -> None:
    """The recipe: photographs and networks, cams to files and counts, scores and pictures.

    An evaluation that was stopped goes on; of one that is finished the result is printed again.
    """
    device = devices.choose(settings.run.device)
    trained = open_trained(settings.checkpoint, settings.scn)
    count = trained.classifier.num_classes
    known = KnownClasses(settings.checkpoint, trained.classes, count)
    photographs = open_photographs(settings.photographs, known)
    thresholds = thresholds_to_write(settings, trained, photographs.has_masks)
    settings = replace(settings, outputs=replace(settings.outputs, thresholds=thresholds))
    if settings.outputs.crf is not None:
        require_crf()
    if settings.export_deeplab is not None:
        with distributed.first_goes_ahead():  # the others see its mark whole, or not at all
            export_deeplab.check(settings.export_deeplab, photographs)
    evaluation = CamEvaluation(settings, photographs, trained)
    networks = {"--checkpoint": trained.classifier, "--scn": trained.scn}
    made_from = fingerprints(photographs, networks)
    carry_out(settings.run, device, made_from, evaluation.work, show=scores_in_words)
    if settings.export_deeplab is not None and distributed.is_first():
        labels = best_labels(settings.run.folder)
        pairs = export_deeplab.export(settings.export_deeplab, photographs, labels)
        print(f"for deeplab-pytorch: {pairs}")


def thresholds_to_write(
    settings: CamEvaluationSettings, trained: Trained, scored: bool
) -> tuple[float, ...]:
    """The background thresholds at which labels are written.

    Where they are scored, those that are given, else the usual ones. Where nothing tells which is
    best, those that are given, else the best in training; the first is the one that pictures show.

    Raises:
        InputError: two thresholds would share a folder.
    """
    given, one_more = settings.outputs.thresholds, settings.threshold
    extra = () if one_more is None else (one_more,)
    if scored:
        thresholds = sorted({*(given or THRESHOLDS), *extra})
    else:
        choices = (one_more, trained.threshold, USUAL_THRESHOLD)
        best = next(choice for choice in choices if choice is not None)
        thresholds = sorted({*given, *extra} or {best}, key=lambda one: abs(one - best))
    require_folders(thresholds)
    return tuple(thresholds)


@dataclass(frozen=True)
class CamEvaluation:
    """What a run of an evaluator does.

    Attributes:
        settings: what the evaluator is told; its thresholds are those that are written.
        photographs: to infer; scored if they have masks.
        trained: the networks.
    """

    settings: CamEvaluationSettings
    photographs: Collection
    trained: Trained

    def work(self, run: Run) -> None:
        """Infer and write, then score and show; result.json comes last."""
        self.announce(run)
        started = time.monotonic()
        settings = self.settings
        outcome = infer_and_write(
            run, self.photographs, self.trained, settings.inference, settings.outputs
        )
        seconds = time.monotonic() - started
        skipped = run.list_skipped()
        if not distributed.is_first():
            return
        require_some(outcome.images)
        self.say_what_was_found(run, outcome)
        scores, labels = self.scores(outcome)
        result = self.description(outcome, seconds) | {"skipped": skipped} | scores
        result["best_labels"] = labels.path
        if self.photographs.has_masks:
            run.say(scores_in_words(result))
        self.draw(run, outcome, result, labels)
        # Written last: with it the evaluation counts as finished.
        write_json(run.folder / RESULT, result)
        run.say(f"pseudo labels: {run.folder / labels.path}")
        if settings.photographs.images is None and self.photographs.split not in NOT_LEARNED:
            options = own_list(settings.photographs.data)
            run.say_next("train_seg.py", "--labels_from", settings.run.tag, *options)

    def announce(self, run: Run) -> None:
        """Say what is evaluated on what, and what may be unwanted about it."""
        settings = self.settings
        scored = "scored against masks" if self.photographs.has_masks else "no masks, so not scored"
        run.say(
            f"pseudo labels for {counted(len(self.photographs.ids), 'photograph')} of "
            f"{source_of(self.photographs, settings.photographs.images)} from "
            f"{settings.checkpoint}, on {devices.describe(run.device)}; {scored}; "
            f"writing to {run.folder}"
        )
        say_what_is_odd(run, self.photographs)
        if self.trained.shipped_scn:
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

    def say_what_was_found(self, run: Run, outcome: Outcome) -> None:
        """Write the labels that were predicted; note what is odd about single photographs."""
        settings, classes, images = self.settings, self.photographs.classes, self.photographs.images
        run.note(*about_scaling(outcome.marked, settings.inference.max_side))
        blank = odd_ids(outcome.marked, BLANK)
        if blank:
            run.note(f"all background, as no cam is above 0: {counted_ids(blank)}")
        if settings.inference.predict_from is not None:
            found = {i: marks[PRESENT] for i, marks in outcome.marked.items()}
            path = run.folder / PREDICTED_FILE
            write_csv_labels(
                path, {images[i].name: [classes[k] for k in there] for i, there in found.items()}
            )
            option = "--labels_file" if settings.photographs.images is None else "--labels"
            run.say(f"the classes that were found, as {option} takes them: {path}")
            none = [i for i, there in found.items() if not there]
            if none:
                run.note(f"no class reaches --score_threshold: {counted_ids(none)}")

    def scores(self, outcome: Outcome) -> tuple[dict, Labels]:
        """What result.json says of the scores, and the best labels; without masks those there are.

        Without masks refined labels, if any, are taken.
        """
        thresholds = self.settings.outputs.thresholds
        if not self.photographs.has_masks:
            folder = REFINED if self.settings.outputs.crf else PLAIN
            return {"threshold": thresholds[0]}, Labels(folder, thresholds[0])
        tables = tables_of(self.photographs.classes, thresholds, outcome.confusion)
        folder = best_folder(tables)
        best = tables[folder]
        return scores_as_json(tables), Labels(folder, best.thresholds[best.best])

    def description(self, outcome: Outcome, seconds: float) -> dict:
        """What result.json says besides the scores; seconds are those of the `inferred` ones."""
        settings, inference = self.settings, self.settings.inference
        kept, uncertain = inference.keep, settings.outputs.uncertain
        result = {
            **about_evaluation(
                self.photographs,
                settings.checkpoint,
                inference,
                outcome.images,
                outcome.inferred,
                seconds,
            ),
            "labels": settings.photographs.labels or "given",
            "beta": inference.beta,
            **({"gamma": inference.gamma} if kept is None else {"gamma_keep": kept}),
            "inferred": outcome.inferred,
        }
        if uncertain is not None:
            result["uncertain"] = list(uncertain)
        if inference.predict_from is not None:
            result["score_threshold"] = inference.predict_from
        return result

    def draw(self, run: Run, outcome: Outcome, result: dict, labels: Labels) -> None:
        """Write the contact sheet and the report of these labels."""
        folder = run.folder / labels.path
        sheet = run.folder / "contact_sheet.png"
        pictures = labelled_sheet(
            outcome.shown,
            lambda found: read_label_map(folder / f"{found.id}.png"),
            f"{NAMES[labels.folder]} ({labels.threshold:g})",
            self.photographs.classes,
        )
        write_bytes(sheet, encode_png(pictures))
        run.say(f"{result['images_per_second']:.2f} images/s; pictures: {sheet}")
        report = run.folder / "report.html"
        gallery = gallery_of(run.folder, self.photographs, self.settings.outputs)
        evaluated = self.reported(outcome, result, labels)
        left_out = write_report(report, evaluated, self.photographs, gallery, folder)
        run.say(f"report, to open in a browser: {report}")
        if left_out:
            count = counted(left_out, "photograph")
            run.say(f"not in it, since pictures or pseudo label are missing: {count}")
        if self.settings.outputs.overlays:
            run.say(f"labels drawn on the photographs: {run.folder / 'overlays'}")

    def reported(self, outcome: Outcome, result: dict, labels: Labels) -> PageContent:
        """What the report shows: all scores, and these labels."""
        scored = outcome.confusion.items() if self.photographs.has_masks else ()
        return PageContent(
            title=f"Pseudo labels: {self.settings.run.tag}",
            headline=headline(result, outcome.inferred),
            details={
                "data set": source_of(self.photographs, self.settings.photographs.images),
                **{name: result[name] for name in DETAILS if name in result},
            },
            threshold=labels.threshold,
            thresholds=self.settings.outputs.thresholds,
            confusion={NAMES[kind]: matrices for kind, matrices in scored},
            shown=NAMES[labels.folder],
        )
