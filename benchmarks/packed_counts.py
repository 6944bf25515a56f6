"""Pixel counts as results files hold them: few thresholds, packed."""

import base64
import zlib

import numpy as np

from utils.scores.counts import Counts


def near_best(counts: Counts, steps: int) -> Counts:
    """The counts at the best threshold and as many next to it on either side."""
    best = counts.best()
    kept = slice(max(0, best - steps), best + steps + 1)
    return Counts(
        counts.thresholds[kept], counts.truth, counts.hits[..., kept], counts.predicted[..., kept]
    )


def packed(counts: Counts) -> dict:
    """`thresholds`, and `pixels`: all counts as little-endian int32, deflated, in base 85.

    Uncompressed they are an array (P, C, 1 + 2 T): truth, hits, predicted.
    """
    every = np.concatenate([counts.truth[..., None], counts.hits, counts.predicted], axis=2)
    deflated = zlib.compress(np.ascontiguousarray(every, "<i4").tobytes(), 9)
    return {"thresholds": list(counts.thresholds), "pixels": base64.b85encode(deflated).decode()}


def unpacked(content: dict, photographs: int) -> Counts:
    """What `packed` says of so many photographs."""
    thresholds = tuple(content["thresholds"])
    pixels = zlib.decompress(base64.b85decode(content["pixels"]))
    every = np.frombuffer(pixels, "<i4").astype(np.int64)
    every = every.reshape(photographs, -1, 1 + 2 * len(thresholds))
    hits, predicted = np.split(every[..., 1:], 2, axis=2)
    return Counts(thresholds, every[..., 0], hits, predicted)
