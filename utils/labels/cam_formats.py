"""The formats in which cams are written: the project's own, and those that other tools read."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datasets.files import write_bytes
from utils.inference.cams import resize
from utils.inference.collection_cams import Inferred


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


class CamFormat(NamedTuple):
    """By what cams are written, into which folder, with which ending."""

    write: Callable[[Path, Inferred], None]
    folder: str
    ending: str


CAM_FORMATS = {
    "npz": CamFormat(write_npz, "cams", ".npz"),
    "irn": CamFormat(write_irn, "cams_irn", ".npy"),
    "psa": CamFormat(write_psa, "cams_psa", ".npy"),
}
