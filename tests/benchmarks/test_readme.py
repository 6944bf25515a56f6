import json
from xml.dom import minidom

import pytest

from benchmarks import readme
from tests.benchmarks.test_evidence import results

MARKS = "<!-- results: {} -->\n{}\n<!-- end of results -->\n"
ENTRIES = {
    f"plain CAM seed {seed}": {
        "settings": {},
        "scores": {"bilinear": {"miou": 20 + seed}, "superpixels": {"miou": 30.04}},
    }
    for seed in range(3)
} | {
    "DCR, IPC by the image, one patch seed 0": {
        "settings": {},
        "scores": {
            "superpixels": {"miou": 25.0},
            "superpixels, AP gamma 0.6": {"miou": 26.5},
        },
    },
    "<DCR> seed 0": {"settings": {}, "scores": {"superpixels": {"miou": 24.0}}},
}


SCORES = {"asa": 0.96, "boundary_recall": 0.9, "undersegmentation_error": 0.08}
SUPERPIXELS = {
    "images": 2,
    "summary": [
        {"method": "scn", "run": "scn a", "superpixels": 601.4, **SCORES},
        {"method": "scn", "run": "scn b", "superpixels": 601.4, **SCORES, "asa": 0.95},
        {"method": "slic", "run": "slic", "compactness": 20, "superpixels": 610.0, **SCORES},
    ],
    "runs": {
        "scn a": {"x": [0.96, 0.9, 0.1, 600], "y": [0.97, 0.9, 0.1, 600]},
        "scn b": {"x": [0.96, 0.9, 0.1, 600], "y": [0.96, 0.9, 0.1, 600]},
        "slic": {"y": [0.96, 0.8, 0.1, 9], "x": [0.94, 0.8, 0.1, 9]},
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docs").mkdir()
    for page, names in readme.PAGES.items():
        text = "before\n" + "".join(MARKS.format(name, "old") for name in names) + "after\n"
        (tmp_path / page).write_text(text)
    (tmp_path / "ablation.json").write_text(json.dumps(ENTRIES))
    (tmp_path / "superpixels.json").write_text(json.dumps(SUPERPIXELS))
    return tmp_path


def call(folder, *more):
    return readme.main(["--root", str(folder), "--results", str(folder), *more])


def test_numbers_come_from_the_files(folder):
    page = folder / "docs/results.md"
    assert call(folder, "--check") == 1
    assert "old" in page.read_text()
    assert call(folder) == 0
    text = page.read_text()
    assert "| plain CAM | 21.0 (20.0 to 22.0) | 30.0 (30.0 to 30.0) |  | 3 |" in text
    assert "| <DCR> |  | 24.0 |  | 1 |" in text
    assert "| SCN (shipped) | 0.960 | 0.900 | 0.080 | 601 |" in text
    assert "| the same recipe, another seed | 0.950 | 0.900 | 0.080 | 601 |" in text
    row = "| SCN (shipped) minus SLIC, compactness 20 | **+0.0150** (+0.0100 to +0.0200) | "
    assert row + "**+0.1000** (+0.1000 to +0.1000) | +0.0000 (+0.0000 to +0.0000) |" in text
    assert text.startswith("before\n") and text.endswith("after\n")
    assert text.count("old") == len(readme.TABLES) + 1 - 2  # only two have results here
    figure = minidom.parse(str(folder / "data/ablation.svg"))
    assert len(figure.getElementsByTagName("rect")) == 1 + 5
    assert call(folder, "--check") == 0
    (folder / "data/ablation.svg").write_text("<svg/>")
    assert call(folder, "--check") == 1


def test_ratios_are_of_the_same_seed(folder):
    content = {
        f"{name} seed {seed}": {"settings": {"of": name}, "miou": miou} | more
        for seed, (weak, full) in enumerate([(30, 40), (30, 60)])
        for name, miou, more in (("image", weak, {"labels": 50 + seed}), ("masks", full, {}))
    }
    (folder / "road.json").write_text(json.dumps(content))
    assert call(folder) == 0
    text = (folder / "docs/results.md").read_text()
    row = "| image | 50.5 (50.0 to 51.0) | 30.0 (30.0 to 30.0) | 0.625 (0.500 to 0.750) | 2 |"
    assert row in text
    assert "| masks |  | 50.0 (40.0 to 60.0) |  | 2 |" in text


def test_budgets_come_from_the_half_that_reports(folder):
    halves = (("report_tested", 300), ("report", 900), ("report", 300), ("choice", 300))
    for half, steps in halves:
        path = folder / f"photographs_{half}_{steps}.json"
        path.write_text(json.dumps(results(steps, 0.4)))
    assert call(folder) == 0
    assert "ahead of plain CAM" in (folder / "docs/results.md").read_text()
    text = (folder / "docs/experiments.md").read_text()
    assert "| mIoU (%) | 300 steps | 900 steps |" in text
    assert "| report, 300 | 0.4 | 0 of 3 | " in text and "| report, 900 | 0.4 | 0 of 3 | " in text
    summary = (folder / "README.md").read_text()
    row = next(row for row in summary.splitlines() if row.startswith("| 12 photographs, ImageNet"))
    assert "features, 300 steps" in row
    *cells, saliency, ap = row.split("|")[2:-1]
    assert [float(cell) for cell in cells] == pytest.approx([30, 31, 32, 40, 41], abs=1)
    assert saliency.strip() == ap.strip() == ""  # not measured here
    assert summary.index("300 steps") < summary.index("900 steps") < summary.index("240 generated")
    assert call(folder, "--check") == 0
    more = {key: entry for key, entry in results(300, 0.4).items() if key.startswith("plain CAM")}
    more = {key.replace("plain CAM", "saliency method"): entry for key, entry in more.items()}
    path.with_name("photographs_report_300_saliency.json").write_text(json.dumps(more))
    assert call(folder) == 0
    summary = (folder / "README.md").read_text()
    row = next(row for row in summary.splitlines() if row.startswith("| 12 photographs, ImageNet"))
    *_, saliency, ap = row.split("|")[2:-1]
    assert [float(saliency), float(ap)] == pytest.approx([31, 32], abs=1)
    path.with_name("photographs_report_900.json").write_text(json.dumps(results(900, 0.5)))
    before = (folder / "docs/experiments.md").read_text()
    assert call(folder, "--check") == 1
    assert (folder / "docs/experiments.md").read_text() == before


def test_the_summary_compares_the_method_with_plain_cam(folder):
    assert call(folder) == 0
    text = (folder / "README.md").read_text()
    assert "| 240 generated scenes, from scratch | 21.0 | 30.0 |  | 25.0 | 26.5 |  |  |" in text
    assert text.startswith("before\n") and "photographs" not in text
    (folder / "README.md").write_text(text.replace("26.5", "62.5"))
    assert call(folder, "--check") == 1


def test_seeds_of_different_budgets_are_not_averaged(folder, capsys):
    other = {"settings": {"arguments": ["--epochs", "3"]}, "scores": {}}
    (folder / "ablation.json").write_text(json.dumps(ENTRIES | {"<DCR> seed 1": other}))
    assert call(folder) == 2
    assert "<DCR> seed 1: measured otherwise" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "name"), [("docs/results.md", "superpixels"), ("README.md", "summary")]
)
def test_missing_marks_are_named(folder, capsys, page, name):
    (folder / page).write_text("nothing")
    assert call(folder) == 2
    error = capsys.readouterr().err
    assert page in error and f"<!-- results: {name} -->" in error


def test_this_projects_pages_are_up_to_date(capsys):
    assert readme.main(["--check"]) == 0, capsys.readouterr().out
