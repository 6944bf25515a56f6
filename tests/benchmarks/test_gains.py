import json
from argparse import Namespace

import numpy as np
import pytest

from benchmarks import gains
from utils.scores.counts import Counts


def counts_of(truth, labels):
    """Counts of one threshold, from classes of pixels (P, N), pixel by pixel."""
    shape = (len(truth), 3)
    total, hits, predicted = np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape, int)
    for photograph, (there, said) in enumerate(zip(truth, labels, strict=True)):
        for a, b in zip(there, said, strict=True):
            total[photograph, a] += 1
            predicted[photograph, b] += 1
            hits[photograph, a] += a == b
    return Counts((0.3,), total, hits[..., None], predicted[..., None])


def test_scores_of_photographs():
    truth = [[0, 0, 1, 1], [0, 0, 0, 2], [0, 0, 0, 0]]
    labels = [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 2]]
    found = gains.photograph_ious(counts_of(truth, labels))
    # background 1/2 and class one 2/3; background 1 and class two 0; background 3/4
    np.testing.assert_allclose(found, [100 * (1 / 2 + 2 / 3) / 2, 50, 75])


def test_groups_are_told_by_their_masks():
    truth = np.array([[95, 5, 0], [80, 10, 10], [60, 40, 0], [0, 50, 50]])
    found = {name: list(these.astype(int)) for name, these in gains.groups(truth).items()}
    assert found == {
        "all": [1, 1, 1, 1],
        "objects cover less than a tenth": [1, 0, 0, 0],
        "a tenth to three tenths": [0, 1, 0, 0],
        "three tenths or more": [0, 0, 1, 1],
        "one class": [1, 0, 1, 0],
        "several classes": [0, 1, 0, 1],
    }
    rows = gains.group_rows(truth, np.array([10.0, 10, 10, 10]), np.array([20.0, 10, 9.5, 6]))
    assert rows[0] == ["all", 4, "10.0", "11.4", "+1.4", "25 %", "25 %"]


def test_what_changed_most_is_listed(monkeypatch):
    monkeypatch.setattr(gains, "LISTED", 1)
    found = gains.listed(["a", "b", "c"], np.array([5.0, 5, 5]), np.array([4.0, 9, 5]))
    assert [row[0] for row in found] == ["b", "a"] and found[0][3] == "+4.0"


def test_a_training_that_is_not_there_is_refused(tmp_path):
    entry = {"settings": {"budget": 300}, "photographs": "a", "scores": {}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"plain CAM seed 0": entry}))
    given = Namespace(results=path, training="DCR", inference="superpixels")
    with pytest.raises(gains.InputError, match="no seed of plain CAM and of DCR"):
        gains.main(given)
