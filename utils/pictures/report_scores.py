"""The part of the report with numbers: curve, table of classes, confusion matrix, as HTML."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from datasets.palette import voc_palette
from utils.scores.confusion import Scores, scores


@dataclass(frozen=True)
class Evaluation:
    """What the page says besides the gallery.

    Attributes:
        title: of the page.
        headline: numbers as tiles, such as photographs and seconds, by name.
        details: the rest, such as checkpoint and options, by name.
        threshold: of background: that of the pseudo labels which the gallery shows.
        thresholds: all that were scored.
        confusion: matrices (thresholds, C, C), rows ground truth, of every kind of pseudo label by
            its name (plain, refined); empty without masks. At most two kinds.
        shown: the kind that the gallery shows.
    """

    title: str
    headline: Mapping[str, object]
    details: Mapping[str, object]
    threshold: float
    thresholds: Sequence[float] = ()
    confusion: Mapping[str, np.ndarray] = field(default_factory=dict)
    shown: str = "pseudo labels"

    @property
    def matrix(self) -> np.ndarray | None:
        """The confusion matrix (C, C) of the labels that the gallery shows."""
        if not self.confusion:
            return None
        return self.confusion[self.shown][list(self.thresholds).index(self.threshold)]


def escaped(value: object) -> str:
    """`value` as text or attribute of HTML; what UTF-8 cannot hold (in paths) with backslashes."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def percent(value: float) -> str:
    """A share in 0..1 in percent with one digit; a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def score_sections(evaluation: Evaluation, names: Sequence[str]) -> Iterator[str]:
    """The sections curve, classes and confusion; `names` of the classes, background first."""
    mious = {
        kind: [scores(matrix).miou for matrix in matrices]
        for kind, matrices in evaluation.confusion.items()
    }
    yield '<section id="curve"><h2>mIoU over the background threshold</h2><div class="panel pair">'
    yield from _curve(evaluation.thresholds, mious)
    yield from _curve_table(evaluation, mious)
    yield '</div></section>\n<section id="classes"><h2>IoU of every class</h2>'
    yield f'<p class="quiet">In percent, {shown_labels(evaluation)}. A dash: the class does not '
    yield "occur, or is never predicted.</p>"
    yield from _class_table(scores(evaluation.matrix), names)
    yield '</section>\n<section id="confusion"><h2>Confusion matrix</h2>'
    yield (
        '<p class="quiet">Percent of the pixels of each ground-truth class (rows) by pseudo label '
        "(columns). The colour grows with the square root, so that small confusions show.</p>"
    )
    yield from _confusion_table(evaluation.matrix, names)
    yield '<p id="cell" class="quiet scripted"></p></section>'


def shown_labels(evaluation: Evaluation) -> str:
    """Which pseudo labels the page shows, as HTML."""
    return f"{escaped(evaluation.shown)} at threshold {evaluation.threshold:g}"


WIDTH, HEIGHT = 480, 250
"""Size of the curve's picture, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 22, 40
"""Margins around the curve."""


def _axis(values: Sequence[float]) -> tuple[float, float, float]:
    """(lowest, highest, step) of an axis with about five round ticks."""
    low, high = min(values), max(values)
    raw = max(high - low, 0.001) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step, step


def _curve(thresholds: Sequence[float], mious: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """mIoU over the thresholds as an SVG figure, a line for every kind of labels."""
    known = [m for values in mious.values() for m in values if not math.isnan(m)]
    if not known:
        yield "<p>Not one pixel is scored: there is no curve.</p>"
        return
    low, high, step = _axis(known)
    start, end, xstep = _axis(thresholds)

    def x(threshold: float) -> float:
        return LEFT + (threshold - start) / (end - start) * (WIDTH - LEFT - RIGHT)

    def y(miou: float) -> float:
        return HEIGHT - BOTTOM - (miou - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    yield f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="mIoU curve">'
    for i in range(round((high - low) / step) + 1):
        at = y(low + i * step)
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="axis" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">'
        yield f"{100 * (low + i * step):.4g}</text>\n"
    for i in range(round((end - start) / xstep) + 1):
        tick = start + i * xstep
        yield f'<text class="axis" x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 17}" '
        yield f'text-anchor="middle">{tick:.4g}</text>'
    yield f'<text class="axis" x="{LEFT - 6}" y="11" text-anchor="end">%</text>'
    yield f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">threshold'
    yield "</text>\n"
    for style, (kind, values) in zip(("first", "second"), mious.items(), strict=False):
        pairs = sorted((t, m) for t, m in zip(thresholds, values, strict=True) if m == m)
        points = [(x(t), y(m), f"{kind}: {percent(m)} at {t:g}") for t, m in pairs]
        yield from _line(points, style)
    yield '</svg><ul class="key">'
    for style, kind in zip(("first", "second"), mious, strict=False):
        yield f'<li class="{style}"><i></i>{escaped(kind)}</li>'
    yield "</ul></figure>\n"


def _line(points: Sequence[tuple[float, float, str]], style: str) -> Iterator[str]:
    """A line through points (x, y, tooltip), discs on the first, squares on the second."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    yield f'<polyline class="{style}" points="{path}"/>\n'
    for x, y, tooltip in points:
        radius = 4 if style == "first" else 0.5
        yield (
            f'<rect class="{style}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" '
            f'rx="{radius}"><title>{escaped(tooltip)}</title></rect>\n'
        )


def _curve_table(evaluation: Evaluation, mious: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The numbers of the curve."""
    heads = "".join(f'<th scope="col">{escaped(kind)}</th>' for kind in mious)
    yield '<div class="scroll"><table><caption class="quiet">mIoU in percent</caption>'
    yield f'<thead><tr><th scope="col" class="left">threshold</th>{heads}</tr></thead><tbody>\n'
    for i, threshold in enumerate(evaluation.thresholds):
        cells = "".join(f"<td>{percent(values[i])}</td>" for values in mious.values())
        style = ' class="shown"' if threshold == evaluation.threshold else ""
        yield f'<tr{style}><th scope="row">{threshold:g}</th>{cells}</tr>\n'
    yield "</tbody></table></div>"


def swatch(index: int) -> str:
    """A small square in the colour of a class index (0 is background)."""
    red, green, blue = voc_palette()[index].tolist()
    return f'<i class="swatch" style="background:#{red:02x}{green:02x}{blue:02x}"></i>'


def _class_table(found: Scores, names: Sequence[str]) -> Iterator[str]:
    yield '<div class="scroll panel"><table class="classes"><thead><tr>'
    yield '<th scope="col" class="left" data-sort="name">class</th><th class="bar"></th>'
    for name in ("IoU", "precision", "recall"):
        yield f'<th scope="col" data-sort="number">{name}</th>'
    yield "</tr></thead><tbody>\n"
    for i, name in enumerate(names):
        bar = 0.0 if math.isnan(found.iou[i]) else found.iou[i]
        yield f'<tr><th scope="row" title="{escaped(name)}">{swatch(i)}{escaped(name)}</th>'
        yield f'<td class="bar"><span style="--v:{bar:.4f}"></span></td>'
        values = (found.iou[i], found.precision[i], found.recall[i])
        yield "".join(f"<td>{percent(value)}</td>" for value in values) + "</tr>\n"
    yield "</tbody></table></div>"


def _confusion_table(matrix: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    yield '<div class="scroll high panel" tabindex="0" role="group" aria-label="confusion matrix">'
    yield '<table class="confusion"><thead><tr><th class="corner">truth ↓ label →</th>'
    for name in names:
        yield f'<th scope="col"><span title="{escaped(name)}">{escaped(name)}</span></th>'
    yield "</tr></thead><tbody>\n"
    totals = matrix.sum(1)
    for i, name in enumerate(names):
        yield f'<tr><th scope="row" title="{escaped(name)}">{escaped(name)}</th>'
        for k, count in enumerate(matrix[i].tolist()):
            yield _confusion_cell(count, int(totals[i]), f"{name} → {names[k]}")
        yield "</tr>\n"
    yield "</tbody></table></div>"


def _confusion_cell(count: int, total: int, pair: str) -> str:
    if not count:
        return "<td></td>"
    share = count / total
    shade = math.sqrt(share)
    # Where text has a contrast of at least 4.4 in the light and in the dark theme.
    style = ' class="most"' if shade > 0.85 else ' class="much"' if shade > 0.65 else ""
    shown = f"{100 * share:.0f}" if share >= 0.005 else ""
    tooltip = escaped(f"{pair}: {100 * share:.2f} % ({count} of {total} pixels)")
    return f'<td{style} style="--v:{shade:.2f}" title="{tooltip}">{shown}</td>'
