"""Reading and writing files: whole or not at all, and the project's error for bad input."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


class InputError(Exception):
    """Bad input from the user. The message names the file or option, what is wrong, what to do."""


UNFINISHED = ".part"
"""The ending of files that are being written; a process that was killed leaves them behind."""


@contextmanager
def write_whole(path: str | os.PathLike, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a file that appears under `path` only when the block has ended without an error.

    It is written beside its destination and then renamed, so that a reader never meets half a
    file and what stood there before survives a failure. Folders are created. `durable` waits until
    the disk holds it, so that it survives a power cut too.

    Raises:
        InputError: the file cannot be written (permissions, full disk).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" makes a file that was not there, with the permissions that open() always gives.
        with open(temporary, "xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room, or name another folder"
        ) from error
    finally:
        with suppress(OSError):  # gone after a success
            temporary.unlink()


def write_bytes(path: str | os.PathLike, data: bytes, durable: bool = False) -> None:
    """Write `data` to `path`, whole or not at all."""
    with write_whole(path, durable=durable) as file:
        file.write(data)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed processes left half-written in a folder and the folders in it.

    Only for folders into which no other process writes at the moment.
    """
    for path in Path(folder).rglob(f".*{UNFINISHED}"):
        with suppress(OSError):
            path.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all.

    File names that are not UTF-8 are escaped, in such a way that JSON reads them as they were.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file.

    Raises:
        InputError: it does not exist or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_text(path: str | os.PathLike) -> str:
    """The content of a text file in UTF-8.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8; save it as UTF-8") from None


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file in UTF-8, stripped, without empty ones."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: str | os.PathLike) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is missing or holds no JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
