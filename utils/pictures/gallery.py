"""Thumbnails of photographs, written while they are inferred, for the report."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.files import InputError, read_json, write_json
from utils.inference.collection_cams import Inferred
from utils.pictures.drawing import boundary_layer, encode_webp, heat, resized, size_within

SIDE = 224
"""Longer side of a thumbnail, pixels."""

MOST_CAMS = 8
"""So many cams of a photograph are shown; without labels there is one for every class."""

BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")


@dataclass(frozen=True)
class Thumbnails:
    """What only inference knows of a photograph; pictures are WebP in base64.

    Attributes:
        size: (width, height) of the pictures, pixels.
        classes: 0-based foreground classes in the photograph.
        photo: the photograph.
        superpixels: a layer with their boundaries, or None.
        cams: layers, as (class, picture).
    """

    size: tuple[int, int]
    classes: tuple[int, ...]
    photo: str
    superpixels: str | None
    cams: tuple[tuple[int, str], ...]


class Gallery:
    """The thumbnails of some photographs: `<id>.pic` files (JSON) in a folder.

    Any process may add to it, and what was added before a run was killed is still there after.

    Args:
        folder: of the files.
        ids: of the photographs that are in the gallery; other ones are not added.
        num_foreground: classes of the data set.
    """

    def __init__(self, folder: Path, ids: Iterable[str], num_foreground: int) -> None:
        self.folder, self.ids, self.num_foreground = folder, tuple(ids), num_foreground
        self._ids = frozenset(self.ids)

    def lacks(self, identifier: str) -> bool:
        """Whether a photograph belongs in the gallery but is missing from it or damaged."""
        return identifier in self._ids and self.read(identifier) is None

    def add(self, found: Inferred, superpixel_ids: np.ndarray) -> None:
        """Write the thumbnails of a photograph, with superpixel ids (H, W), if it belongs here.

        Raises:
            InputError: the file cannot be written.
        """
        image = found.photograph
        self.add_photograph(found.id, image, found.classes, found.cams, superpixel_ids)

    def add_photograph(
        self,
        identifier: str,
        image: np.ndarray,
        classes: Sequence[int],
        cams: Sequence[np.ndarray] = (),
        superpixel_ids: np.ndarray | None = None,
    ) -> None:
        """`add` for a photograph that may be without cams and superpixels.

        Args:
            identifier: of the photograph.
            image: (H, W, 3) uint8.
            classes: 0-based foreground classes in it.
            cams: of these classes, (H, W) in 0..1 each; or none.
            superpixel_ids: (H, W) integers; or None.
        """
        if identifier not in self._ids:
            return
        size, layer = size_within(image.shape, SIDE), None
        if superpixel_ids is not None:
            layer = webp_base64(boundary_layer(superpixel_ids, size))
        strongest = np.argsort([-cam.mean() for cam in cams], kind="stable")[:MOST_CAMS]
        thumbnails = Thumbnails(
            size=size,
            classes=tuple(int(k) for k in classes),
            photo=webp_base64(resized(image, size), 65),
            superpixels=layer,
            cams=tuple(
                (int(classes[i]), webp_base64(heat(resized(cams[i], size)), 50))
                for i in sorted(strongest)
            ),
        )
        write_json(self._path(identifier), asdict(thumbnails))

    def read(self, identifier: str) -> Thumbnails | None:
        """The thumbnails of a photograph.

        Returns:
            None where there are none, or the file is damaged or of other classes.
        """
        try:
            found = read_json(self._path(identifier))
            width, height = (_below(side, SIDE + 1) for side in found["size"])
            layer = found["superpixels"]
            return Thumbnails(
                size=(max(1, width), max(1, height)),
                classes=tuple(_below(k, self.num_foreground) for k in found["classes"]),
                photo=_checked(found["photo"]),
                superpixels=None if layer is None else _checked(layer),
                cams=tuple(
                    (_below(k, self.num_foreground), _checked(cam)) for k, cam in found["cams"]
                ),
            )
        except (InputError, KeyError, TypeError, ValueError):
            return None

    def _path(self, identifier: str) -> Path:
        # An ending as long as that of photographs and masks: no id is too long for it.
        return self.folder / f"{identifier}.pic"


def webp_base64(image: np.ndarray, quality: int | None = None) -> str:
    """A picture as `encode_webp` makes it, as text for data: URLs."""
    return base64.b64encode(encode_webp(image, quality)).decode("ascii")


def _checked(data: str) -> str:
    if not BASE64.fullmatch(data):
        raise ValueError("not base64")
    return data


def _below(value: int, end: int) -> int:
    if not isinstance(value, int) or not 0 <= value < end:
        raise ValueError(f"{value} is not in 0..{end - 1}")
    return value
