"""Writing and scoring pseudo labels; what the two evaluators share. docs/method.md, section 3."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets import coco
from datasets.classes import coco_classes, read_class_list, voc_classes
from datasets.collection import Collection, missing_labels, missing_masks, require_classes
from datasets.files import InputError, encode_png, read_label_map, write_bytes, write_json
from datasets.folder import folder_collection
from utils import checkpoints
from utils.checkpoints.fingerprints import fingerprint, sizes
from utils.inference.cams import SCALES
from utils.inference.label_maps import USUAL_THRESHOLD
from utils.labels import crf, journal
from utils.labels import export_deeplab as deeplab
from utils.labels.labelling import PLAIN, PREDICTED, REFINED, Outcome, gallery_of, infer_and_write
from utils.labels.pseudo_labels import CAM_FORMATS, label_path
from utils.pictures.contact_sheet import labelled_sheet
from utils.pictures.report import write_report
from utils.pictures.report_scores import Evaluation
from utils.runs import devices, distributed, options
from utils.runs.run import Run
from utils.scores.tables import score_table

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
NAMES = {PLAIN: "pseudo labels", REFINED: "refined by the dense CRF"}
"""What is said of the labels in a folder."""

DETAILS = ("checkpoint", "labels", "score_threshold", "scales", "flip", "beta", "gamma")
"""What the report says of how the cams were inferred."""


def add_options(parser: argparse.ArgumentParser, tag: str, trained_by: str) -> None:
    """The options of an evaluator."""
    options.add_data_options(parser, split="train")
    group = parser.add_argument_group("your own photographs instead of a split")
    group.add_argument("--images", metavar="DIR", help="a folder of photographs, without masks")
    group.add_argument(
        "--labels",
        metavar="FILE.csv|NAMES|predicted",
        help="their classes: a CSV with lines `id,class,class,..`; names such as dog,sofa that are "
        "in all of them; or the classes that the network finds (also for a split without labels)",
    )
    group.add_argument(
        "--score_threshold",
        type=options.fraction,
        default=0.5,
        help="with --labels predicted: the probability from which a class counts as present",
    )
    options.add_run_options(parser, tag)
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=f"classification network (default: the best of the run {trained_by}, else its last)",
    )
    parser.set_defaults(trained_by=trained_by)
    group.add_argument(
        "--scn", metavar="FILE", help="superpixel network (default: the one in the checkpoint)"
    )
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--scales", type=options.positive, nargs="+", default=SCALES, help="of the photograph"
    )
    group.add_argument("--no_flip", action="store_true", help="leave mirror images out")
    options.add_affinity_options(parser, beta=8)
    add_output_options(parser)
    crf.add_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What an evaluator writes."""
    group = parser.add_argument_group("pseudo labels")
    group.add_argument(
        "--thresholds",
        type=options.fraction,
        nargs="+",
        default=THRESHOLDS,
        help="of background: all are scored and written where there are masks",
    )
    group.add_argument(
        "--threshold",
        type=options.fraction,
        help="of background, where there are no masks (default: the best in training, else "
        f"{USUAL_THRESHOLD}); where there are, one more of --thresholds",
    )
    group.add_argument(
        "--save_cams",
        nargs="+",
        choices=tuple(CAM_FORMATS),
        default=(),
        help="write the cams too: npz (cams/<id>.npz: `cams` (n, H, W) float16, `classes` (n,) "
        "0-based), irn or psa (cams_irn/ and cams_psa/<id>.npy, as IRN and AffinityNet read them)",
    )
    group.add_argument(
        "--report_images",
        type=options.natural,
        default=300,
        help="photographs in report.html, evenly spread; 1500 make it 25 to 30 MB",
    )
    group.add_argument(
        "--export_deeplab",
        metavar="DIR",
        help="write the best pseudo labels as a tree for deeplab-pytorch's VOCAug data set",
    )


def open_collection(given: argparse.Namespace, classes: tuple[str, ...] | None) -> Collection:
    """The photographs to infer: a split, or a folder with labels, one set for all, or none.

    Args:
        given: the options.
        classes: foreground classes of the classifier, or None where its checkpoint does not say.
    """
    if given.images is None:
        if given.labels not in (None, PREDICTED):
            raise InputError(
                f"--labels {given.labels}: goes with --images; a split has labels of its own "
                "(or give --labels predicted)"
            )
        return options.collection(given)
    if not Path(given.images).is_dir():
        raise InputError(f"{given.images}: no such folder; set --images")
    if given.labels is None:
        raise InputError(
            f"--images {given.images}: name their classes with --labels FILE.csv, "
            '--labels "dog,sofa" (in all of them) or --labels predicted'
        )
    classes = classes or classes_of(given)
    if given.labels.lower().endswith(".csv") or Path(given.labels).is_file():
        return folder_collection(given.images, given.labels, classes)
    collection = folder_collection(given.images, None, classes)
    if given.labels == PREDICTED:
        return collection
    vector = named_labels(given.labels, classes)
    return replace(collection, labels=dict.fromkeys(collection.ids, vector))


def classes_of(given: argparse.Namespace) -> tuple[str, ...]:
    """The classes of the data options, for published checkpoints, which do not name theirs."""
    if given.dataset == "custom":
        if not given.root:
            raise InputError(
                "--root: the checkpoint does not name its classes; give the data set's"
            )
        return read_class_list(Path(given.root) / "labels.txt")
    return {"voc12": voc_classes, "coco": coco_classes}[given.dataset]()


def named_labels(names: str, classes: tuple[str, ...]) -> np.ndarray:
    """The label vector (K,) uint8 of class names separated by commas.

    Raises:
        InputError: an unknown name.
    """
    vector = np.zeros(len(classes), np.uint8)
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in classes:
            raise InputError(f"--labels: no class {name!r}; there are {', '.join(classes)}")
        vector[classes.index(name)] = 1
    if not vector.any():
        raise InputError(f"--labels {names!r}: names no class")
    return vector


def same_classes(collection: Collection, trained: checkpoints.Trained, path: Path) -> None:
    """Refuse a checkpoint that was trained on other classes.

    Raises:
        InputError: it was.
    """
    has, needs = trained.classifier.num_classes - 1, len(collection.classes)
    if has != needs:
        raise InputError(
            f"{path}: trained on {has} classes, but {collection.name} has {needs}; "
            "name the data set it was trained on"
        )
    if trained.classes is not None and trained.classes != collection.classes:
        raise InputError(
            f"{path}: trained on other classes ({', '.join(trained.classes[:3])}, ..) than those "
            f"of {collection.name} ({', '.join(collection.classes[:3])}, ..); "
            "name the data set it was trained on"
        )


def thresholds_to_write(
    given: argparse.Namespace, trained: checkpoints.Trained, scored: bool
) -> tuple[float, ...]:
    """All thresholds where they can be compared; else the one given, or the best in training.

    Raises:
        InputError: two thresholds would share a folder.
    """
    if not scored:
        choices = (given.threshold, trained.threshold, USUAL_THRESHOLD)
        return (next(choice for choice in choices if choice is not None),)
    extra = () if given.threshold is None else (given.threshold,)
    thresholds = tuple(sorted({*given.thresholds, *extra}))
    if len({f"{threshold:g}" for threshold in thresholds}) < len(thresholds):
        raise InputError("--thresholds: two of them agree in six digits and would share a folder")
    return thresholds


def require_all_labels(given: argparse.Namespace, collection: Collection) -> None:
    """Refuse photographs without labels, or labelled with no class, before any is inferred.

    Raises:
        InputError: there are some.
    """
    if given.labels == PREDICTED:
        return
    missing = missing_labels(collection)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(collection.ids)} photographs have no image-level labels, "
            f"such as {', '.join(missing[:5])}; complete them, or give --labels predicted"
        )
    if collection.name != coco.NAME:  # whose photographs may show none of the classes
        require_classes(collection)


def description(
    given: argparse.Namespace,
    checkpoint: Path,
    collection: Collection,
    outcome: Outcome,
    seconds: float,
) -> dict:
    """What result.json says besides the scores; seconds are those of the `inferred` photographs."""
    result = {
        "dataset": collection.name,
        "split": collection.split,
        "images": outcome.images,
        "checkpoint": str(checkpoint),
        "labels": given.labels or "given",
        "scales": list(given.scales),
        "flip": not given.no_flip,
        "beta": given.beta,
        "gamma": given.gamma,
        "inferred": outcome.inferred,
        "seconds": round(seconds, 2),
        "images_per_second": round(outcome.inferred / seconds, 3),
    }
    if given.labels == PREDICTED:
        result["score_threshold"] = given.score_threshold
    return result


def report_scores(
    run: Run, collection: Collection, thresholds: Sequence[float], outcome: Outcome
) -> tuple[dict, str, float]:
    """Print the scores.

    Returns:
        (what result.json says of them, the folder of the best labels, their threshold).
    """
    table = score_table(collection.classes, thresholds, outcome.confusion)
    run.say(table.table())
    result, folder, best = table.as_json(), PLAIN, table
    if outcome.refined is not None:
        refined = score_table(collection.classes, thresholds, outcome.refined)
        run.say("\nrefined by the dense CRF")
        run.say(refined.table())
        result["crf"] = refined.as_json()
        if refined.best_miou > table.best_miou:
            folder, best = REFINED, refined
    return result, folder, best.thresholds[best.best]


def evaluate(given: argparse.Namespace) -> None:
    """Infer, write and, where there are masks, score the pseudo labels of a collection."""
    device = devices.choose(given.device)
    path = options.existing_file(
        given.checkpoint or options.checkpoint_of(given, given.trained_by),
        "--checkpoint",
        "train one with train_cls_image.py or train_cls_sal.py",
    )
    trained = checkpoints.open_trained(path, given.scn)
    collection = open_collection(given, trained.classes)
    same_classes(collection, trained, path)
    require_all_labels(given, collection)
    if given.crf:
        crf.require()
    if given.export_deeplab:
        deeplab.check(Path(given.export_deeplab), collection)
    thresholds = thresholds_to_write(given, trained, collection.masks is not None)
    made_from = {
        "photographs": fingerprint(collection),
        "--checkpoint": fingerprint(trained.classifier.state_dict()),
        "--scn": fingerprint(trained.scn.state_dict()),
    }
    if collection.masks is not None:
        made_from["masks"] = sizes(map(collection.mask_path, collection.ids))
    goes_on = distributed.is_first() and journal.goes_on(given, made_from)
    with Run(given, device, continues=goes_on) as run:
        if distributed.is_first() and not goes_on:
            journal.begin(run.folder, given, made_from)
        evaluate_in(run, given, path, collection, trained, thresholds, device)


def evaluate_in(
    run: Run,
    given: argparse.Namespace,
    path: Path,
    collection: Collection,
    trained: checkpoints.Trained,
    thresholds: Sequence[float],
    device: torch.device,
) -> None:
    """Evaluate the checkpoint at `path` on a collection; everything goes to the run's folder."""
    scored = collection.masks is not None
    run.say(
        f"pseudo labels for {len(collection.ids)} photographs of {collection.name} "
        f"{collection.split} from {path}, on {devices.describe(device)}; "
        f"{'scored against masks' if scored else 'no masks, so not scored'}; "
        f"writing to {run.folder}"
    )
    if trained.shipped_scn:
        run.say(
            f"note: {path} holds no superpixel network; taking {checkpoints.SHIPPED} "
            "(--scn names the one it was trained with)"
        )
    unmasked = missing_masks(collection)
    if scored and unmasked:
        run.say(f"{len(unmasked)} photographs have no mask, such as {unmasked[0]}: not scored")
    started = time.monotonic()
    outcome = infer_and_write(run, given, collection, trained, thresholds, device)
    seconds = time.monotonic() - started
    skipped = run.list_skipped()
    if distributed.is_first():
        result = description(given, path, collection, outcome, seconds) | {"skipped": skipped}
        finish(run, given, collection, trained, thresholds, outcome, result)


def finish(
    run: Run,
    given: argparse.Namespace,
    collection: Collection,
    trained: checkpoints.Trained,
    thresholds: Sequence[float],
    outcome: Outcome,
    result: dict,
) -> None:
    """Print and write scores and pictures; `result` is what result.json says besides."""
    folder, threshold = REFINED if given.crf else PLAIN, thresholds[0]
    if collection.masks is not None:
        found, folder, threshold = report_scores(run, collection, thresholds, outcome)
        result |= found
    else:
        result["threshold"] = threshold
    labels = run.folder / folder / f"{threshold:g}"
    sheet = run.folder / "contact_sheet.png"
    pictures = labelled_sheet(
        outcome.shown,
        trained.scn,
        lambda found: read_label_map(labels / f"{found.id}.png"),
        f"{NAMES[folder]} ({threshold:g})",
        collection.classes,
    )
    write_bytes(sheet, encode_png(pictures))
    run.say(f"{result['images_per_second']:.2f} images/s; pictures: {sheet}")
    evaluated = evaluation_of(given, collection, thresholds, outcome, result, folder, threshold)
    gallery = gallery_of(given, run.folder, collection)
    left_out = write_report(run.folder / "report.html", evaluated, collection, gallery, labels)
    run.say(f"report, to open in a browser: {run.folder / 'report.html'}")
    if left_out:
        run.say(f"not in it, since pictures or pseudo label are missing: {left_out} photographs")
    if given.images is not None:
        run.say(f"labels drawn on the photographs: {run.folder / 'overlays'}")
    if given.export_deeplab:
        target = Path(given.export_deeplab)
        paths = {i: label_path(run.folder / folder, threshold, i) for i in collection.ids}
        labelled = collection.subset([i for i in collection.ids if paths[i].is_file()])
        pairs = deeplab.export(target, labelled, run.folder / folder, threshold)
        run.say(f"for deeplab-pytorch: {pairs}")
    # Written last: with it the evaluation counts as finished.
    write_json(run.folder / "result.json", result)
    run.say(f"next: train a segmentation network on the photographs and {labels}")


def evaluation_of(
    given: argparse.Namespace,
    collection: Collection,
    thresholds: Sequence[float],
    outcome: Outcome,
    result: dict,
    folder: str,
    threshold: float,
) -> Evaluation:
    """What the report shows: all scores, and the labels of `folder` at `threshold`."""
    found = {PLAIN: outcome.confusion, REFINED: outcome.refined}
    scored = collection.masks is not None
    again = outcome.inferred < outcome.images
    seconds = f"seconds, the last {outcome.inferred} of them" if again else "seconds"
    return Evaluation(
        title=f"Pseudo labels: {given.tag}",
        headline={
            "photographs": result["images"],
            seconds: result["seconds"],
            "photographs/s": result["images_per_second"],
        },
        details={
            "data set": f"{collection.name} {collection.split}",
            **{name: result[name] for name in DETAILS if name in result},
        },
        threshold=threshold,
        thresholds=thresholds,
        confusion={NAMES[k]: v for k, v in found.items() if scored and v is not None},
        shown=NAMES[folder],
    )
