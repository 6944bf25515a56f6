"""Image-level labels: VOC's XML files, published label files, CSV, and what prepare writes.

Labels are (K,) uint8 vectors over the K foreground classes, 1 where the class is in the
photograph. All these files may come from the internet: none can run code, expand without end or
take memory out of proportion to its size.
"""

import csv
import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from datasets.classes import MAX_CLASSES, check_classes
from datasets.files import (
    PHOTOGRAPH_ENDINGS,
    InputError,
    check_id,
    read_bytes,
    read_json,
    read_text,
    write_text,
)

MAX_XML_BYTES = 10_000_000
MAX_LABEL_FILE_BYTES = 200_000_000


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
                f"{path}: unknown class {name[:80]!r}; the classes are {', '.join(classes[:25])}"
                f"{', ..' if len(classes) > 25 else ''}"
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


# --- published label files ------------------------------------------------------------------------


def read_published_labels(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Labels in a published `cls_labels.npy`: `np.save` of a dict of id -> (K,) zeros and ones.

    Ids are strings, or integers: 2007000032 is VOC's 2007_000032, other integers stand for their
    digits. The pickle in the file is not executed, see _LabelUnpickler.

    Returns:
        (K,) uint8 for every id.

    Raises:
        InputError: unreadable, truncated, or anything in it but such labels, named.
    """
    data = read_bytes(path)
    if len(data) > MAX_LABEL_FILE_BYTES:
        raise InputError(f"{path}: {len(data)} bytes; image-level labels need less, refused")
    header = _NPY_HEADER.match(data)
    if header is None:
        raise InputError(
            f"{path}: not a label file (a .npy file of one dict); name a published "
            "cls_labels.npy, or a CSV"
        )
    try:
        content = _LabelUnpickler(data[header.end() :], path).load().values
    except InputError:
        raise
    except Exception as error:  # damaged bytes surface as whatever the step stumbles over
        reason = str(error) or "it ends early"
        raise InputError(
            f"{path}: truncated or damaged label file ({reason}); download it again"
        ) from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: not a label file (no dict of labels in it)")
    labels: dict[str, np.ndarray] = {}
    for key, value in content.items():
        identifier = _published_id(key, path)
        if identifier in labels:
            raise InputError(f"{path}: the id {identifier!r} appears twice")
        labels[identifier] = _published_vector(identifier, value, path)
    lengths = {len(vector) for vector in labels.values()}
    if len(lengths) > 1:
        raise InputError(f"{path}: labels of {min(lengths)} and of {max(lengths)} classes")
    return labels


_NPY_HEADER = re.compile(
    rb"\x93NUMPY[\x01-\x03]\x00.{2,4}?"
    rb"\{'descr': '\|O', 'fortran_order': (?:False|True), 'shape': \(\), \} *\n",
    re.DOTALL,
)


def _published_id(key: int | str, path: str | os.PathLike) -> str:
    if isinstance(key, int):
        if abs(key) >= 10**18:  # Python refuses to print very long ones
            raise InputError(f"{path}: an id of more than 18 digits")
        key = re.sub(r"\A(20\d\d)(\d{6})\Z", r"\1_\2", str(key))
    return check_id(key, path)


def _published_vector(identifier: str, value: Any, path: str | os.PathLike) -> np.ndarray:  # noqa: ANN401
    vector = value.values if isinstance(value, _Array) else None
    if not isinstance(vector, np.ndarray) or not 1 <= vector.size <= MAX_CLASSES:
        raise InputError(f"{path}: the label of {identifier} is not a vector over the classes")
    if not ((vector == 0) | (vector == 1)).all():  # NaN is neither
        raise InputError(f"{path}: the label of {identifier} has values other than 0 and 1")
    return vector.astype(np.uint8)


@dataclass
class _Dtype:
    """Stands for numpy.dtype: `O8`, or a number's kind and size, and the byte order."""

    code: str
    align: bool = False
    copy: bool = True
    order: str = "="

    def set_state(self, state: tuple) -> None:
        self.order = state[1]

    def numbers(self, data: bytes) -> np.ndarray:
        if not isinstance(self.code, str) or not isinstance(self.order, str):
            raise ValueError("a type without a name")  # not printed: a tuple can be endless
        if not re.fullmatch(r"[biuf][1248]", self.code) or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"type {self.order}{self.code}")
        return np.frombuffer(data, np.dtype(self.order + self.code))


class _Array:
    """Stands for numpy.ndarray: its values once they are known, 1-D, or the object itself."""

    values: Any = None

    def set_state(self, state: tuple) -> None:
        _, shape, dtype, _, content = state
        if dtype.code == "O8" and shape == ():
            (self.values,) = content
            return
        self.values = dtype.numbers(content)
        if shape != self.values.shape:
            raise ValueError("an array whose shape does not fit its numbers")


class _Labels(dict):
    """Stands for dict. Keys are checked before they are hashed: a deep tuple's hash can crash."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401
        if type(key) not in (int, str):
            raise ValueError("an id that is neither a string nor an integer")
        super().__setitem__(key, value)


class _Instructions(dict):
    """Instructions of a pickle under their codes."""

    def __missing__(self, code: int) -> None:
        raise ValueError(f"no label file has the pickle instruction {code}")


class _LabelUnpickler(pickle._Unpickler):
    """Builds what published label files hold, from stand-ins; no name in them is looked up.

    It is the unpickler that is written in Python, with the instructions that those files need. The
    one in C, however restricted in its names, is not safe: of the hostile files in
    tests/datasets/test_labels.py, the deeply nested key ends its process with a segmentation
    fault, and the memo index makes it ask for 32 GB. Nor is it safe to give numpy any state.

    pickle._Unpickler has no public name: `pickle.Unpickler` is the one in C wherever that is built.
    A test says so first, should a release of Python lack it or keep its instructions elsewhere.
    """

    dispatch = _Instructions(
        (getattr(pickle, name)[0], pickle._Unpickler.dispatch[getattr(pickle, name)[0]])
        for name in (
            *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
            *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
            *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
            *("EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
            *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
        )
    )
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Labels())
    dispatch[pickle.BUILD[0]] = lambda self: self._build()

    def __init__(self, data: bytes, path: str | os.PathLike) -> None:
        super().__init__(io.BytesIO(data))
        self.path = path
        self.bytes_left = len(data)

    def find_class(self, module: str, name: str) -> Callable:
        """The stand-in of a name."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "multiarray"
        stand_ins = {
            "multiarray._reconstruct": lambda *_: _Array(),
            "multiarray.scalar": lambda dtype, data: dtype.numbers(data).item(),
            "numpy.ndarray": _Array,
            "numpy.dtype": _Dtype,
            "_codecs.encode": self._encode,
        }
        if f"{module}.{name}" not in stand_ins:
            raise InputError(
                f"{self.path}: it asks for {f'{module}.{name}'[:80]!r}, which no label file "
                "needs; refused, nothing was executed"
            )
        return stand_ins[f"{module}.{name}"]

    def _encode(self, text: str, _: str) -> bytes:
        # Every byte comes from a character of its own in honest files.
        self.bytes_left -= len(text)
        if self.bytes_left < 0:
            raise ValueError("more bytes than the file has")
        return text.encode("latin-1")

    def _build(self) -> None:
        """Set the state of a stand-in; anything else has no such method."""
        state = self.stack.pop()
        self.stack[-1].set_state(state)


# --- CSV ------------------------------------------------------------------------------------------


def read_csv_labels(
    path: str | os.PathLike, classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Labels from lines of `id,class,class,..`.

    Ids are file names with or without the ending of a photograph. Lines starting with `#` are
    comments; a first line whose first field is `id` is a header.

    Args:
        path: the CSV file in UTF-8.
        classes: the classes that may occur, in order; by default the sorted names in the file.

    Returns:
        The classes, and a (K,) uint8 vector for every id (zeros on a line without classes).

    Raises:
        InputError: unreadable, without a line, an id twice, or a class that is not in `classes`.
    """
    rows = _csv_rows(path)
    if classes is None:
        classes = check_classes(sorted({name for _, _, names in rows for name in names}), path)
    position = {name: index for index, name in enumerate(classes)}
    labels: dict[str, np.ndarray] = {}
    for line, identifier, names in rows:
        if identifier in labels:
            raise InputError(
                f"{path}, line {line}: the id {identifier!r} appears twice; remove one"
            )
        unknown = [name for name in names if name not in position]
        if unknown:
            raise InputError(
                f"{path}, line {line}: unknown class {unknown[0][:80]!r}; correct the line, or "
                "the list of classes"
            )
        labels[identifier] = label_vector((position[name] for name in names), len(classes))
    return classes, labels


def _csv_rows(path: str | os.PathLike) -> list[tuple[int, str, list[str]]]:
    """(line number, id, class names) of every line but comments and the header."""
    text = io.StringIO(read_text(path), newline="")
    reader = csv.reader(text, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if not any(fields) or fields[0].startswith("#"):
                continue
            if not rows and fields[0].lower() == "id":
                continue
            identifier = check_id(_without_ending(fields[0]), f"{path}, line {reader.line_num}")
            rows.append((reader.line_num, identifier, [name for name in fields[1:] if name]))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    if not rows:
        raise InputError(f"{path}: no line of the form id,class,class,.. in it")
    return rows


def _without_ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in PHOTOGRAPH_ENDINGS else name


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
