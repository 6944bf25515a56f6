import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.evidence import Budget, ahead_table, budget_tables, figure, numbers_in, shown
from benchmarks.packed_counts import packed
from datasets.files import InputError
from utils.scores.bootstrap import Interval
from utils.scores.counts import Counts

PLAIN, SUPERPIXELS, AP = "bilinear", "superpixels", "superpixels, AP gamma 0.6"


def entry(rng, share, steps, inferences):
    """A training that gets about a share of 12 photographs right."""
    truth = np.full((12, 2), 1000)
    scores = {}
    for more, inference in enumerate(inferences):
        hits = (1000 * (share + 0.01 * more) + rng.integers(-20, 20, (12, 2, 1))).astype(int)
        counts = Counts((0.3,), truth, hits, hits)
        scores[inference] = {"miou": 100 * counts.mious()[0, 0], "counts": packed(counts)}
    settings = {"budget": steps, "half": "report", "arguments": ["--lr", "0.3", "--lr", "0.4"]}
    photographs = "\n".join("abcdefghijkl")
    return {"settings": settings, "photographs": photographs, "mean_ap": 100.0, "scores": scores}


def results(steps, ours):
    rng = np.random.default_rng(steps)
    content = {}
    for seed in range(3):
        baseline = entry(rng, 0.3, steps, (PLAIN, SUPERPIXELS, AP))
        content[f"plain CAM seed {seed}"] = baseline
        content[f"image method seed {seed}"] = entry(rng, ours, steps, (SUPERPIXELS, AP))
    return content


@pytest.fixture
def budgets():
    return [Budget(results(300, 0.31), "short"), Budget(results(900, 0.5), "long")]


def test_differences_are_paired_and_marked(budgets):
    short, long = (b.difference(("image method", AP), ("plain CAM", AP)) for b in budgets)
    assert not short.excludes(0) and abs(short.value) < 2
    assert long.excludes(0) and long.value == pytest.approx(19, abs=1)
    assert budgets[1].ratio(("image method", AP), ("plain CAM", PLAIN)).value == pytest.approx(
        0.51 / 0.3, rel=0.05
    )


def test_seeds_that_one_lacks_do_not_count(budgets):
    del budgets[0].entries["image method"][1]
    assert budgets[0].seeds(("image method", AP), ("plain CAM", AP)) == (0, 2)
    assert budgets[0].difference(("image method", PLAIN), ("plain CAM", PLAIN)) is None


def test_tables(budgets):
    alike = ahead_table(budgets, "plain CAM").splitlines()
    assert alike[0].endswith("| 300 steps | 900 steps |")
    assert alike[2].startswith("| image method; superpixels | ") and alike[2].count("**") == 2
    assert len(alike) == 4 and "bilinear" not in "".join(alike)
    text = budget_tables(budgets)
    assert text.count(", 3 seeds") == 2 * (5 + 4)
    assert "| image method; superpixels, AP gamma 0.6 | " in text


def test_what_ipc_adds_is_told_where_dcr_was_trained(budgets):
    assert "ahead of" not in budget_tables(budgets)
    content = results(300, 0.4)
    rng = np.random.default_rng(0)
    content |= {f"DCR seed {seed}": entry(rng, 0.4, 300, (SUPERPIXELS, AP)) for seed in range(3)}
    with_dcr = [Budget(content, "with DCR")]
    alike = ahead_table(with_dcr, "DCR").splitlines()
    assert "\n".join(alike) in budget_tables(with_dcr)
    assert [line.split(" | ")[0] for line in alike[2:]] == [
        "| image method; superpixels",
        f"| image method; {AP}",
    ]
    assert "| DCR; superpixels | **+" in ahead_table(with_dcr, "plain CAM")


def test_other_photographs_or_settings_are_not_compared():
    content = results(300, 0.4)
    content["image method seed 1"]["photographs"] = "others"
    with pytest.raises(InputError, match="short: image method seed 1: measured otherwise"):
        Budget(content, "short")
    content = results(300, 0.4)
    content["image method seed 1"]["settings"] = {"budget": 300, "scn": "another"}
    with pytest.raises(InputError, match="measured otherwise"):
        Budget(content, "short")


def test_the_figure_is_small_and_says_what_it_shows(budgets):
    png = figure(budgets)
    assert len(png) < 100_000
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width > 1000 and picture.format == "PNG"
    assert numbers_in(png) == numbers_in(figure(budgets))
    other = figure([budgets[0], Budget(results(900, 0.4), "long")])
    assert numbers_in(png) != numbers_in(other)


def test_nothing_is_shown_as_less_than_nothing():
    found = Interval(-0.02, -1.26, 0.02)
    assert shown(found, "{:+.1f}", 5, 0) == "+0.0 (-1.3 to +0.0), 5 seeds"
    ratio = Interval(1.5, 1.2, 2.0)
    assert shown(ratio, "{:.2f}", equal=1) == "**1.50** (1.20 to 2.00)"
    assert shown(ratio, "{:.2f}", 2, 1) == "**1.50** (1.20 to 2.00), 2 seeds"
    assert shown(ratio, "{:.2f}", 1, 1) == "1.50 (1.20 to 2.00), 1 seed"
