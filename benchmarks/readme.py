"""Puts the results of the quality benchmarks into README.md, as tables and figures.

    python -m benchmarks.readme            # after benchmarks.superpixels, .ablation, .photographs
    python -m benchmarks.readme --check    # exit status 1 if README.md says something else

The tables stand between `<!-- results: NAME -->` and `<!-- end of results -->`; what is between is
replaced. Figures go to data/NAME.svg.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from datasets.command_line import Parser, run
from datasets.files import InputError, read_json, read_text, write_text

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"

COLUMNS = {"asa": "ASA", "boundary_recall": "boundary recall", "undersegmentation_error": "UE"}
"""Of the superpixel table: names in the results file, and titles."""

WIDTH, LEFT, BAR, GAP = 820, 390, 18, 8
"""Of a figure, pixels: whole width, room for names, height of a bar, between two."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def superpixel_table(content: dict) -> str:
    """The network beside SLIC: scores, and superpixels an image."""
    rows = []
    for row in content["summary"]:
        slic = row["method"] == "slic"
        name = f"SLIC, compactness {row['compactness']:g}" if slic else "SCN (shipped)"
        scores = [f"{row[column]:.3f}" for column in COLUMNS]
        rows.append([name, *scores, f"{row['superpixels']:.0f}"])
    return markdown(
        [f"{content['images']} validation images", *COLUMNS.values(), "superpixels"], rows
    )


def spread(content: dict) -> list[tuple[str, str, list[float]]]:
    """(training, inference, mIoU of each seed), in the order of the results file.

    Raises:
        InputError: seeds of a training were measured with different settings.
    """
    found: dict[tuple[str, str], list[float]] = {}
    settings: dict[str, object] = {}
    for key, entry in content.items():
        training = key.rpartition(" seed ")[0]
        if settings.setdefault(training, entry["settings"]) != entry["settings"]:
            raise InputError(
                f"{key}: measured otherwise than another seed of it; run its benchmark again"
            )
        for inference, score in entry["scores"].items():
            found.setdefault((training, inference), []).append(score["miou"])
    return [(*names, mious) for names, mious in found.items()]


def miou_table(content: dict) -> str:
    """A row a training, a column an inference: mean mIoU over seeds, least and greatest."""
    found = spread(content)
    inferences = list(dict.fromkeys(inference for _, inference, _ in found))
    cells = {(training, inference): mious for training, inference, mious in found}
    rows = []
    for training in dict.fromkeys(training for training, _, _ in found):
        mious = [cells.get((training, inference)) for inference in inferences]
        shown = ["" if m is None else _mean(m) for m in mious]
        seeds = max(len(m) for m in mious if m)
        rows.append([training, *shown, str(seeds)])
    return markdown(["training", *inferences, "seeds"], rows)


def _mean(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def miou_figure(content: dict) -> str:
    """Bars of mean mIoU with a line from the least to the greatest seed, as SVG."""
    found = spread(content)
    height = len(found) * (BAR + GAP) + GAP
    most = max(max(mious) for _, _, mious in found) or 1
    scale = (WIDTH - LEFT - 60) / most
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for i, (training, inference, mious) in enumerate(found):
        top, mean = GAP + i * (BAR + GAP), statistics.mean(mious)
        middle, low, high = top + BAR / 2, LEFT + min(mious) * scale, LEFT + max(mious) * scale
        lines += [
            f'<text x="{LEFT - 6}" y="{middle + 4:g}" text-anchor="end">'
            f"{escape(f'{training}; {inference}')}</text>",
            f'<rect x="{LEFT}" y="{top}" width="{mean * scale:.1f}" height="{BAR}" '
            'fill="#4878a8"/>',
            f'<path d="M{low:.1f} {middle:g}H{high:.1f}" stroke="#202020" stroke-width="2"/>',
            f'<text x="{high + 6:.1f}" y="{middle + 4:g}">{mean:.1f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def replaced(text: str, name: str, table: str) -> str:
    """README's text with another table between the marks of `name`.

    Raises:
        InputError: the marks are missing.
    """
    start, end = f"<!-- results: {name} -->", "<!-- end of results -->"
    pattern = re.compile(f"{re.escape(start)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"README.md: no line {start} with {end} after it; put them back")
    return pattern.sub(lambda _: f"{start}\n\n{table}\n\n{end}", text, count=1)


TABLES = {"superpixels": superpixel_table, "ablation": miou_table, "photographs": miou_table}
"""How the results of each benchmark are told."""


def update(options: argparse.Namespace) -> int:
    """Write README.md and figures, or compare; the exit status."""
    path = options.readme
    before = text = read_text(path)
    figures: dict[Path, str] = {}
    for name, table in TABLES.items():
        results = options.results / f"{name}.json"
        if not results.is_file():
            continue
        content = read_json(results)
        text = replaced(text, name, table(content))
        if table is miou_table:
            figures[path.parent / "data" / f"{name}.svg"] = miou_figure(content)
    if not options.check:
        for file, content in {path: text, **figures}.items():
            write_text(file, content)
        return 0
    old = [file for file, figure in figures.items() if _read(file) != figure]
    old += [path] * (text != before)
    print(f"out of date: {', '.join(map(str, old))}" if old else "README.md and figures fit")
    return int(bool(old))


def _read(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = Parser(prog="python -m benchmarks.readme", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--readme", type=Path, default=REPOSITORY / "README.md", metavar="FILE")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run(update, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
