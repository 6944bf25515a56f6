"""One table of several evaluations.

python -m utils.pictures.summary experiments/eval_image experiments/eval_sal
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.command_line import new_parser
from datasets.files import InputError, read_json, write_bytes
from datasets.images import encode_png, read_photograph
from utils.pictures.drawing import caption
from utils.runs.run import RESULT
from utils.runs.start import start


def table(results: dict[str, dict]) -> str:
    """mIoU of every evaluation and threshold, the best, and where the best labels lie.

    Args:
        results: content of result.json by folder; masks of a segmentation network have the
            threshold None.

    Raises:
        KeyError: or another error of the kind, a content is no evaluator's.
    """
    scored = {name: one for folder, found in results.items() for name, one in rows(folder, found)}
    cut = {row["threshold"] for one in scored.values() for row in one.get("thresholds", ())}
    thresholds = sorted(cut - {None})
    width = max(map(len, scored)) + 2
    head = "".join(f"{f'{t:g}':>7}" for t in thresholds)
    lines = [f"{'mIoU (%) at threshold':<{width}}{head}   best"]
    for name, one in scored.items():
        mious = {row["threshold"]: 100 * row["miou"] for row in one.get("thresholds", ())}
        row = "".join(f"{mious[t]:>7.1f}" if t in mious else f"{'-':>7}" for t in thresholds)
        lines.append(f"{name:<{width}}{row}   {best_in_words(one)} on {one['split']}")
    for folder, found in results.items():
        lines.append(f"best labels: {folder}/{found['best_labels']}/")
    return "\n".join(lines)


def best_in_words(scores: dict) -> str:
    """The best mIoU in percent and its threshold, if there is one; `-` without masks."""
    if "best" not in scores:
        return "-"
    at = "" if scores["best"]["threshold"] is None else f" at {scores['best']['threshold']:g}"
    return f"{100 * scores['best']['miou']:.1f}{at}"


def rows(folder: str, found: dict) -> Iterator[tuple[str, dict]]:
    """The scores of an evaluation by their name in the table: those refined by a CRF too."""
    split = {"split": found.get("split", "?")}
    yield folder, found | split
    if "crf" in found:
        yield f"{folder}, CRF", found["crf"] | split


def stacked_sheets(folders: list[str]) -> np.ndarray:
    """The contact sheets of several evaluations, one below the other."""
    sheets = [read_photograph(Path(folder) / "contact_sheet.png") for folder in folders]
    width = max(sheet.shape[1] for sheet in sheets)
    parts = []
    for folder, sheet in zip(folders, sheets, strict=True):
        parts.append(caption(Path(folder).name, width, height=34, paper=225))
        margin = ((0, 0), (0, width - sheet.shape[1]), (0, 0))
        parts.append(np.pad(sheet, margin, constant_values=255))
    return np.vstack(parts)


def read_result(folder: str) -> dict:
    """What result.json in a run's folder says; without masks there are no scores in it.

    Raises:
        InputError: it is no evaluator's, or its masks score nothing.
    """
    found = read_json(Path(folder) / RESULT)
    try:
        if "best" in found and found["best"]["miou"] is None:
            raise InputError(f"{folder}: not one pixel of its masks is scored (all are 255)")
        table({folder: found})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(
            f"{folder}: its result.json is not what an evaluator wrote; run it again"
        ) from None
    return found


def summarise(args: argparse.Namespace) -> None:
    """Print the table and write the contact sheet."""
    results = {folder: read_result(folder) for folder in args.runs}
    print(table(results))
    if args.sheet:
        write_bytes(args.sheet, encode_png(stacked_sheets(args.runs)))
        print(f"contact sheet: {args.sheet}")


if __name__ == "__main__":
    options = new_parser(__doc__, prog="python -m utils.pictures.summary")
    options.add_argument("runs", nargs="+", metavar="DIR", help="folders that evaluators wrote")
    options.add_argument("--sheet", metavar="FILE", help="write their contact sheets as one PNG")
    options.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(summarise, options)
