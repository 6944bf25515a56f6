"""Writing pseudo labels and cams, and refining pseudo labels, beside the inference."""

import io
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch

from datasets.files import InputError, encode_jpeg, write_bytes, write_label_map
from datasets.palette import voc_palette
from datasets.workers import end_with_parent
from utils.cams import resize
from utils.crf import CrfConstants, refine
from utils.inference import Inferred
from utils.metrics import confusion_matrix
from utils.pictures import overlay


def label_path(folder: Path, threshold: float, identifier: str) -> Path:
    """Where a pseudo label lies in the folder of all pseudo labels."""
    return folder / f"{threshold:g}" / f"{identifier}.png"


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
        self.cam_formats, self.palette = tuple(cam_formats), voc_palette()
        self.overlays = overlays

    def write(self, found: Inferred, labels: np.ndarray) -> None:
        """Write labels and cams of one photograph, whose labels are (thresholds, H, W) uint8."""
        for path, one in zip(self._label_paths(found.id), labels, strict=True):
            write_label_map(path, one, self.palette)
        for name, path in self._cam_paths(found.id).items():
            CAM_FORMATS[name][0](path, found)

    def draw(self, found: Inferred, labels: np.ndarray) -> None:
        """Write the overlay of one photograph, whose labels are (H, W) uint8, if it is asked for.

        Not a part of `write`: labels may be refined first.
        """
        if self.overlays:
            image = np.ascontiguousarray(found.image.permute(1, 2, 0).numpy())
            drawn = overlay(image, labels, self.palette)
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


def _refine_and_write(
    paths: list[Path],
    image: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray | None,
    num_classes: int,
    constants: CrfConstants,
) -> np.ndarray:
    """In a worker: refine labels (T, H, W), write them; their confusion matrices (T, C, C)."""
    confusion = np.zeros((len(labels), num_classes, num_classes), np.int64)
    palette = voc_palette()
    for i, path in enumerate(paths):
        refined = refine(image, labels[i], constants)
        write_label_map(path, refined, palette)
        if mask is not None:
            confusion[i] = confusion_matrix(mask, refined, num_classes)
    return confusion


class Refiner:
    """Refines pseudo labels by a dense CRF in worker processes, so that inference goes on.

    Args:
        folder: the refined labels go to `<folder>/<threshold>/<id>.png`.
        thresholds: of the labels.
        num_classes: C, background included.
        constants: of the CRF.
        workers: processes; at least one.
    """

    def __init__(
        self,
        folder: Path,
        thresholds: Sequence[float],
        num_classes: int,
        constants: CrfConstants,
        workers: int,
    ) -> None:
        self.folder, self.thresholds = folder, tuple(thresholds)
        self.num_classes, self.constants = num_classes, constants
        # Forked processes could inherit locks that torch's threads hold; spawned ones start clean.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            max(1, workers), mp_context=context, initializer=end_with_parent
        )
        # Each waiting photograph is held in memory.
        self._room = threading.BoundedSemaphore(4 * max(1, workers))

    def submit(self, found: Inferred, labels: np.ndarray) -> "Future[np.ndarray]":
        """Refine the labels (thresholds, H, W) of one photograph soon.

        Returns:
            Their confusion matrices (thresholds, C, C); zeros without a mask. See `taken`.

        Raises:
            InputError: a process has died.
        """
        image = np.ascontiguousarray(found.image.permute(1, 2, 0).numpy())
        paths, arguments = self.paths(found.id), (found.mask, self.num_classes, self.constants)
        self._room.acquire()
        try:
            future = self._pool.submit(_refine_and_write, paths, image, labels, *arguments)
        except BrokenProcessPool:
            raise self._died() from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def taken(self, future: "Future[np.ndarray]") -> np.ndarray:
        """Wait for what `submit` gave.

        Raises:
            InputError: the files cannot be written, or a process has died.
        """
        try:
            return future.result()
        except BrokenProcessPool:
            raise self._died() from None

    def _died(self) -> InputError:
        return InputError("--crf: a worker process died (out of memory?); give fewer --crf_workers")

    def paths(self, identifier: str) -> list[Path]:
        """Where the refined labels of a photograph go."""
        return [label_path(self.folder, t, identifier) for t in self.thresholds]

    def complete(self, identifier: str) -> bool:
        """Whether all refined labels of a photograph are there."""
        return all(path.is_file() for path in self.paths(identifier))

    def __enter__(self) -> "Refiner":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
