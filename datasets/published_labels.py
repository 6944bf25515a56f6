"""Published files of image-level labels: `.npy` files that hold a pickle.

They come from the internet, and pickles are programs: these are read without being run, and none
can take memory out of proportion to its size. Labels are vectors as in datasets/labels.py.
"""

import io
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.classes import MAX_CLASSES
from datasets.files import InputError, read_bytes
from datasets.listing import check_id

MAX_LABEL_FILE_BYTES = 200_000_000


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


def _published_vector(identifier: str, value: Any, path: str | os.PathLike) -> np.ndarray:
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

    def __setitem__(self, key: Any, value: Any) -> None:
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
    tests/datasets/test_published_labels.py, the deeply nested key ends its process with a
    segmentation fault, and the memo index makes it ask for 32 GB. Nor is it safe to give numpy any
    state.

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
