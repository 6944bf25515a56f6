"""What the trainings of benchmarks.photographs say: tables with intervals, and mIoU over steps."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.packed_counts import unpacked
from datasets.files import InputError
from utils.scores.bootstrap import Draws, Interval, interval
from utils.scores.counts import Counts

Cams = tuple[str, str]
"""A training and an inference, by their names."""

BASELINE, OURS, BY_SALIENCY = "plain CAM", "image method", "saliency method"
AP = "superpixels, AP gamma 0.6"
COMPARED = {BASELINE: ("DCR", OURS, BY_SALIENCY), "DCR": (OURS, BY_SALIENCY), OURS: (BY_SALIENCY,)}
"""By training: those of which the tables say how far ahead of it they are. The methods are ahead of
DCR by what the IPC loss adds."""

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
        self.photographs = len(first["photographs"].splitlines())
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
        return unpacked(content, self.photographs)

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


def budget_tables(budgets: Sequence[Budget]) -> str:
    """mIoU, differences with the same inference, and ratios to plain CAM as published.

    Differences to plain CAM are a table of their own (`ahead_table`).
    """

    def miou(budget: Budget, one: Cams) -> str:
        return shown(budget.interval(one), "{:.1f}", len(budget.seeds(one)))

    def times(budget: Budget, one: Cams) -> str:
        found = budget.ratio(one, AS_PUBLISHED)
        return shown(found, "{:.2f}", len(budget.seeds(one, AS_PUBLISHED)), 1)

    cams = _all_cams(budgets)
    others = [one for one in cams if one != AS_PUBLISHED]
    parts = [
        _by_steps("mIoU (%)", budgets, cams, miou),
        *(ahead_table(budgets, base) for base in COMPARED if base != BASELINE),
        _by_steps("times plain CAM as published (bilinear)", budgets, others, times),
    ]
    return "\n\n".join(filter(None, parts))


def ahead_table(budgets: Sequence[Budget], base: str) -> str:
    """How many points of mIoU trainings are ahead of `base` inferred in the same way."""

    def ahead(budget: Budget, one: Cams) -> str:
        other = (base, one[1])
        found = budget.difference(one, other)
        return shown(found, "{:+.1f}", len(budget.seeds(one, other)), 0)

    cams = _all_cams(budgets)
    alike = [one for one in cams if one[0] in COMPARED[base] and (base, one[1]) in cams]
    return _by_steps(f"points ahead of {base}, same inference", budgets, alike, ahead)


def _all_cams(budgets: Sequence[Budget]) -> list[Cams]:
    return list(dict.fromkeys(one for budget in budgets for one in budget.cams))


def _by_steps(
    title: str,
    budgets: Sequence[Budget],
    cams: Sequence[Cams],
    cell: Callable[[Budget, Cams], str],
) -> str:
    """A row for each of the cams, a column for each budget; empty where there are no rows."""
    header = [title, *(f"{budget.steps} steps" for budget in budgets)]
    rows = [["; ".join(one), *(cell(budget, one) for budget in budgets)] for one in cams]
    return markdown(header, rows) if rows else ""


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
    BY_SALIENCY: "#009e73",
}
"""The trainings that the figure shows. Okabe and Ito's colours stay apart without colour vision."""


@dataclass(frozen=True)
class Line:
    """A training in the figure: its colour, and mIoU with its interval by steps."""

    name: str
    colour: str
    points: Sequence[tuple[int, Interval]]


def figure(budgets: Sequence[Budget]) -> bytes:
    """mIoU over steps with intervals, with two kinds of inference, as PNG.

    What it shows is in it as text too (`numbers`): pictures drawn with other versions of matplotlib
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
    buffer = io.BytesIO()
    drawn = draw(panels, [budget.steps for budget in budgets])
    drawn.savefig(buffer, format="png", metadata={"numbers": numbers(panels)})
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


def draw(panels: Mapping[str, Sequence[Line]], steps: Sequence[int]) -> Figure:
    """Panels side by side with common axes, steps on a logarithmic one, and a legend below."""
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True
    ):
        for place, line in enumerate(lines):
            aside = 1.02 ** (place - (len(lines) - 1) / 2)  # intervals beside each other
            found = [y for _, y in line.points]
            middle = np.array([y.value for y in found])
            reach = [middle - [y.low for y in found], [y.high for y in found] - middle]
            at = [x * aside for x, _ in line.points]
            axes.errorbar(at, middle, reach, label=line.name, color=line.colour, marker="o")
        axes.set(title=f"mIoU (%), {title}", xlabel="steps", xscale="log")
        axes.set_xticks(steps, map(str, steps))
        axes.minorticks_off()
        axes.grid(axis="y", color="#d8d8d8")
        axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
        axes.tick_params(length=0, labelleft=True)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(lines), frameon=False
    )
    return figure
