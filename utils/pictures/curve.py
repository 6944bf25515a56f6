"""The curve of mIoU over the background threshold, as places in an SVG picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """Where the template draws what; places are in the units of the picture.

    Attributes:
        x_ticks: (place, threshold).
        y_ticks: (place, mIoU).
        lines: the points (x, y, threshold, mIoU) of every kind of labels.
    """

    x_ticks: Sequence[tuple[float, float]]
    y_ticks: Sequence[tuple[float, float]]
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]]

    WIDTH, HEIGHT = 480, 250
    LEFT, RIGHT, TOP, BOTTOM = 44, 466, 22, 210  # of the axes


def curve_of(thresholds: Sequence[float], mious: Mapping[str, Sequence[float]]) -> Curve | None:
    """The curve of one mIoU in 0..1 per threshold for every kind of labels.

    Returns:
        None where every mIoU is NaN: nothing is scored.
    """
    known = [miou for values in mious.values() for miou in values if not math.isnan(miou)]
    if not known:
        return None
    across, up = round_ticks(thresholds), round_ticks(known)

    def x(threshold: float) -> float:
        return float(np.interp(threshold, across[[0, -1]], (Curve.LEFT, Curve.RIGHT)))

    def y(miou: float) -> float:
        return float(np.interp(miou, up[[0, -1]], (Curve.BOTTOM, Curve.TOP)))

    def line(values: Sequence[float]) -> list[tuple[float, float, float, float]]:
        points = sorted(zip(thresholds, values, strict=True))
        return [(x(t), y(miou), t, miou) for t, miou in points if not math.isnan(miou)]

    return Curve(
        x_ticks=[(x(tick), tick) for tick in across],
        y_ticks=[(y(tick), tick) for tick in up],
        lines={kind: line(values) for kind, values in mious.items()},
    )


def round_ticks(values: Sequence[float]) -> np.ndarray:
    """About five round numbers, evenly spaced, between which all values lie."""
    low, high = min(values), max(values)
    raw = max(high - low, 0.001) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, max(last, first + 1) + 1) * step
