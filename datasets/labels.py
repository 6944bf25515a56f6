"""Image-level labels: VOC's XML files, CSV, and what prepare writes.

Labels are (K,) uint8 vectors over the K foreground classes, 1 where the class is in the
photograph. All these files may come from the internet: none can run code, expand without end or
take memory out of proportion to its size.
"""

import csv
import io
import itertools
import json
import os
from collections.abc import Collection, Container, Iterable, Mapping
from xml.etree import ElementTree

import numpy as np

from datasets.classes import check_classes, some_classes
from datasets.files import InputError, read_bytes, read_json, read_text, write_text
from datasets.listing import check_id, without_ending

MAX_XML_BYTES = 10_000_000

HEADINGS = frozenset({"class", "classes", "label", "labels"})
"""What may stand above the classes in a CSV file."""


def label_vector(indices: Iterable[int], num_foreground: int) -> np.ndarray:
    """(K,) uint8 with ones at `indices`."""
    vector = np.zeros(num_foreground, np.uint8)
    vector[list(indices)] = 1
    return vector


# --- VOC's XML ------------------------------------------------------------------------------------


def xml_labels(path: str | os.PathLike, classes: tuple[str, ...]) -> np.ndarray:
    """The image-level labels in a VOC annotation file.

    Every object counts, difficult ones too. The parts of an object (`<part><name>head`) do not.

    Returns:
        (K,) uint8.

    Raises:
        InputError: unreadable, not an annotation, a class that is not in `classes`, or a file
            with a document type, whose entities can expand without end.
    """
    position = {name: index for index, name in enumerate(classes)}
    names = _object_names(path)
    for name in sorted(names):
        if name not in position:
            raise InputError(
                f"{path}: unknown class {name[:80]!r}; the classes are {some_classes(classes)}"
            )
    return label_vector((position[name] for name in names), len(classes))


class _Annotation(ElementTree.TreeBuilder):
    """Builds the tree of an annotation, which needs no document type."""

    def doctype(self, *_: str | None) -> None:
        """Refuse a document type: only there can entities be declared that expand without end."""
        raise InputError("a document type or entities in an annotation; refused")


def _object_names(path: str | os.PathLike) -> set[str]:
    """The names of the objects in a VOC annotation file."""
    data = read_bytes(path)
    if len(data) > MAX_XML_BYTES:
        raise InputError(f"{path}: {len(data)} bytes are too many for one photograph's annotation")
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Annotation()))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        # ValueError and LookupError: encodings that expat leaves to Python
        raise InputError(f"{path}: truncated or not XML ({str(error)[:200]})") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not a VOC annotation but <{root.tag[:40]}>")
    return {(name.text or "").strip() for name in root.iterfind("object/name")}


# --- CSV ------------------------------------------------------------------------------------------


def read_csv_labels(
    path: str | os.PathLike, classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Labels from lines of `id,class,class,..`, or of one class each, in which ids come again.

    Ids are file names with or without the ending of a photograph. Lines starting with `#` are
    comments; a first line whose first field is `id`, or whose second is `class`, `classes`, `label`
    or `labels` (and no class), is a header. A table of 0 and 1 under class names is read too.

    Args:
        path: the CSV file in UTF-8.
        classes: the classes that may occur, in order; by default the sorted names in the file.

    Returns:
        The classes, and a (K,) uint8 vector for every id (zeros on a line without classes).

    Raises:
        InputError: unreadable, without a line, an id twice in a table or where a line names
            several classes, or a class that is not in `classes`.
    """
    rows, table = _csv_rows(path, classes or ())
    if classes is None:
        classes = check_classes(sorted({name for _, _, names in rows for name in names}), path)
    position = {name: index for index, name in enumerate(classes)}
    several = next((line for line, _, names in rows if table or len(names) > 1), None)
    labels: dict[str, np.ndarray] = {}
    for line, identifier, names in rows:
        if identifier in labels and several is not None:
            raise InputError(
                f"{path}, line {line}: the id {identifier!r} appears twice; write all classes of a "
                f"photograph on one line, as line {several} does, or one class on every line"
            )
        unknown = [name for name in names if name not in position]
        if unknown:
            raise InputError(
                f"{path}, line {line}: unknown class {unknown[0][:80]!r}; correct the line, or "
                f"the list of classes ({some_classes(classes)})"
            )
        vector = label_vector((position[name] for name in names), len(classes))
        labels[identifier] = vector | labels.get(identifier, 0)
    return classes, labels


def about_unused(
    labels: Iterable[str],
    photographs: Container[str],
    path: str | os.PathLike,
    folder: str | os.PathLike,
) -> tuple[str, ...]:
    """A note on ids in the CSV `path` that no photograph in `folder` has, if there are any."""
    unused = [identifier for identifier in labels if identifier not in photographs]
    if not unused:
        return ()
    return (f"ids in {path} without a photograph in {folder}: {len(unused)}, such as {unused[0]}",)


def write_csv_labels(path: str | os.PathLike, labels: Mapping[str, Iterable[str]]) -> None:
    """Write class names by the names of photographs as `read_csv_labels` reads them, sorted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "classes"))
    writer.writerows((identifier, *labels[identifier]) for identifier in sorted(labels))
    write_text(path, text.getvalue())


def _csv_rows(
    path: str | os.PathLike, classes: Collection[str]
) -> tuple[list[tuple[int, str, list[str]]], bool]:
    """(line, id, class names) of all lines but comments and the header; whether it is a table."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    lines = []
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields) and not fields[0].startswith("#"):
                lines.append((reader.line_num, fields))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    lines, table = _without_header(lines, classes)
    if not lines:
        raise InputError(f"{path}: no line of the form id,class,class,.. in it")
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):  # as some spreadsheets write them
        if _are_separated_by(sign, [fields for _, fields in lines], classes):
            raise InputError(f"{path}: separate by commas, not by {name}: id,class,class,..")
    rows = [
        (
            line,
            check_id(without_ending(fields[0]), f"{path}, line {line}"),
            [name for name in fields[1:] if name],
        )
        for line, fields in lines
    ]
    return rows, table


def _without_header(
    lines: list[tuple[int, list[str]]], classes: Collection[str]
) -> tuple[list[tuple[int, list[str]]], bool]:
    """The lines below a header, and whether they are a table of 0 and 1.

    Those of a table get the class names above each 1.
    """
    if not lines:
        return lines, False
    (_, (first, *names)), *rest = lines
    heading = bool(names) and names[0].lower() in HEADINGS.difference(classes)
    digits = {"0", "1"}
    cells = [cell for _, fields in rest for cell in fields[1:]]
    even = len(cells) == len(rest) * len(names) > 0 and len({len(f) for _, f in rest}) == 1
    if even and not heading and digits.issuperset(cells) and digits.isdisjoint({*classes, *names}):
        return [(n, [f[0], *itertools.compress(names, map(int, f[1:]))]) for n, f in rest], True
    return rest if heading or first.lower() == "id" else lines, False


def _are_separated_by(sign: str, lines: list[list[str]], classes: Collection[str]) -> bool:
    """Whether lines that were read as CSV are separated otherwise; an id may hold a semicolon."""
    parts = [fields[0].split(sign) for fields in lines]
    return any(len(part) > 1 for part in parts) and all(
        len(fields) == 1 or (len(part) > 1 and part[1].strip() in classes)
        for fields, part in zip(lines, parts, strict=True)
    )


# --- what prepare writes --------------------------------------------------------------------------


def write_labels_json(
    path: str | os.PathLike, classes: tuple[str, ...], labels: dict[str, np.ndarray]
) -> None:
    """Write `{"classes": [names], "labels": {id: [class indices from 0]}}`, one id a line."""
    lines = [
        f"  {json.dumps(identifier)}: {json.dumps(np.flatnonzero(vector).tolist())}"
        for identifier, vector in sorted(labels.items())
    ]
    head = f'{{\n "classes": {json.dumps(list(classes))},\n "labels": {{\n'
    write_text(path, head + ",\n".join(lines) + "\n }\n}\n")


def read_labels_json(
    path: str | os.PathLike,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The classes and labels that `write_labels_json` wrote.

    Raises:
        InputError: missing, damaged, or something else.
    """
    content = read_json(path)
    try:
        classes, entries = content["classes"], content["labels"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError("class names must be a list of strings")
        check_classes(classes, path)  # before a vector is made for every photograph
        labels = {}
        for identifier, indices in entries.items():
            if not all(type(index) is int and 0 <= index < len(classes) for index in indices):
                raise ValueError(f"class indices of {identifier[:80]!r}")
            labels[check_id(identifier, path)] = label_vector(indices, len(classes))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not a label file that prepare wrote ({error}); delete it and run "
            "python -m datasets.prepare again"
        ) from None
    return tuple(classes), labels
