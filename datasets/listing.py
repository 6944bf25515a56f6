"""Ids, lists of ids, and the photographs of a folder."""

import os
import unicodedata
from collections.abc import Container
from pathlib import Path

from datasets.files import InputError, read_lines

PHOTOGRAPH_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""The endings under which a folder's photographs are found, in lower or upper case."""

OTHER_PICTURES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)
"""The endings, in lower case, of pictures that are not read."""


def check_id(identifier: str, source: str | os.PathLike) -> str:
    """Return `identifier` if it is a plain file name, so that no output leaves its folder.

    Raises:
        InputError: it is empty, longer than file names can be, starts with a dot, begins or ends
            with a space, or holds a path separator or control character.
    """
    # Spaces of any kind are fine (macOS writes narrow ones into the names of screenshots).
    control = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in identifier)
    bad = not identifier or identifier.startswith(".") or control
    if bad or len(identifier) > 250 or "/" in identifier or "\\" in identifier:
        raise InputError(f"{source}: the id {identifier[:80]!r} is not a plain file name")
    if identifier != identifier.strip():  # which lists of ids do not keep
        raise InputError(
            f"{source}: the id {identifier[:80]!r} begins or ends with a space; rename the file"
        )
    return identifier


def without_ending(name: str) -> str:
    """A file name without the ending of a photograph, if it has one."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in PHOTOGRAPH_ENDINGS else name


def read_id_list(
    path: str | os.PathLike, photographs: Container[str] | None = None
) -> tuple[str, ...]:
    """The ids in a list file, one a line.

    Lines may also be paths of photographs, with those of their masks behind them. Where the ids of
    all `photographs` are given, lines that are none of them may be file names.

    Raises:
        InputError: missing, empty, an id twice, or an id that is not a plain file name.
    """
    lines = [_name_in(line) for line in read_lines(path)]
    if photographs is not None:
        lines = [line if line in photographs else without_ending(line) for line in lines]
    ids = tuple(check_id(line, path) for line in lines)
    if not ids:
        raise InputError(f"{path}: the list is empty; write one id a line")
    seen = set()
    for identifier in ids:
        if identifier in seen:
            raise InputError(f"{path}: the id {identifier!r} appears twice; remove one")
        seen.add(identifier)
    return ids


def _name_in(line: str) -> str:
    """A line of a list; of a photograph's path, which a mask's may follow, the name alone."""
    fields = line.split()
    first = fields[0] if len(fields) == 2 and all("/" in field for field in fields) else line
    known = without_ending(first)
    return known.rpartition("/")[2] if known != first and "/" in known else line


def list_folder(folder: str | os.PathLike) -> list[str]:
    """The names in a folder, sorted, without hidden ones.

    Raises:
        InputError: there is no such folder.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror or error}") from error


def list_ids(folder: str | os.PathLike, ending: str) -> set[str]:
    """The ids of which a folder holds `<id><ending>`; empty if there is no such folder."""
    if not Path(folder).is_dir():
        return set()
    return {name[: -len(ending)] for name in list_folder(folder) if name.endswith(ending)}


def list_photographs(folder: str | os.PathLike) -> dict[str, Path]:
    """The photographs in a folder under their ids (file names without ending), sorted.

    Raises:
        InputError: no such folder, or two photographs with the same id.
    """
    folder = Path(folder)
    photographs = {}
    for name in list_folder(folder):
        identifier, ending = os.path.splitext(name)
        if ending.lower() not in PHOTOGRAPH_ENDINGS:
            continue
        check_id(identifier, folder)
        if identifier in photographs:
            raise InputError(
                f"{folder}: {photographs[identifier].name} and {name} have the same id "
                f"{identifier!r}; rename one of them"
            )
        photographs[identifier] = folder / name
    return photographs


def about_others(folder: str | os.PathLike) -> tuple[str, ...]:
    """Notes on what lies beside the photographs in a folder and is not read: folders, pictures."""
    folders, pictures = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(OTHER_PICTURES):
                pictures.append(entry.name)
            elif not entry.name.startswith(".") and entry.is_dir():
                folders.append(entry.name)
    notes = []
    if folders:
        notes.append(f"folders inside {folder} are not looked into, such as {min(folders)}")
    if pictures:
        notes.append(
            f"pictures in {folder} of kinds that are not read: {len(pictures)}, such as "
            f"{min(pictures)}; convert them to JPEG or PNG"
        )
    return tuple(notes)


def some_photographs(folder: str | os.PathLike) -> dict[str, Path]:
    """What `list_photographs` finds.

    Raises:
        InputError: as there, or no photograph at all.
    """
    photographs = list_photographs(folder)
    if not photographs:
        endings = ", ".join(PHOTOGRAPH_ENDINGS)
        raise InputError(f"{folder}: no photographs in it; those ending in {endings} are read")
    return photographs
