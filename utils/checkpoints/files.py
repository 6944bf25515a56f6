"""Checkpoint files are read without executing anything in them, and written whole."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import InputError, read_bytes, write_bytes
from utils.checkpoints.pickles import COPY_AGAIN, check_pickle

ZIP = b"PK\3\4"
"""What torch's archives begin with; its format before 1.6 is a row of pickles."""

DAMAGE = (
    *(RuntimeError, EOFError, ValueError, LookupError, ArithmeticError),
    *(struct.error, zipfile.BadZipFile),
)
"""What reading a damaged archive raises."""


def save(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, and wait until the disk holds it.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getvalue(), durable=True)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file of PyTorch or safetensors, tensors on the CPU.

    Raises:
        InputError: missing, truncated, not a checkpoint, or one that asks for code to be run.
    """
    data = read_bytes(path)
    if os.fspath(path).endswith(".safetensors"):
        return _read_safetensors(data, path)
    if data[:4] == ZIP:
        data = _checked_archive(data, path)
    else:
        _check_legacy(data, path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0][:200]
        if "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds more than weights and is refused ({_refused(error)}); "
                "save it again as a plain state dict"
            ) from None
        raise InputError(f"{path}: not a checkpoint, or damaged ({reason}); {COPY_AGAIN}") from None
    except DAMAGE as error:
        raise _unreadable(error, path) from None
    except Exception as error:  # a damaged pickle can raise anything; it has executed nothing
        raise InputError(
            f"{path}: not a checkpoint ({type(error).__name__}); {COPY_AGAIN}"
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    if not all(_is_real(tensor, len(data)) for tensor in _tensors(content)):
        raise InputError(f"{path}: holds more numbers than its size allows, refused; {COPY_AGAIN}")
    return dict(content)


def _read_safetensors(data: bytes, path: str | os.PathLike) -> dict[str, Tensor]:
    """A file of timm or of the hub: tensors by name, nothing that could be run.

    Raises:
        InputError: damaged, or the package is missing.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: needs the optional package safetensors; pip install safetensors"
        ) from None
    try:
        return load(data)
    except (SafetensorError, *DAMAGE) as error:
        raise _unreadable(error, path) from None


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples (which a file can nest, but not in a ring)."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)


def _is_real(tensor: Tensor, file_size: int) -> bool:
    """Whether a file of so many bytes can hold the numbers of a tensor.

    PyTorch 2.6 believes a file that claims more, and reads what lies behind it in memory.
    """
    try:
        return tensor.untyped_storage().nbytes() <= file_size
    except (NotImplementedError, RuntimeError):  # sparse and other kinds: no weights of ours
        return tensor.layout != torch.strided


def _checked_archive(data: bytes, path: str | os.PathLike) -> bytes:
    """The records of a checkpoint in a new archive, so that torch reads what was checked here.

    Two zip readers can be shown different records of one file; of one that is written here, none.
    Checksums are compared on the way, which torch omits: weights with a flipped bit are refused.

    Raises:
        InputError: damaged, not stored plainly, or a pickle that check_pickle refuses.
    """
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(copy, "w") as target:
            entries = archive.infolist()
            _check_entries(entries, len(data), path)
            for entry in entries:
                content = archive.read(entry)
                if entry.filename.lower().endswith("data.pkl"):  # torch ignores case
                    check_pickle(io.BytesIO(content), path)
                target.writestr(entry.filename, content)
    except DAMAGE as error:
        raise _unreadable(error, path) from None
    return copy.getvalue()


def _check_entries(
    entries: Sequence[zipfile.ZipInfo], file_size: int, path: str | os.PathLike
) -> None:
    """Refuse an archive that no torch wrote.

    Raises:
        InputError: a zip bomb, compressed, or a name twice.
    """
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > file_size:
        raise InputError(f"{path}: a file of {file_size} bytes that unpacks to {unpacked}; refused")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: compressed, which no checkpoint is; save it again with PyTorch")
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise InputError(f"{path}: holds a record twice, refused; {COPY_AGAIN}")


def _check_legacy(data: bytes, path: str | os.PathLike) -> None:
    """Check the pickles of the old format: magic number, version, machine, content, and keys.

    Raises:
        InputError: one that check_pickle refuses.
    """
    file = io.BytesIO(data)
    for _ in range(5):
        if file.tell() < len(data):
            check_pickle(file, path)


def _refused(error: Exception) -> str:
    """What torch names as refused in its long message."""
    lines = [line.strip()[:200] for line in str(error).split("\n") if "GLOBAL" in line]
    return lines[0]


def _unreadable(error: Exception, path: str | os.PathLike) -> InputError:
    """What to say of a file that is cut off, damaged or something else."""
    reason = str(error).split("\n")[0][:200]
    return InputError(f"{path}: truncated, or not a checkpoint ({reason}); {COPY_AGAIN}")


def _numpy_scalars() -> list:
    """What a score kept as a numpy number pickles as; it runs nothing."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [
        np.dtype,
        *dtypes,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]
