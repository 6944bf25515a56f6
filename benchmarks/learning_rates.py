"""What the learning rate does to plain CAM, to DCR alone, and to how far the method is ahead."""

import re
from collections.abc import Iterable, Mapping

from benchmarks.evidence import AP, BASELINE, OURS, Budget, markdown, shown

VARIED = re.compile(rf"({BASELINE}|DCR|{OURS})( --(lr|warmup) \S+)* seed (\d+)")
"""Keys of results files of trainings of which nothing but the learning rate was set."""

LEARNT = 50.0
"""A training whose classification does not reach this mean average precision (%) on the photographs
that it was trained on has failed. Those of docs/experiments.md reach 14 to 40, or more than 98."""

INFERENCES = {
    BASELINE: {"bilinear": "bilinear", "superpixels": "superpixels", "AP": AP},
    "DCR": {"superpixels": "superpixels", "AP": AP},
    OURS: {"superpixels": "superpixels", "AP": AP},
}
"""Columns by their titles."""

Rate = tuple[str, int, float, int]
"""Half, number of steps asked for, learning rate, steps of warm-up."""


def by_rate(contents: Iterable[Mapping[str, dict]]) -> dict[Rate, dict[str, dict]]:
    """Entries of all results files of benchmarks.photographs, but not those of `--test_root`.

    Returns:
        By rate, in order, and then by training and seed; of one that is in several files, the last.
    """
    found: dict[Rate, dict[str, dict]] = {}
    for content in contents:
        for key, entry in content.items():
            match = VARIED.fullmatch(key)
            if match and "tested" not in entry["settings"]:
                name = f"{match[1]} seed {match[4]}"
                found.setdefault(_rate(entry["settings"]), {})[name] = entry
    return dict(sorted(found.items()))


def _rate(settings: Mapping) -> Rate:
    given = settings["arguments"]
    values = dict(zip(given, given[1:], strict=False))  # of an option given twice, the last
    rate, warmup = float(values["--lr"]), int(values.get("--warmup", 0))
    return settings["half"], settings["budget"], rate, warmup


def rates_tables(contents: Iterable[Mapping[str, dict]]) -> str:
    """The image method beside plain CAM, a row a rate, and beside DCR where DCR was trained.

    How many trainings failed, and mean mIoU of the others. How far the image method is ahead
    is told of the seeds with which neither failed.
    """
    found = by_rate(contents)
    beside_dcr = {
        rate: entries
        for rate, entries in found.items()
        if any(key.startswith("DCR") for key in entries)
    }
    parts = [(found, BASELINE), (beside_dcr, "DCR")]
    return "\n\n".join(_table(rates, base) for rates, base in parts if rates)


def _table(found: Mapping[Rate, Mapping[str, dict]], base: str) -> str:
    header = ["half, steps", "learning rate"]
    for training in (base, OURS):
        header += [f"{training}: failed", *INFERENCES[training]]
    header += [f"ahead: {title}" for title in INFERENCES[OURS]]
    return markdown(header, [_cells(*one, base) for one in found.items()])


def _cells(rate: Rate, entries: Mapping[str, dict], base: str) -> list[str]:
    half, steps, lr, warmup = rate
    place = [f"{half}, {steps}", f"{lr:g}, warm-up {warmup}" if warmup else f"{lr:g}"]
    learnt = {key: entry for key, entry in entries.items() if entry["mean_ap"] > LEARNT}
    budget = Budget(learnt, ", ".join(place)) if learnt else None
    mious, ahead = [], []
    for training in (base, OURS):
        tried, right = (sum(key.startswith(training) for key in of) for of in (entries, learnt))
        mious.append(f"{tried - right} of {tried}" if tried else "")
        inferences = INFERENCES[training].values()
        found = [budget and budget.interval((training, one)) for one in inferences]
        mious += ["" if one is None else f"{one.value:.1f}" for one in found]
    for inference in INFERENCES[OURS].values():
        compared = (OURS, inference), (base, inference)
        seeds = len(budget.seeds(*compared)) if budget else 0
        found = budget.difference(*compared) if budget and seeds > 1 else None
        ahead.append(shown(found, "{:+.1f}", seeds, 0))
    return place + mious + ahead
