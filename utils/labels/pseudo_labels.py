"""Writing pseudo labels and cams, and refining pseudo labels, beside the inference."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datasets.files import write_bytes
from datasets.images import IGNORE, encode_jpeg, write_label_map
from utils.inference.cams import resize
from utils.inference.collection_cams import Inferred
from utils.inference.label_maps import strongest
from utils.pictures.drawing import overlay


def label_path(folder: Path, threshold: float, identifier: str) -> Path:
    """Where a pseudo label lies in the folder of all pseudo labels."""
    return folder / f"{threshold:g}" / f"{identifier}.png"


def uncertain_pixels(cams: np.ndarray, between: tuple[float, float] | None) -> np.ndarray | None:
    """Where the strongest of the cams (n, H, W) lies above the first bound, up to the second.

    Returns:
        (H, W) bool; None without bounds.
    """
    if between is None:
        return None
    low, high = np.asarray(between, np.float32)
    if not len(cams):
        return np.zeros(cams.shape[1:], bool)
    _, value = strongest(cams)
    return (value > low) & (value <= high)


def without(labels: np.ndarray, uncertain: np.ndarray | None) -> np.ndarray:
    """Labels (.., H, W) uint8 with 255 where they are `uncertain` (H, W), if that is known."""
    return labels if uncertain is None else np.where(uncertain, np.uint8(IGNORE), labels)


def write_npz(path: Path, found: Inferred) -> None:
    """Write an npz file: `cams` (n, H, W) float16 and `classes` (n,) int64, 0-based foreground."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, cams=found.cams.astype(np.float16), classes=found.classes)
    write_bytes(path, buffer.getvalue())


def write_irn(path: Path, found: Inferred) -> None:
    """Write what IRN's steps after make_cam read: an npy file of a dict.

    `keys` (n,) int64 0-based foreground classes, `cam` (n, (H-1)//4+1, (W-1)//4+1) float32 torch
    tensor, `high_res` (n, H, W) float32.
    """
    size = tuple((side - 1) // 4 + 1 for side in found.cams.shape[1:])
    small = resize(torch.from_numpy(found.cams)[None], size)[0]
    content = {"keys": found.classes.astype(np.int64), "cam": small, "high_res": found.cams}
    _write_npy(path, content)


def write_psa(path: Path, found: Inferred) -> None:
    """Write what AffinityNet reads: an npy file of a dict of class index to (H, W) float32."""
    content = {int(k): cam for k, cam in zip(found.classes, found.cams, strict=True)}
    _write_npy(path, content)


def _write_npy(path: Path, content: dict) -> None:
    # IRN and AffinityNet read a pickled dict; nothing here reads one back.
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object), allow_pickle=True)
    write_bytes(path, buffer.getvalue())


CAM_FORMATS = {
    "npz": (write_npz, "cams", ".npz"),
    "irn": (write_irn, "cams_irn", ".npy"),
    "psa": (write_psa, "cams_psa", ".npy"),
}
"""Formats in which cams are written: by what, into which folder, with which ending."""


class PseudoLabels:
    """Writes the pseudo labels of photographs, and their cams where asked for.

    Args:
        folder: of the run.
        thresholds: one folder of PNGs is written for each.
        cam_formats: names in CAM_FORMATS.
        overlays: labels are drawn on the photographs, `overlays/<id>.jpg`; see `draw`.
    """

    def __init__(
        self,
        folder: Path,
        thresholds: Sequence[float],
        cam_formats: Sequence[str],
        overlays: bool = False,
    ) -> None:
        self.folder, self.thresholds = folder, tuple(thresholds)
        self.cam_formats, self.overlays = tuple(cam_formats), overlays

    def write(self, found: Inferred, labels: np.ndarray) -> None:
        """Write labels and cams of one photograph, whose labels are (thresholds, H, W) uint8."""
        for path, one in zip(self._label_paths(found.id), labels, strict=True):
            write_label_map(path, one)
        for name, path in self._cam_paths(found.id).items():
            CAM_FORMATS[name][0](path, found)

    def draw(self, found: Inferred, labels: np.ndarray) -> None:
        """Write the overlay of one photograph, whose labels are (H, W) uint8, if it is asked for.

        Not a part of `write`: labels may be refined first.
        """
        if self.overlays:
            image = np.ascontiguousarray(found.image.permute(1, 2, 0).numpy())
            drawn = overlay(image, labels)
            write_bytes(self._overlay_path(found.id), encode_jpeg(drawn))

    def complete(self, identifier: str) -> bool:
        """Whether all files of a photograph are there."""
        paths = [*self._label_paths(identifier), *self._cam_paths(identifier).values()]
        if self.overlays:
            paths.append(self._overlay_path(identifier))
        return all(path.is_file() for path in paths)

    def _overlay_path(self, identifier: str) -> Path:
        return self.folder / "overlays" / f"{identifier}.jpg"

    def _label_paths(self, identifier: str) -> list[Path]:
        folder = self.folder / "pseudo_labels"
        return [label_path(folder, threshold, identifier) for threshold in self.thresholds]

    def _cam_paths(self, identifier: str) -> dict[str, Path]:
        formats = {name: CAM_FORMATS[name][1:] for name in self.cam_formats}
        return {
            name: self.folder / folder / f"{identifier}{ending}"
            for name, (folder, ending) in formats.items()
        }
