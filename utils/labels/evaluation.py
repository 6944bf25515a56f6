"""How an evaluation begins, goes on or, where it is finished, says its result again.

`evaluation.json` says what was evaluated; utils/labels/journal.py, which photographs are done.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.files import InputError, read_json, write_json
from utils.runs import distributed
from utils.runs.changes import HARMLESS, changed_options
from utils.runs.options import RunSettings
from utils.runs.run import EVALUATION, RESULT, Run

TRAINED = ("last.pt", "best.pt", "training.pt")
"""What is in the folder of a training, and in none of an evaluation."""

DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What looking at JSON can raise that no evaluator wrote."""

EVALUATION_HARMLESS = HARMLESS | {
    *("checkpoint", "crf_workers", "export_deeplab", "report_images", "submission")
}
"""Options that do not alter what an evaluation writes."""


def begun(settings: RunSettings, made_from: Mapping[str, str]) -> bool:
    """Whether the run's folder holds this evaluation, finished or not.

    Args:
        settings: of the run.
        made_from: fingerprints of photographs and networks.

    Raises:
        InputError: it holds one that was started otherwise; names every option that differs.
    """
    folder = settings.folder
    started = (folder / EVALUATION).is_file() and any(folder.glob("done-*.jsonl"))
    if settings.overwrite or not started:
        return False
    path = folder / EVALUATION
    try:
        before = read_json(path)
        changes = changed_options(before, settings.options, made_from, EVALUATION_HARMLESS)
    except DAMAGE:
        raise InputError(f"{path}: not what an evaluator wrote; run it with --overwrite") from None
    if changes:
        finished = (folder / RESULT).exists()
        raise InputError(
            f"{folder} holds {'a finished' if finished else 'an unfinished'} evaluation that was "
            f"started otherwise: {'; '.join(changes)}. Give this one another --tag, or --overwrite"
            f"{'' if finished else ', or what that was started with to go on'}"
        )
    return True


def begin(settings: RunSettings, made_from: Mapping[str, str]) -> None:
    """Say in the run's folder what is evaluated."""
    content = {"script": Path(sys.argv[0]).name, "options": dict(settings.options)}
    write_json(settings.folder / EVALUATION, {**content, "fingerprints": dict(made_from)})


def carry_out(
    settings: RunSettings,
    device: torch.device,
    made_from: Mapping[str, str],
    work: Callable[[Run], None],
    show: Callable[[Any], str],
) -> None:
    """Begin an evaluation, or go on with it; of one that is finished, print the result again.

    Args:
        settings: of the run.
        device: what the run computes on.
        made_from: fingerprints of photographs and networks.
        work: does the rest, and writes the result at last.
        show: what to print of the result.

    Raises:
        InputError: the folder holds a trained network; or see `begun` and `print_result`.
    """
    trained = [name for name in TRAINED if (settings.folder / name).exists()]
    if trained:  # which --overwrite would remove, perhaps the very one that is evaluated
        raise InputError(
            f"{settings.folder}: holds a training ({trained[0]}), and an evaluation has a folder "
            "of its own; give it another --tag"
        )
    goes_on = distributed.broadcast(distributed.is_first() and begun(settings, made_from))
    if goes_on and (settings.folder / RESULT).is_file():
        if distributed.is_first():
            print_result(settings.folder, show)
        return
    _keep_labels(settings)
    with Run(settings, device, continues=goes_on) as run:
        without = " without --overwrite" if settings.overwrite else ""
        run.interruption.at_once(f"the same command{without} goes on")
        if distributed.is_first() and not goes_on:
            begin(settings, made_from)
        work(run)


def _keep_labels(settings: RunSettings) -> None:
    """Refuse to empty a folder that holds the labels which are to be read, such as predicted.csv.

    Raises:
        InputError: --overwrite would.
    """
    for name in ("labels", "labels_file"):
        file = settings.options.get(name)
        inside = file and settings.folder.resolve() in Path(file).resolve().parents
        if settings.overwrite and inside:
            raise InputError(
                f"--{name} {file}: lies in the folder that --overwrite empties; give this run "
                "another --tag"
            )


def print_result(folder: Path, show: Callable[[Any], str]) -> None:
    """Print what `show` makes of a finished evaluation's result.json.

    Raises:
        InputError: its result.json is not what an evaluator wrote.
    """
    path = folder / RESULT
    print(f"{folder} holds this evaluation, finished (--overwrite makes it anew)")
    try:
        text = show(read_json(path))
    except DAMAGE:
        raise InputError(f"{path}: not what an evaluator wrote; run it with --overwrite") from None
    if text:
        print(text)
