"""Images: photographs, label maps and saliency maps, decoded and encoded."""

import io
import os
import warnings
from contextlib import suppress
from typing import IO

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from datasets.files import InputError, read_bytes, write_bytes
from datasets.palette import voc_palette

MAX_PIXELS = 178_956_970
"""No photograph, mask or saliency map is decoded beyond this many pixels (a decompression bomb); it
is Pillow's limit."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""What is decoded (JPEG includes MPO). Pillow reads more, and starts other programs for EPS."""

IGNORE = 255
"""The label of pixels that are not scored."""


def _open(path: str | os.PathLike) -> tuple[bytes, Image.Image]:
    """The bytes of an image file and its lazily opened picture, size checked before decoding."""
    data = read_bytes(path)
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data, _picture(path, io.BytesIO(data))


def _picture(path: str | os.PathLike, file: IO[bytes]) -> Image.Image:
    """The lazily opened picture in a file, size checked before decoding."""
    try:
        with warnings.catch_warnings():
            # Pillow already warns at half as many pixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=FORMATS)
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
    return picture


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
        InputError: the file is truncated or corrupt, or holds fractions.
    """
    turned = None
    try:
        if picture.format == "TIFF":
            # Pillow turns TIFF files, and no others, by their EXIF orientation as it decodes them.
            turned = picture.getexif().get(ExifTags.Base.Orientation)
        picture.load()
        if turned in _TURN_BACK:
            picture = picture.transpose(_TURN_BACK[turned])
        return np.array(picture if mode is None else _to_8bit(picture, path).convert(mode))
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
        raise InputError(f"{path}: truncated or corrupt image ({error})") from None


def _to_8bit(picture: Image.Image, path: str | os.PathLike) -> Image.Image:
    """A picture of 16 or 32 bits a pixel as 8-bit grey; other modes as they are.

    Raises:
        InputError: fractions, all of which would become black.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        if picture.mode == "F" and values.size and 0 < values.max() <= 1:
            # Whether 1 is white, one file does not say.
            raise InputError(
                f"{path}: fractions from 0 to 1 instead of 0 to 255; save it with 8 bits a channel"
            )
        # 16-bit greys arrive as I;16 or I: their high byte is the 8-bit value.
        scale = 1 if values.size == 0 or values.max() <= 255 else 256
        return Image.fromarray((values // scale).clip(0, 255).astype(np.uint8))
    return picture


def is_turned(path: str | os.PathLike) -> bool:
    """Whether a photograph's EXIF orientation asks readers to turn it (those here do not).

    Only the header is read, but for PNG, whose EXIF may stand behind the pixels.

    Raises:
        InputError: as `read_photograph`.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = _picture(path, file)
            with suppress(Exception):  # a damaged EXIF block asks for nothing
                return picture.getexif().get(ExifTags.Base.Orientation) in _TURN_BACK
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
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


class LabelMapError(InputError):
    """A picture that cannot be a label map; the message says what to do."""


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """A label map (palette or grey PNG): class indices, 255 where unlabelled.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: unreadable; LabelMapError where the pixels are not class indices but colours.
    """
    _, picture = _open(path)
    if picture.mode not in ("P", "L", "1"):
        raise LabelMapError(
            f"{path}: a mask holds class indices (0 background, {IGNORE} unlabelled) as a palette "
            f"or 8-bit grey PNG, not mode {picture.mode}; convert it or delete it"
        )
    return _decode(path, picture).astype(np.uint8)


def first_colour(path: str | os.PathLike) -> tuple[int, ...] | None:
    """The colour (r, g, b) of index 0 in a picture with a palette; None without a palette."""
    _, picture = _open(path)
    return tuple(picture.getpalette("RGB")[:3]) if picture.mode == "P" else None


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
    """An image as PNG: (H, W) or (H, W, 3) uint8, or (H, W) uint16.

    With `palette` (n, 3) uint8 a palette PNG.
    """
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


def write_label_map(path: str | os.PathLike, labels: np.ndarray) -> None:
    """Write class indices (H, W) uint8 as a palette PNG in VOC's colours."""
    write_bytes(path, encode_png(labels, voc_palette()))
