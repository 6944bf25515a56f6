"""What the trainings of benchmarks.photographs say: tables with intervals, and mIoU over steps."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from benchmarks.bootstrap import Draws, Interval, interval
from benchmarks.counts import Counts
from datasets.files import InputError
from utils.pictures.curve import round_ticks

Cams = tuple[str, str]
"""A training and an inference, by their names."""

BASELINE, OURS = "plain CAM", "image method"
AP = "superpixels, AP gamma 0.6"
COMPARED = {BASELINE: ("DCR", OURS, "saliency method"), "DCR": (OURS,)}
"""By training: those of which the tables say how far ahead of it they are. The image method is
ahead of DCR by what the IPC loss adds."""

AS_PUBLISHED: Cams = (BASELINE, "bilinear")
PANELS = {
    "superpixels": "superpixels",
    "superpixels, AP, two scales mirrored": f"{AP}, scales 0.5 0.75 mirrored",
}
"""The inferences that the figure shows: titles, and how results files call them."""


class Budget:
    """The trainings of one results file: one half, one number of steps.

    Args:
        content: of the file.
        name: of the file.

    Attributes:
        steps: the number asked for.
        cams: what was measured, in the order of the file.

    Raises:
        InputError: not all were scored on the same photographs, or seeds of a training were
            measured with different settings.
    """

    def __init__(self, content: Mapping[str, dict], name: str) -> None:
        self.entries: dict[str, dict[int, dict]] = {}
        self._mious: dict[tuple[Cams, tuple[int, ...]], np.ndarray] = {}
        first = next(iter(content.values()))
        self.steps = first["settings"]["budget"]
        self.photographs = len(first["photographs"].split())
        for key, entry in content.items():
            training, _, seed = key.rpartition(" seed ")
            seeds = self.entries.setdefault(training, {})
            same = all(entry["settings"] == other["settings"] for other in seeds.values())
            if not same or entry["photographs"] != first["photographs"]:
                raise InputError(f"{name}: {key}: measured otherwise than what it is compared with")
            seeds[int(seed)] = entry
        self.cams = [
            (training, inference)
            for training, seeds in self.entries.items()
            for inference in next(iter(seeds.values()))["scores"]
        ]

    def seeds(self, *compared: Cams) -> tuple[int, ...]:
        """The seeds with which all of them were measured."""
        found = [
            {
                seed
                for seed, entry in self.entries.get(training, {}).items()
                if inference in entry["scores"]
            }
            for training, inference in compared
        ]
        return tuple(sorted(set.intersection(*found)))

    def counts(self, cams: Cams, seed: int) -> Counts:
        """Pixel counts of a training with a seed that was inferred so."""
        training, inference = cams
        content = self.entries[training][seed]["scores"][inference]["counts"]
        return Counts.from_json(content, self.photographs)

    def interval(self, cams: Cams) -> Interval | None:
        """Its mIoU (%), None where it was not measured; likewise below."""
        seeds = self.seeds(cams)
        return interval(self._replicates(cams, seeds)) if seeds else None

    def difference(self, cams: Cams, other: Cams) -> Interval | None:
        """How many points of mIoU it is ahead, in the seeds that both have."""
        return self._compared(np.subtract, cams, other)

    def ratio(self, cams: Cams, other: Cams) -> Interval | None:
        """How many times the other's its mIoU is."""
        return self._compared(np.divide, cams, other)

    def _compared(self, how: Callable, cams: Cams, other: Cams) -> Interval | None:
        seeds = self.seeds(cams, other)
        if not seeds:
            return None
        return interval(how(self._replicates(cams, seeds), self._replicates(other, seeds)))

    def _replicates(self, cams: Cams, seeds: tuple[int, ...]) -> np.ndarray:
        if (cams, seeds) not in self._mious:
            counts = [self.counts(cams, seed) for seed in seeds]
            draws = Draws(len(seeds), self.photographs)
            self._mious[cams, seeds] = draws.mious(counts)
        return self._mious[cams, seeds]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(budgets: Sequence[Budget]) -> str:
    """mIoU, differences with the same inference, and ratios to plain CAM as published."""
    cams = list(dict.fromkeys(one for budget in budgets for one in budget.cams))
    published = [one for one in cams if one != AS_PUBLISHED]

    def alike(base: str) -> list[Cams]:
        return [one for one in cams if one[0] in COMPARED[base] and (base, one[1]) in cams]

    def written(
        title: str, chosen: Sequence[Cams], cell: Callable[[Budget, Cams], str]
    ) -> list[str]:
        header = [title, *(f"{budget.steps} steps" for budget in budgets)]
        rows = [["; ".join(one), *(cell(budget, one) for budget in budgets)] for one in chosen]
        return [markdown(header, rows)] if rows else []

    def miou(budget: Budget, one: Cams) -> str:
        return shown(budget.interval(one), "{:.1f}", len(budget.seeds(one)))

    def ahead(base: str, budget: Budget, one: Cams) -> str:
        other = (base, one[1])
        found = budget.difference(one, other)
        return shown(found, "{:+.1f}", len(budget.seeds(one, other)), 0)

    def times(budget: Budget, one: Cams) -> str:
        found = budget.ratio(one, AS_PUBLISHED)
        return shown(found, "{:.2f}", len(budget.seeds(one, AS_PUBLISHED)), 1)

    parts = written("mIoU (%)", cams, miou)
    for base in COMPARED:
        title = f"points ahead of {base}, same inference"
        parts += written(title, alike(base), partial(ahead, base))
    parts += written("times plain CAM as published (bilinear)", published, times)
    return "\n\n".join(parts)


def shown(
    found: Interval | None, form: str, seeds: int | None = None, equal: float | None = None
) -> str:
    """A cell, with the number of seeds where there are some.

    It is bold where the interval excludes that both are equal; never of one seed, whose interval
    does not hold how trainings differ.
    """
    if found is None:
        return ""
    value, low, high = (rounded(x, form) for x in (found.value, found.low, found.high))
    if equal is not None and seeds != 1 and found.excludes(equal):
        value = f"**{value}**"
    several = "" if seeds is None else f", {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{value} ({low} to {high}){several}"


def rounded(value: float, form: str) -> str:
    """A number as `form` shows it, without "-0.0"."""
    text = form.format(value)
    return text if float(text) else form.format(0.0)


REFERENCE = "plain CAM, bilinear"
"""The line of AS_PUBLISHED, which both panels of the figure show."""

COLOURS = {
    REFERENCE: "#999999",
    BASELINE: "#000000",
    "DCR": "#0072b2",
    OURS: "#d55e00",
    "saliency method": "#009e73",
}
"""The trainings that the figure shows. Okabe and Ito's colours stay apart without colour vision."""

SIZE, PANEL, TOP, BOTTOM, FINE = (1530, 760), 640, 90, 600, 2
"""Of the figure, pixels: the whole, a panel's width, its upper and lower edge; drawn so many times
larger first."""


@dataclass(frozen=True)
class Line:
    """A training in the figure: its colour, and mIoU with its interval by steps."""

    name: str
    colour: str
    points: Sequence[tuple[int, Interval]]


def figure(budgets: Sequence[Budget]) -> bytes:
    """mIoU over steps with intervals, with two kinds of inference, as PNG.

    What it shows is in it as text too (`numbers`): pictures drawn with other versions of Pillow
    differ, and yet show the same.
    """

    def lines(inference: str) -> list[Line]:
        found = []
        for name, colour in COLOURS.items():
            cams = AS_PUBLISHED if name == REFERENCE else (name, inference)
            points = [(budget.steps, budget.interval(cams)) for budget in budgets]
            found.append(Line(name, colour, [(x, y) for x, y in points if y is not None]))
        return [line for line in found if line.points]

    panels = {title: lines(inference) for title, inference in PANELS.items()}
    picture = draw(panels, [budget.steps for budget in budgets])
    about = PngInfo()
    about.add_text("numbers", numbers(panels))
    buffer = io.BytesIO()
    picture.quantize(64).save(buffer, "PNG", optimize=True, pnginfo=about)
    return buffer.getvalue()


def numbers(panels: Mapping[str, Sequence[Line]]) -> str:
    """What a figure shows, as JSON."""
    return json.dumps(
        {
            title: {
                line.name: [
                    [x, *(round(v, 2) for v in (y.value, y.low, y.high))] for x, y in line.points
                ]
                for line in lines
            }
            for title, lines in panels.items()
        }
    )


def numbers_in(png: bytes) -> str | None:
    """What a figure says that it shows."""
    with Image.open(io.BytesIO(png)) as picture:
        return picture.info.get("numbers")


def draw(panels: Mapping[str, Sequence[Line]], steps: Sequence[int]) -> Image.Image:
    """Panels side by side with common axes, steps on a logarithmic one, and a legend below."""
    picture = Image.new("RGB", [FINE * side for side in SIZE], "white")
    pen = Pen(ImageDraw.Draw(picture), FINE)
    shown = [y for lines in panels.values() for line in lines for _, y in line.points]
    ticks = round_ticks([bound for y in shown for bound in (y.low, y.high)])
    for number, (title, lines) in enumerate(panels.items()):
        left = 90 + number * (PANEL + 130)
        pen.text((left, TOP - 50), f"mIoU (%), {title}", "la")
        axes = Axes(left, steps, ticks)
        axes.draw(pen)
        for place, line in enumerate(lines):
            aside = 7 * (place - (len(lines) - 1) / 2)  # intervals beside each other
            axes.draw_line(pen, line, aside)
    at = 90
    for line in next(iter(panels.values())):
        pen.line([(at, 710), (at + 44, 710)], line.colour, 5)
        pen.text((at + 56, 710), line.name, "lm")
        at += 56 + pen.width(line.name) + 50
    return picture.resize(SIZE, Image.Resampling.LANCZOS)


class Pen:
    """Draws on a picture that is `fine` times as large as places say."""

    def __init__(self, canvas: ImageDraw.ImageDraw, fine: int) -> None:
        self.canvas, self.fine = canvas, fine
        self.font = ImageFont.load_default(26 * fine)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        """A line through points."""
        places = [(x * self.fine, y * self.fine) for x, y in points]
        self.canvas.line(places, colour, round(width * self.fine), joint="curve")

    def dot(self, x: float, y: float, colour: str) -> None:
        """A round mark."""
        x, y, radius = x * self.fine, y * self.fine, 8 * self.fine
        self.canvas.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    def text(self, place: tuple[float, float], text: str, anchor: str) -> None:
        """Words at a place; the anchor is Pillow's."""
        place = (place[0] * self.fine, place[1] * self.fine)
        self.canvas.text(place, text, "#202020", self.font, anchor)

    def width(self, text: str) -> float:
        """Of a text."""
        return self.font.getlength(text) / self.fine


class Axes:
    """The axes of a panel.

    Args:
        left: its left edge.
        steps: the ticks below, on a logarithmic axis.
        ticks: those at the side, evenly spaced from the bottom to the top.
    """

    def __init__(self, left: float, steps: Sequence[int], ticks: np.ndarray) -> None:
        self.left, self.steps, self.ticks = left, steps, ticks
        margin = 60
        low, high = np.log(min(steps)), np.log(max(steps))
        self._x = ((low, high), (left + margin, left + PANEL - margin))
        if low == high:
            self._x = ((low, low + 1), (left + PANEL / 2, left + PANEL))

    def x(self, steps: int) -> float:
        """Where a number of steps is."""
        return float(np.interp(np.log(steps), *self._x))

    def y(self, miou: float) -> float:
        """Where a mIoU is."""
        return float(np.interp(miou, self.ticks[[0, -1]], (BOTTOM, TOP)))

    def draw(self, pen: Pen) -> None:
        """Grid, ticks and their names."""
        for tick in self.ticks:
            y = self.y(tick)
            pen.line([(self.left, y), (self.left + PANEL, y)], "#d8d8d8", 1.5)
            pen.text((self.left - 12, y), f"{tick:g}", "rm")
        for steps in self.steps:
            pen.text((self.x(steps), BOTTOM + 12), f"{steps}", "ma")
        pen.text((self.left + PANEL / 2, BOTTOM + 46), "steps", "ma")

    def draw_line(self, pen: Pen, line: Line, aside: float) -> None:
        """A training: its points, joined, and their intervals."""
        places = [(self.x(steps) + aside, found) for steps, found in line.points]
        for x, found in places:
            pen.line([(x, self.y(found.low)), (x, self.y(found.high))], line.colour, 2)
        pen.line([(x, self.y(found.value)) for x, found in places], line.colour, 4)
        for x, found in places:
            pen.dot(x, self.y(found.value), line.colour)
