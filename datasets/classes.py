"""Names of the classes: VOC's, COCO's, and those of one's own data."""

import csv
import io
import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from datasets.files import InputError, read_bytes, read_lines

DATA = Path(__file__).resolve().parents[1] / "data"
"""The repository's folder of class files; prepare writes its lists below it."""

MAX_CLASSES = 254
"""Label maps are 8-bit: 0 is background and 255 unlabelled."""


def voc_classes() -> tuple[str, ...]:
    """The 20 foreground classes of PASCAL VOC; class index 1 is the first."""
    return _committed_classes(DATA / "voc12_classes.csv")


def coco_classes() -> tuple[str, ...]:
    """The 80 foreground classes of COCO in the order of its category list."""
    return _committed_classes(DATA / "coco_classes.csv")


FIXED_CLASSES = {"voc12": voc_classes, "coco": coco_classes}
"""By the name of the data set; all others name their classes in a labels.txt."""


@cache
def _committed_classes(path: Path) -> tuple[str, ...]:
    rows = csv.DictReader(io.StringIO(read_bytes(path).decode()))
    return tuple(row["name"] for row in rows if row["index"] != "0")


def named_classes(name: str) -> tuple[str, ...]:
    """The foreground classes of `voc12`, of `coco`, or in a labels.txt."""
    return FIXED_CLASSES[name]() if name in FIXED_CLASSES else read_class_list(name)


def read_class_list(path: str | Path) -> tuple[str, ...]:
    """The foreground classes in a labels.txt: one name a line, in the order of their indices.

    A first line `background` is dropped: background is always there, with index 0. Anywhere else,
    or as labelme's `_background_`, it would be one more class.

    Raises:
        InputError: missing, no class at all, `background` among them, a name twice, or more than
            254 names.
    """
    names = read_lines(path)
    if names and names[0].lower() == "background":
        names = names[1:]
    for name in names:
        if name.strip("_").lower() == "background":
            raise InputError(
                f"{path}: {name!r} is no class of objects; remove the line (background is always "
                "there, with index 0)"
            )
    return check_classes(names, path)


def some_classes(names: Sequence[str]) -> str:
    """The first 25 names, separated by commas."""
    return ", ".join(names[:25]) + (", .." if len(names) > 25 else "")


def first_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Where two different lists of foreground classes part, in words."""
    none = object()  # equal to no name
    pairs = enumerate(itertools.zip_longest(theirs, ours, fillvalue=none), 1)
    number, pair = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    one, other = ("nothing" if name is none else name for name in pair)
    return f"class {number} is {one} there and {other} here"


def check_classes(names: Sequence[str], source: str | Path) -> tuple[str, ...]:
    """`names` as a tuple if they can be the foreground classes of a data set.

    Raises:
        InputError: no name, a name twice, an unprintable name, or more than 254 names.
    """
    if not names:
        raise InputError(f"{source}: no class in it")
    if len(names) > MAX_CLASSES:
        raise InputError(f"{source}: {len(names)} classes; label maps hold at most {MAX_CLASSES}")
    seen = set()
    for name in names:
        if not name or not name.isprintable():
            raise InputError(f"{source}: {name[:80]!r} is not a class name")
        if name in seen:
            raise InputError(f"{source}: the class {name[:80]!r} appears twice")
        seen.add(name)
    return tuple(names)
