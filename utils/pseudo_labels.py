"""Writing pseudo labels and cams, and refining pseudo labels, beside the inference."""

import io
import multiprocessing
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch

from datasets.files import InputError, write_bytes, write_label_map
from datasets.palette import voc_palette
from datasets.prepare import end_with_parent
from utils.cams import label_maps, resize
from utils.crf import CrfConstants, refine
from utils.inference import Inferred
from utils.metrics import confusion_matrix
from utils.writing import BackgroundWriter


def label_path(folder: Path, threshold: float, identifier: str) -> Path:
    """Where a pseudo label lies in the folder of all pseudo labels."""
    return folder / f"{threshold:g}" / f"{identifier}.png"


def write_npz(path: Path, found: Inferred) -> None:
    """Write `<path>.npz`: `cams` (n, H, W) float16 and `classes` (n,) int64, 0-based foreground."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, cams=found.cams.astype(np.float16), classes=found.classes)
    write_bytes(path.with_name(path.name + ".npz"), buffer.getvalue())


def write_irn(path: Path, found: Inferred) -> None:
    """Write `<path>.npy`, what IRN's steps after make_cam read: a dict.

    `keys` (n,) int64 0-based foreground classes, `cam` (n, (H-1)//4+1, (W-1)//4+1) float32 torch
    tensor, `high_res` (n, H, W) float32.
    """
    size = tuple((side - 1) // 4 + 1 for side in found.cams.shape[1:])
    small = resize(torch.from_numpy(found.cams)[None], size)[0]
    content = {"keys": found.classes.astype(np.int64), "cam": small, "high_res": found.cams}
    _write_npy(path, content)


def write_psa(path: Path, found: Inferred) -> None:
    """Write `<path>.npy`, what AffinityNet reads: a dict of class index to (H, W) float32."""
    content = {int(k): cam for k, cam in zip(found.classes, found.cams, strict=True)}
    _write_npy(path, content)


def _write_npy(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object), allow_pickle=True)
    write_bytes(path.with_name(path.name + ".npy"), buffer.getvalue())


CAM_FORMATS = {"npz": write_npz, "irn": write_irn, "psa": write_psa}
"""Formats in which cams are written, each into a folder of its own."""


class PseudoLabels:
    """Writes the pseudo labels of photographs, and their cams where asked for.

    Args:
        folder: of the run.
        thresholds: one folder of PNGs is written for each.
        cam_formats: names in CAM_FORMATS.
        writer: writes in the background.
    """

    def __init__(
        self,
        folder: Path,
        thresholds: Sequence[float],
        cam_formats: Sequence[str],
        writer: BackgroundWriter,
    ) -> None:
        self.folder, self.thresholds = folder, tuple(thresholds)
        self.cam_formats, self.writer, self.palette = tuple(cam_formats), writer, voc_palette()

    def write(self, found: Inferred) -> np.ndarray:
        """Write everything about one photograph; returns its labels (thresholds, H, W) uint8."""
        labels = label_maps(found.classes, found.cams, self.thresholds)
        for threshold, one in zip(self.thresholds, labels, strict=True):
            path = label_path(self.folder / "pseudo_labels", threshold, found.id)
            self.writer.submit(write_label_map, path, one, self.palette)
        for name in self.cam_formats:
            folder = self.folder / ("cams" if name == "npz" else f"cams_{name}")
            self.writer.submit(CAM_FORMATS[name], folder / found.id, found)
        return labels


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
        self.confusion = np.zeros((len(self.thresholds), num_classes, num_classes), np.int64)
        # Forked processes could inherit locks that torch's threads hold; spawned ones start clean.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            max(1, workers), mp_context=context, initializer=end_with_parent
        )
        self._waiting: deque[Future] = deque()
        self._most_waiting = 4 * max(1, workers)

    def submit(self, found: Inferred, labels: np.ndarray) -> None:
        """Refine the labels (thresholds, H, W) of one photograph soon."""
        while len(self._waiting) >= self._most_waiting:
            self._take()
        paths = [label_path(self.folder, t, found.id) for t in self.thresholds]
        image = np.ascontiguousarray(found.image.permute(1, 2, 0).numpy())
        self._waiting.append(
            self._pool.submit(
                _refine_and_write,
                paths,
                image,
                labels,
                found.mask,
                self.num_classes,
                self.constants,
            )
        )

    def _take(self) -> None:
        try:
            self.confusion += self._waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "--crf: a worker process died (out of memory?); give fewer --crf_workers"
            ) from None

    def __enter__(self) -> "Refiner":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        while kind is None and self._waiting:
            self._take()
        self._pool.shutdown(wait=True, cancel_futures=True)
