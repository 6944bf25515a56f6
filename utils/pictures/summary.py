"""One table of several evaluations.

python -m utils.pictures.summary experiments/eval_image experiments/eval_sal
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.files import InputError, encode_png, read_json, read_photograph, write_bytes
from utils.pictures.drawing import caption
from utils.runs.options import new_parser
from utils.runs.start import start


def table(results: dict[str, dict]) -> str:
    """mIoU of every evaluation and threshold, the best, and where its PNGs lie.

    Args:
        results: content of result.json by folder; masks of a segmentation network have the
            threshold None.
    """
    found = {row["threshold"] for one in results.values() for row in one["thresholds"]}
    thresholds = sorted(found, key=lambda t: (t is None, t or 0))
    width = max(map(len, results)) + 2
    head = "".join(f"{named(t):>7}" for t in thresholds)
    lines = [f"{'mIoU (%) at threshold':<{width}}{head}   best"]
    for folder, found in results.items():
        mious = {row["threshold"]: 100 * row["miou"] for row in found["thresholds"]}
        row = "".join(f"{mious[t]:>7.1f}" if t in mious else f"{'-':>7}" for t in thresholds)
        best = found["best"]
        at = "" if best["threshold"] is None else f" at {best['threshold']:g}"
        lines.append(f"{folder:<{width}}{row}   {100 * best['miou']:.1f}{at}")
    for folder, found in results.items():
        threshold = found["best"]["threshold"]
        if threshold is None:
            lines.append(f"masks: {folder}/masks/")
        else:
            lines.append(f"pseudo labels: {folder}/pseudo_labels/{threshold:g}/")
    return "\n".join(lines)


def named(threshold: float | None) -> str:
    """The head of a threshold's column."""
    return "none" if threshold is None else f"{threshold:g}"


def stacked_sheets(folders: list[str]) -> np.ndarray:
    """The contact sheets of several evaluations, one below the other."""
    sheets = []
    for folder in folders:
        sheet = read_photograph(Path(folder) / "contact_sheet.png")
        sheets += [caption(Path(folder).name, sheet.shape[1], height=34, paper=225), sheet]
    return np.vstack(sheets)


def read_result(folder: str) -> dict:
    """What result.json in a run's folder says, if there are scores in it.

    Raises:
        InputError: there are none, or it is no evaluator's.
    """
    found = read_json(Path(folder) / "result.json")
    try:
        if "thresholds" not in found:
            raise InputError(f"{folder}: its photographs had no masks, so it has no scores")
        if found["best"]["miou"] is None:
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
    options = new_parser(__doc__)
    options.add_argument("runs", nargs="+", metavar="DIR", help="folders that evaluators wrote")
    options.add_argument("--sheet", metavar="FILE", help="write their contact sheets as one PNG")
    options.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(summarise, options)
