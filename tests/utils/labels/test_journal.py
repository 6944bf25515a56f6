import json
import tracemalloc

import numpy as np
import pytest

from utils.labels.journal import Journal

SHAPES = {"counts": (3, 2, 4), "regions": (2,)}
COCO = {"counts": (81, 80, 8)}
LINES = 2000


def counts_of(seed, shapes=SHAPES, filled=40):
    """Counts of a photograph: most places are empty."""
    rng = np.random.default_rng(seed)
    counts = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    for count in counts.values():
        places = rng.choice(count.size, min(filled, count.size // 2), replace=False)
        count.ravel()[places] = rng.integers(1, 200_000, len(places))
    return counts


def write(folder, shapes, photographs):
    """Write a journal; its sums."""
    with Journal(folder, shapes) as journal:
        for identifier, counts in photographs:
            journal.add(identifier, counts)
        return journal.totals()


def read(folder, shapes=SHAPES, complete=lambda _: True):
    """What a later start finds: ids and sums."""
    journal = Journal(folder, shapes)
    return journal.finished(complete), journal.totals()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_what_was_written_is_read(tmp_path):
    a, b, c = (counts_of(seed) for seed in range(3))
    write(tmp_path, SHAPES, [("a", a), ("b", b), ("c", c)])
    done, totals = read(tmp_path, complete=lambda identifier: identifier != "b")
    assert done == {"a", "c"}
    assert_same(totals, {name: a[name] + c[name] for name in SHAPES})


def test_a_later_start_goes_on(tmp_path):
    a, b = counts_of(0), counts_of(1)
    write(tmp_path, SHAPES, [("a", a)])
    with (tmp_path / "done-0.jsonl").open("ab") as file:
        file.write(b'{"id": "half a li')
    with Journal(tmp_path, SHAPES) as journal:
        assert journal.finished(lambda _: True) == {"a"}
        journal.add("b", b)
        assert journal.added == 1
    done, totals = read(tmp_path)
    assert done == {"a", "b"}
    assert_same(totals, journal.totals())
    assert_same(totals, {name: a[name] + b[name] for name in SHAPES})


def test_marks_are_kept_for_every_photograph(tmp_path):
    a, b = counts_of(0), counts_of(1)
    a["regions"][:], b["regions"][:] = (0, 5), (0, 0)
    write(tmp_path, SHAPES, [("a", a)])
    with (tmp_path / "done-0.jsonl").open("ab") as file:
        file.write(b'{"id": "c", "counts": [[], []], "regions": [[9], [1]]}\n')
    with Journal(tmp_path, SHAPES, marks=("regions",)) as journal:
        assert journal.finished(lambda _: True) == {"a"}  # c is in a region that is not there
        journal.add("b", b)
    assert journal.marked == {"a": {"regions": [1]}, "b": {"regions": []}}


GOOD = {"id": "x", "counts": [[0, 23], [5, 7]], "regions": [[1], [9]]}


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": [[0, 23], [5]]},
        {"counts": [[0], [5, 7]]},
        {"counts": [[0, 23]]},
        {"counts": [[0, 23], [5, 7], [1, 1]]},
        {"counts": [[[0, 23]], [[5, 7]]]},
        {"counts": [[-1], [5]]},
        {"counts": [[24], [5]]},
        {"counts": [[3, 3], [5, 7]]},
        {"counts": [["a"], [5]]},
        {"counts": [[10**30], [5]]},
        {"counts": None},
        {"regions": [[-1], [9]]},  # behind good counts: all are taken, or none
        {"regions": [[2], [9]]},
        {"id": ["x"]},
    ],
    ids=lambda changes: json.dumps(changes)[1:40],
)
def test_damaged_lines_are_passed_over(tmp_path, changes):
    """The first complete line of a photograph counts."""
    again = GOOD | {"regions": [[1], [1000]]}
    lines = [json.dumps(line) for line in (GOOD | changes, GOOD, again)]
    (tmp_path / "done-0.jsonl").write_text("\n".join(lines))
    (tmp_path / "done-1.jsonl").write_text(json.dumps(again))
    done, totals = read(tmp_path)
    assert done == {"x"}
    assert totals["regions"].tolist() == [0, 9]
    assert totals["counts"].sum() == 12 and totals["counts"][0, 0, 0] == 5


@pytest.mark.parametrize("missing", GOOD)
def test_lines_without_a_part_are_passed_over(tmp_path, missing):
    line = {name: value for name, value in GOOD.items() if name != missing}
    texts = (json.dumps(line), "[]", "7", "null", "\udcff", json.dumps(GOOD)[:-3])
    (tmp_path / "done-0.jsonl").write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    done, totals = read(tmp_path)
    assert not done and not any(total.any() for total in totals.values())


def test_memory_does_not_grow_with_the_photographs(tmp_path):
    """Only their ids do: 80 000 photographs of COCO take 17 MB; all their counts would be 33 GB."""
    photographs = ((f"{number:012d}", counts_of(number, COCO)) for number in range(LINES))
    tracemalloc.start()
    written = write(tmp_path, COCO, photographs)
    done, totals = read(tmp_path, COCO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(done) == LINES
    assert_same(totals, written)
    assert peak < 4e6
