"""What result.json and the report say of an evaluation, whatever wrote the labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.collection import Collection
from utils.inference.cams import InferenceSettings
from utils.inference.segmentation import SegmentationInferenceSettings
from utils.scores.tables import ScoreTable, score_table, table_in

REFINED_BY = "refined by the dense CRF"
"""What is said of refined labels."""


def tables_of(
    classes: Sequence[str], thresholds: Sequence[float | None], confusion: Mapping[str, np.ndarray]
) -> dict[str, ScoreTable]:
    """The scores of each folder of labels.

    Args:
        classes: foreground class names.
        thresholds: of background; one None for labels that need none.
        confusion: (T, C, C) by folder, rows ground truth; plain labels before refined ones.
    """
    return {
        folder: score_table(classes, thresholds, matrices) for folder, matrices in confusion.items()
    }


def best_folder(tables: Mapping[str, ScoreTable]) -> str:
    """The folder of the best labels; of equally good ones the plain."""
    return max(tables, key=lambda folder: tables[folder].best_miou)


def scores_as_json(tables: Mapping[str, ScoreTable]) -> dict:
    """The scores as result.json holds them."""
    plain, *refined = (table.as_json() for table in tables.values())
    return {**plain, "crf": refined[0]} if refined else plain


def tables_in(result: dict) -> list[ScoreTable]:
    """The scores that result.json holds: of plain labels, and of refined ones if there are any."""
    return [table_in(one) for one in (result, result.get("crf", {})) if "thresholds" in one]


def scores_in_words(result: dict) -> str:
    """The scores that result.json holds as they are printed; empty without any."""
    return f"\n\n{REFINED_BY}\n".join(found.table() for found in tables_in(result))


def about_evaluation(
    photographs: Collection,
    checkpoint: Path,
    inference: InferenceSettings | SegmentationInferenceSettings,
    images: int,
    made: int,
    seconds: float,
) -> dict:
    """What result.json says of every evaluation; the time is that of the photographs `made` now."""
    return {
        "dataset": photographs.name,
        "split": photographs.split,
        "classes": ["background", *photographs.classes],
        "images": images,
        "checkpoint": str(checkpoint),
        "scales": list(inference.scales),
        "max_side": inference.max_side or 0,
        "flip": inference.flip,
        "seconds": round(seconds, 2),
        "images_per_second": round(made / seconds, 3),
    }


def headline(result: dict, made: int) -> dict[str, object]:
    """The numbers at the top of the report."""
    again = made < result["images"]
    return {
        "photographs": result["images"],
        f"seconds, the last {made} of them" if again else "seconds": result["seconds"],
        "photographs/s": result["images_per_second"],
    }
