"""Where the best labels of an evaluation are."""

from pathlib import Path

from datasets.files import InputError, read_json


def best_labels(folder: Path) -> Path:
    """The folder of an evaluation's best pseudo labels, as its result.json says.

    Raises:
        InputError: it holds no finished evaluation.
    """
    if not (folder / "result.json").is_file():
        raise InputError(
            f"{folder}: holds no finished evaluation; run evaluator_cls_image.py on the training "
            "split, or name labels with --labels_from RUN or --pseudo_labels DIR"
        )
    found = read_json(folder / "result.json")
    name = found.get("best_labels") if isinstance(found, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{folder}: its result.json is not what an evaluator wrote; run it again")
    return folder / name
