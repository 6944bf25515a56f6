"""Where the best labels of an evaluation are."""

from collections.abc import Sequence
from pathlib import Path

from datasets.files import InputError, read_json
from utils.runs.run import RESULT


def best_labels(folder: Path, classes: Sequence[str] | None = None) -> Path:
    """The folder of an evaluation's best pseudo labels, as its result.json says.

    Args:
        folder: of the evaluation.
        classes: foreground classes that the labels must be of, or None for any.

    Raises:
        InputError: it holds no finished evaluation, or one of other classes.
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
    theirs = found.get("classes")  # with background; not in results of earlier versions
    if classes is not None and isinstance(theirs, list) and theirs[1:] != list(classes):
        raise InputError(
            f"{folder}: its labels are of other classes ({', '.join(map(str, theirs[1:4]))}, ..) "
            f"than the data set's ({', '.join(classes[:3])}, ..); order counts too: evaluate again"
        )
    return folder / name
