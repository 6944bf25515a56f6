"""Puts the results of the quality benchmarks into the pages, as tables and figures.

    python -m benchmarks.readme            # after benchmarks.superpixels, .ablation, .road, ..
    python -m benchmarks.readme --check    # exit status 1 if a page says something else

PAGES says which page has which; README.md has a summary. The tables stand between
`<!-- results: NAME -->` and `<!-- end of results -->`; what is between is replaced. The ablation's
figure is data/ablation.svg. The trainings of benchmarks.photographs on the half `report`, of all
budgets, give the tables `ahead` and `budgets`, with intervals, and docs/miou_over_steps.png; those
of all its results files, by learning rate, `learning_rates`.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.evidence import (
    AP,
    BASELINE,
    BY_SALIENCY,
    OURS,
    Budget,
    ahead_table,
    budget_tables,
    figure,
    markdown,
    numbers_in,
    shown,
)
from benchmarks.learning_rates import rates_tables
from datasets.command_line import new_parser, run
from datasets.files import InputError, read_bytes, read_json, read_text, write_bytes, write_text
from utils.scores.bootstrap import intervals_of_means

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"

COLUMNS = {"asa": "ASA", "boundary_recall": "boundary recall", "undersegmentation_error": "UE"}
"""Of the superpixel table: names in the results file, and titles."""

WIDTH, LEFT, BAR, GAP = 820, 390, 18, 8
"""Of a figure, pixels: whole width, room for names, height of a bar, between two."""


def superpixel_tables(content: dict) -> str:
    """The networks beside SLIC: scores and superpixels an image; then differences to SLIC."""
    rows, of_networks, of_slic = [], {}, {}
    for row in content["summary"]:
        by_image = _by_image(content["runs"][row["run"]])
        if row["method"] == "slic":
            name = f"SLIC, compactness {row['compactness']:g}"
            of_slic[name] = by_image
        else:
            name = "the same recipe, another seed" if rows else "SCN (shipped)"
            of_networks[name] = by_image
        scores = [f"{row[column]:.3f}" for column in COLUMNS]
        rows.append([name, *scores, f"{row['superpixels']:.0f}"])
    header = [f"{content['images']} validation images", *COLUMNS.values(), "superpixels"]
    differences = [
        [f"{network} minus {slic}", *_shown_means(one - other)]
        for slic, other in of_slic.items()
        for network, one in of_networks.items()
    ]
    return "\n\n".join(
        [markdown(header, rows), markdown(["difference", *COLUMNS.values()], differences)]
    )


def _by_image(run: Mapping[str, Sequence[float]]) -> np.ndarray:
    """The scores (images, columns) of a run, in the order of the images' names."""
    return np.array([run[identifier][: len(COLUMNS)] for identifier in sorted(run)])


def _shown_means(differences: np.ndarray) -> list[str]:
    return [shown(found, "{:+.4f}", equal=0) for found in intervals_of_means(differences)]


def seeds_of(content: dict) -> dict[str, dict[str, dict]]:
    """The entries of a results file by what was trained and by seed, in the order of the file.

    Raises:
        InputError: seeds of a training were measured with different settings.
    """
    found: dict[str, dict[str, dict]] = {}
    for key, entry in content.items():
        training, _, seed = key.rpartition(" seed ")
        seeds = found.setdefault(training, {})
        if any(other["settings"] != entry["settings"] for other in seeds.values()):
            raise InputError(
                f"{key}: measured otherwise than another seed of it; run its benchmark again"
            )
        seeds[seed] = entry
    return found


def spread(content: dict) -> list[tuple[str, str, list[float]]]:
    """(training, inference, mIoU of each seed), in the order of the results file."""
    found: dict[tuple[str, str], list[float]] = {}
    for training, seeds in seeds_of(content).items():
        for entry in seeds.values():
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
        seeds = max(len(m) for m in mious if m)
        rows.append([training, *("" if m is None else _mean(m) for m in mious), str(seeds)])
    return markdown(["training", *inferences, "seeds"], rows)


def road_table(content: dict) -> str:
    """A row a kind of labels: mIoU of labels and network, and weak / full, over seeds."""
    kinds = seeds_of(content)
    full = {seed: entry["miou"] for seed, entry in kinds.get("masks", {}).items()}
    rows = []
    for name, seeds in kinds.items():
        labels = [entry["labels"] for entry in seeds.values() if "labels" in entry]
        ratios = [entry["miou"] / full[seed] for seed, entry in seeds.items() if seed in full]
        rows.append(
            [
                name,
                _mean(labels) if labels else "",
                _mean([entry["miou"] for entry in seeds.values()]),
                _mean(ratios, digits=3) if labels and ratios else "",
                str(len(seeds)),
            ]
        )
    header = ["trained on", "mIoU of the labels", "of the network", "weak / full", "seeds"]
    return markdown(header, rows)


def _mean(values: Sequence[float], digits: int = 1) -> str:
    mean, low, high = (f"{f(values):.{digits}f}" for f in (statistics.mean, min, max))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


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


SUMMARY_COLUMNS = {
    "plain CAM": (BASELINE, "bilinear"),
    "plain CAM, superpixels": (BASELINE, "superpixels"),
    "plain CAM, AP": (BASELINE, AP),
    "image method": (OURS, "superpixels"),
    "image method, AP": (OURS, AP),
    "saliency method": (BY_SALIENCY, "superpixels"),
    "saliency method, AP": (BY_SALIENCY, AP),
}
"""Columns of the summary: the training and the inference."""

ON_SCENES = {BASELINE: BASELINE, OURS: "DCR, IPC by the image, one patch"}
"""What the ablation calls these trainings. Its saliency maps are drawn from the masks."""


def summary_table(contents: Mapping[str, dict], budgets: Sequence[Budget]) -> str:
    """Mean mIoU of plain CAM and of the methods: a row for each budget, then generated scenes."""
    rows = []
    for budget in budgets:
        found = [budget.interval(cams) for cams in SUMMARY_COLUMNS.values()]
        title = f"{budget.photographs} photographs, ImageNet features, {budget.steps} steps"
        rows.append([title, *("" if one is None else f"{one.value:.1f}" for one in found)])
    if "ablation" in contents:
        means = {names[:2]: statistics.mean(names[2]) for names in spread(contents["ablation"])}
        cams = ((ON_SCENES.get(name), inference) for name, inference in SUMMARY_COLUMNS.values())
        found = [means.get(one) for one in cams]
        cells = ("" if one is None else f"{one:.1f}" for one in found)
        rows.append(["240 generated scenes, from scratch", *cells])
    return markdown(["mIoU (%)", *SUMMARY_COLUMNS], rows)


def replaced(text: str, name: str, table: str, path: Path) -> str:
    """A page's text with another table between the marks of `name`.

    Raises:
        InputError: the marks are missing.
    """
    start, end = f"<!-- results: {name} -->", "<!-- end of results -->"
    pattern = re.compile(f"{re.escape(start)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"{path}: no line {start} with {end} after it; put them back")
    return pattern.sub(lambda _: f"{start}\n\n{table}\n\n{end}", text, count=1)


TABLES = {
    "superpixels": superpixel_tables,
    "ablation": miou_table,
    "road": road_table,
    "road_photographs": road_table,
}
"""How the results files of each benchmark are told; benchmarks.photographs has several."""

PAGES = {
    "README.md": ("summary",),
    "docs/results.md": ("ahead", *TABLES),
    "docs/experiments.md": ("budgets", "learning_rates"),
}
"""The tables of each page, in any order."""


def pages(
    root: Path,
    contents: Mapping[str, dict],
    budgets: Sequence[Budget],
    photographs: Sequence[dict],
) -> dict[Path, str | bytes]:
    """What pages and figures should hold, by their paths.

    Args:
        root: holds README.md and docs.
        contents: of the results files of TABLES, by their names.
        budgets: of the half `report` of benchmarks.photographs.
        photographs: contents of all results files of it.
    """
    out: dict[Path, str | bytes] = {}
    tables = {name: TABLES[name](content) for name, content in contents.items()}
    tables["summary"] = summary_table(contents, budgets)
    if budgets:
        tables |= {"ahead": ahead_table(budgets, BASELINE), "budgets": budget_tables(budgets)}
        out[root / "docs" / "miou_over_steps.png"] = figure(budgets)
    if photographs:
        tables["learning_rates"] = rates_tables(photographs)
    if "ablation" in contents:
        out[root / "data" / "ablation.svg"] = miou_figure(contents["ablation"])
    for page, names in PAGES.items():
        text = read_text(root / page)
        for name in filter(tables.__contains__, names):
            text = replaced(text, name, tables[name], root / page)
        out[root / page] = text
    return out


def budgets_in(photographs: Mapping[Path, dict]) -> list[Budget]:
    """The budgets of the half `report`, those of few steps first.

    Args:
        photographs: contents of files `photographs_report_STEPS.json` and
            `photographs_report_STEPS_MORE.json`, whose trainings belong together, among others.
    """
    found: dict[int, dict] = {}
    for path, content in photographs.items():
        if path.match("photographs_report_[0-9]*.json"):
            found.setdefault(int(path.stem.split("_")[2]), {}).update(content)
    return [Budget(found[steps], f"photographs_report_{steps}*.json") for steps in sorted(found)]


def holds(path: Path, content: str | bytes) -> bool:
    """Whether a file holds a page's text, or a picture that shows the same."""
    if not path.is_file():
        return False
    if isinstance(content, bytes):
        return numbers_in(read_bytes(path)) == numbers_in(content)
    return read_text(path) == content


def update(options: argparse.Namespace) -> int:
    """Write pages and figures, or compare; the exit status."""
    files = {name: options.results / f"{name}.json" for name in TABLES}
    contents = {name: read_json(path) for name, path in files.items() if path.is_file()}
    found = sorted(options.results.glob("photographs_*.json"))
    photographs = {path: read_json(path) for path in found}
    budgets = budgets_in(photographs)
    wanted = pages(options.root, contents, budgets, list(photographs.values()))
    if not options.check:
        for path, content in wanted.items():
            write = write_bytes if isinstance(content, bytes) else write_text
            write(path, content)
        return 0
    old = [path for path, content in wanted.items() if not holds(path, content)]
    print(f"out of date: {', '.join(map(str, old))}" if old else "pages and figures fit")
    return int(bool(old))


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = new_parser(__doc__, prog="python -m benchmarks.readme")
    parser.add_argument(
        "--root", type=Path, default=REPOSITORY, metavar="DIR", help="holds README.md and docs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run(update, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
