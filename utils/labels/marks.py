"""What an evaluation marks about single photographs, to tell the user at the end."""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.runs import distributed
from utils.runs.wording import counted_ids

Marked = Mapping[str, Mapping[str, Sequence[int]]]
"""Photographs: by id and name of a mark, its places that are not 0; see Journal."""

ODD, BLANK, SHRUNK = "odd", 0, 1
"""A mark (2,) and its places: nothing was found; the photograph was scaled down for inference."""


def odd_mark(blank: bool, shrunk: bool) -> np.ndarray:
    """The mark ODD of a photograph, (2,) int64."""
    return np.array([blank, shrunk], np.int64)


def odd_ids(marked: Marked, kind: int) -> list[str]:
    """The photographs that are odd in a way, BLANK or SHRUNK."""
    return [identifier for identifier, marks in marked.items() if kind in marks[ODD]]


def about_scaling(marked: Marked, max_side: int | None) -> tuple[str, ...]:
    """A note on photographs that were scaled down, if any were."""
    ids = odd_ids(marked, SHRUNK)
    if not ids:
        return ()
    return (f"scaled down to {max_side} pixels for inference (--max_side): {counted_ids(ids)}",)


def gathered(marked: Marked, ids: Sequence[str]) -> Marked:
    """The marks of all processes, in the order of `ids`; in the first process only."""
    found = {i: marks for part in distributed.gather(dict(marked)) for i, marks in part.items()}
    return {identifier: found[identifier] for identifier in ids if identifier in found}
