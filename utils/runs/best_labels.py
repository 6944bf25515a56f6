"""Where the best labels of an evaluation are, and of which classes."""

from collections.abc import Sequence
from pathlib import Path

from datasets.classes import first_difference
from datasets.files import InputError, read_json
from utils.runs.run import EVALUATION, RESULT


def best_labels(folder: Path) -> Path:
    """The folder of an evaluation's best pseudo labels, as its result.json says.

    Args:
        folder: of the evaluation.

    Raises:
        InputError: it holds no finished evaluation.
    """
    if not (folder / RESULT).is_file():
        raise InputError(
            f"{folder}: holds no finished evaluation; run evaluator_cls_image.py on the training "
            "split, or name labels with --labels_from RUN or --pseudo_labels DIR"
        )
    found = read_json(folder / RESULT)
    name = found.get("best_labels") if isinstance(found, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{folder}: its result.json is not what an evaluator wrote; run it again")
    return folder / name


def require_same_classes(folder: Path, classes: Sequence[str]) -> None:
    """Refuse the labels of an evaluation of other foreground classes, or in another order.

    Args:
        folder: of the evaluation; a folder without evaluation.json says nothing of classes.
        classes: of the data set.

    Raises:
        InputError: its result.json names others.
    """
    theirs = evaluated_classes(folder)
    if theirs is not None and theirs != tuple(classes):
        raise InputError(
            f"{folder}: its labels are of other classes than the data set's "
            f"({first_difference(theirs, classes)}); name the data set that was evaluated, or "
            "evaluate again"
        )


def evaluated_classes(folder: Path) -> tuple[str, ...] | None:
    """The foreground classes of a finished evaluation; None where there is none, or it is silent.

    Results of earlier versions do not name them.

    Raises:
        InputError: its result.json cannot be read.
    """
    evaluated = (folder / EVALUATION).is_file() and (folder / RESULT).is_file()
    found = read_json(folder / RESULT) if evaluated else None
    classes = found.get("classes") if isinstance(found, dict) else None
    return tuple(map(str, classes[1:])) if isinstance(classes, list) else None
