"""Checkpoint files are read without executing anything in them, and written whole."""

import io
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import InputError, read_bytes, write_bytes
from utils.checkpoints.pickles import COPY_AGAIN, check_pickle


def save(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, and wait until the disk holds it.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getvalue(), durable=True)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, tensors on the CPU.

    Raises:
        InputError: missing, truncated, not a checkpoint, or one that asks for code to be run.
    """
    data = read_bytes(path)
    _check_before_reading(data, path)
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
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError(
            f"{path}: truncated, or not a checkpoint ({reason}); {COPY_AGAIN}"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything; it has executed nothing
        raise InputError(
            f"{path}: not a checkpoint ({type(error).__name__}); {COPY_AGAIN}"
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    if not all(_is_real(tensor, len(data)) for tensor in _tensors(content)):
        raise InputError(f"{path}: holds more numbers than its size allows, refused; {COPY_AGAIN}")
    return dict(content)


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401
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


def _check_before_reading(data: bytes, path: str | os.PathLike) -> None:
    """Refuse what would exhaust memory or crash torch's reader.

    Raises:
        InputError: a zip bomb, or a pickle that check_pickle refuses.
    """
    if data[:4] == b"PK\3\4":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > len(data):  # torch stores without compression
                raise InputError(
                    f"{path}: a file of {len(data)} bytes that unpacks to {unpacked}; refused"
                )
            # torch's own look into the archive: other zip readers can be shown another pickle.
            reader = torch._C.PyTorchFileReader(io.BytesIO(data))
            pickles = [io.BytesIO(reader.get_record("data.pkl"))]
        except (RuntimeError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            reason = str(error).split("\n")[0][:200]
            raise InputError(
                f"{path}: truncated, or not a checkpoint ({reason}); {COPY_AGAIN}"
            ) from None
    else:
        # The old format: magic number, version, machine, content, and keys, then the weights.
        pickles = [io.BytesIO(data)] * 5
    for file in pickles:
        if file.tell() < len(data):
            check_pickle(file, path)


def _refused(error: Exception) -> str:
    """What torch names as refused in its long message."""
    lines = [line.strip()[:200] for line in str(error).split("\n") if "GLOBAL" in line]
    return lines[0]


def _numpy_scalars() -> list:
    """What a score kept as a numpy number pickles as; it runs nothing."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [
        np.dtype,
        *dtypes,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
    ]
