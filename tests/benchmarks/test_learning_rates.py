import copy

import pytest

from benchmarks.learning_rates import by_rate, rates_tables
from tests.benchmarks.test_evidence import results


def told(*contents, beside="plain CAM"):
    """The cells of each row of the table of the image method beside another training."""
    rows = ()
    for table in rates_tables(contents).split("\n\n"):
        header, _, *lines = table.splitlines()
        if f"{beside}: failed" in header:
            rows = lines
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def given(content, name, arguments):
    """Trainings with a set of arguments, as --set names them."""
    named = {}
    for key, entry in copy.deepcopy(content).items():
        training, _, seed = key.rpartition(" seed ")
        entry["settings"]["arguments"] += arguments
        named[f"{training} {name} seed {seed}"] = entry
    return named


def test_a_row_a_rate_in_order():
    usual = results(300, 0.4)
    warm = given(usual, "--lr 0.3 --warmup 42", ["--lr", "0.3", "--warmup", "42"])
    rows = told(usual, warm)
    assert [row[:2] for row in rows] == [
        ["report, 300", "0.3, warm-up 42"],
        ["report, 300", "0.4"],
    ]
    assert rows[0][2:] == rows[1][2:]
    assert rows[1][2] == rows[1][6] == "0 of 3"
    bilinear, superpixels, ap, ours, ours_ap = (float(rows[1][i]) for i in (3, 4, 5, 7, 8))
    found = (bilinear, superpixels, ap, ours, ours_ap)
    assert found == pytest.approx([30, 31, 32, 40, 41], abs=1)
    assert rows[1][9].startswith("**+") and rows[1][9].endswith(", 3 seeds")


def test_beside_dcr_where_it_was_trained():
    usual = results(300, 0.4)
    warm = given(usual, "--lr 0.3 --warmup 42", ["--lr", "0.3", "--warmup", "42"])
    assert told(usual, warm, beside="DCR") == []
    for seed in range(3):
        name = f"plain CAM --lr 0.3 --warmup 42 seed {seed}"
        warm[name.replace("plain CAM", "DCR")] = copy.deepcopy(warm[name])
    (row,) = told(usual, warm, beside="DCR")
    beside_plain = told(usual, warm)[0]
    assert row == beside_plain[:3] + beside_plain[4:]  # all but bilinear


def test_trainings_that_failed_are_counted_and_left_out():
    content = results(300, 0.4)
    before = told(content)[0]
    content["plain CAM seed 1"]["mean_ap"] = content["image method seed 2"]["mean_ap"] = 20.0
    for score in content["plain CAM seed 1"]["scores"].values():
        score["counts"] = "unreadable, were it read"
    row = told(content)[0]
    assert row[2] == row[6] == "1 of 3"
    assert float(row[3]) == pytest.approx(float(before[3]), abs=0.5)
    assert row[9] == ""  # only seed 0 is left of both
    for entry in content.values():
        entry["mean_ap"] = 20.0
    assert told(content)[0][2:] == ["3 of 3", "", "", "", "3 of 3", "", "", "", ""]


def test_other_settings_and_other_photographs_are_not_told():
    content = results(300, 0.4)
    tested = copy.deepcopy(content)
    for entry in tested.values():
        entry["settings"]["tested"] = "12, abc"
    assert by_rate([tested, given(content, "--patches 4", [])]) == {}
    assert len(by_rate([tested, content])) == 1
