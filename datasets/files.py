"""Reading and writing data files: the project's error for bad input, whole-or-nothing writes,
photographs, label maps and saliency maps."""

import io
import json
import os
import secrets
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

MAX_PIXELS = 178_956_970
"""No photograph, mask or saliency map is decoded beyond this many pixels (a decompression bomb); it
is Pillow's limit."""

IGNORE = 255
"""The label of pixels that are not scored."""

PHOTOGRAPH_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""The endings under which a folder's photographs are found, in lower or upper case."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""What is decoded (JPEG includes MPO). Pillow reads more, and starts other programs for EPS."""


class InputError(Exception):
    """Bad input from the user. The message names the file or option, what is wrong, what to do."""


UNFINISHED = ".part"
"""The ending of files that are being written; a process that was killed leaves them behind."""


@contextmanager
def write_whole(path: str | os.PathLike, mode: str = "wb", durable: bool = False) -> Iterator[IO]:
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
        encoding = None if "b" in mode else "utf-8"
        with open(temporary, mode.replace("w", "x"), encoding=encoding) as file:
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


def write_json(path: str | os.PathLike, value: Any) -> None:  # noqa: ANN401
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
        raise InputError(f"{path}: not a text file in UTF-8") from None


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file in UTF-8, stripped, without empty ones."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: str | os.PathLike) -> Any:  # noqa: ANN401
    """The value in a JSON file.

    Raises:
        InputError: the file is missing or holds no JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


def check_id(identifier: str, source: str | os.PathLike) -> str:
    """Return `identifier` if it is a plain file name, so that no output leaves its folder.

    Raises:
        InputError: it is empty, longer than file names can be, starts with a dot, or holds a path
            separator or control character.
    """
    # Spaces of any kind are fine (macOS writes narrow ones into the names of screenshots).
    control = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in identifier)
    bad = not identifier or identifier.startswith(".") or control
    if bad or len(identifier) > 250 or "/" in identifier or "\\" in identifier:
        raise InputError(f"{source}: the id {identifier[:80]!r} is not a plain file name")
    return identifier


def read_id_list(path: str | os.PathLike) -> tuple[str, ...]:
    """The ids in a list file, one a line.

    Raises:
        InputError: missing, empty, an id twice, or an id that is not a plain file name.
    """
    ids = tuple(check_id(line, path) for line in read_lines(path))
    if not ids:
        raise InputError(f"{path}: the list is empty; write one id a line")
    seen = set()
    for identifier in ids:
        if identifier in seen:
            raise InputError(f"{path}: the id {identifier!r} appears twice; remove one")
        seen.add(identifier)
    return ids


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


def _open(path: str | os.PathLike) -> tuple[bytes, Image.Image]:
    """The bytes of an image file and its lazily opened picture, size checked before decoding."""
    data = read_bytes(path)
    if not data:
        raise InputError(f"{path}: the file is empty")
    try:
        with warnings.catch_warnings():
            # Of half as many pixels Pillow warns.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {MAX_PIXELS} pixels; refused") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image file") from None
    except Exception as error:  # Pillow's header parsers raise whatever they stumble over
        raise InputError(f"{path}: not a readable image ({error})") from None
    if min(picture.size) < 1:
        raise InputError(f"{path}: an image without pixels")
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{path}: {picture.width} x {picture.height} is more than {MAX_PIXELS} pixels; refused"
        )
    return data, picture


_TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What undoes the turning that an EXIF orientation asks for."""


def _decode(path: str | os.PathLike, picture: Image.Image, mode: str | None = None) -> np.ndarray:
    """The pixels of `picture` in stored orientation, converted to `mode` if one is given.

    Raises:
        InputError: the file is truncated or corrupt.
    """
    turned = None
    try:
        if picture.format == "TIFF":
            # Pillow turns TIFF files, and no others, by their EXIF orientation as it decodes them.
            turned = picture.getexif().get(ExifTags.Base.Orientation)
        picture.load()
        if turned in _TURN_BACK:
            picture = picture.transpose(_TURN_BACK[turned])
        return np.array(picture if mode is None else _to_8bit(picture).convert(mode))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
        raise InputError(f"{path}: truncated or corrupt image ({error})") from None


def _to_8bit(picture: Image.Image) -> Image.Image:
    """A picture of 16 or 32 bits a pixel as 8-bit grey; other modes as they are."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        # 16-bit greys arrive as I;16 or I: their high byte is the 8-bit value.
        scale = 1 if values.size == 0 or values.max() <= 255 else 256
        return Image.fromarray((values // scale).clip(0, 255).astype(np.uint8))
    return picture


def is_turned(path: str | os.PathLike) -> bool:
    """Whether a photograph's EXIF orientation asks readers to turn it (those here do not)."""
    _, picture = _open(path)
    try:
        return picture.getexif().get(ExifTags.Base.Orientation) in _TURN_BACK
    except Exception:  # a damaged EXIF block asks for nothing
        return False


def image_header(path: str | os.PathLike) -> tuple[str, tuple[int, int]]:
    """The mode (Pillow's name: RGB, L, CMYK, ..) and (height, width) of an image, not decoded."""
    _, picture = _open(path)
    if picture.format == "TIFF":  # newer Pillow gives the size of the turned image
        return picture.mode, (picture.tag_v2[257], picture.tag_v2[256])
    return picture.mode, (picture.height, picture.width)


def read_photograph(path: str | os.PathLike) -> np.ndarray:
    """A photograph as RGB.

    Grey, CMYK, palette, alpha and 16-bit files are converted. The orientation is the stored one:
    masks are drawn on stored pixels, so EXIF rotation is not applied.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: missing, empty, truncated, not an image, or absurdly large.
    """
    data, picture = _open(path)
    # libjpeg-turbo through OpenCV is the fast path. It fills the missing part of a truncated file
    # with grey and says nothing, so only files that end with JPEG's end marker take it.
    if (
        picture.format == "JPEG"
        and picture.mode in ("RGB", "L")
        and data[-64:].rstrip(b"\0\r\n").endswith(b"\xff\xd9")
    ):
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _decode(path, picture, "RGB")


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """A label map (palette or grey PNG): class indices, 255 where unlabelled.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: unreadable, or a colour picture, whose pixels are not class indices.
    """
    _, picture = _open(path)
    if picture.mode not in ("P", "L", "1"):
        raise InputError(
            f"{path}: a label map must be an 8-bit palette or grey PNG, not mode {picture.mode}"
        )
    return _decode(path, picture).astype(np.uint8)


def read_saliency(path: str | os.PathLike, size: tuple[int, int]) -> np.ndarray:
    """A saliency map, resized bilinearly to `size` = (height, width) where it differs.

    Returns:
        (H, W) uint8, 255 = salient.
    """
    _, picture = _open(path)
    saliency = _decode(path, picture, "L")
    if saliency.shape != tuple(size):
        saliency = cv2.resize(saliency, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return saliency


def encode_png(image: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """An image as PNG: (H, W) or (H, W, 3) uint8; with `palette` (n, 3) uint8, a palette PNG."""
    picture = Image.fromarray(image)
    if palette is not None:
        picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    return _encoded(picture, "PNG")


def encode_jpeg(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as JPEG, of a quality for looking at."""
    return _encoded(Image.fromarray(image), "JPEG", quality=90)


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_label_map(path: str | os.PathLike, labels: np.ndarray, palette: np.ndarray) -> None:
    """Write class indices (H, W) uint8 as a palette PNG; `palette` is (256, 3) uint8."""
    write_bytes(path, encode_png(labels, palette))
