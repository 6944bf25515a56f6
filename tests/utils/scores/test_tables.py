"""Scores as they are printed and written, of counts done by hand."""

import json

import numpy as np

from utils.scores.tables import score_table, table_in

# Rows are the ground truth. At 0.1 all is labelled cat; at 0.2 half of it rightly; a dog never is.
CONFUSION = np.array([[[0, 6, 0], [0, 4, 0], [0, 0, 0]], [[6, 0, 0], [2, 2, 0], [0, 0, 0]]])

PRINTED = """
IoU (%) at threshold      0.1    0.2  precision  recall
background                0.0   75.0       75.0   100.0
cat                      40.0   50.0      100.0    50.0
dog                         -      -          -       -
mIoU                     20.0   62.5
mean precision           40.0   87.5
mean recall              50.0   75.0
best: mIoU 62.50 at threshold 0.2, the highest tried
(the last two columns are at threshold 0.2; - is the precision of a class that is never predicted, \
the recall of one that is never there; means leave them out)
"""

PRINTED_WITHOUT_THRESHOLD = """
                          IoU  precision  recall
background               75.0       75.0   100.0
cat                      50.0      100.0    50.0
dog                         -          -       -
"""


def test_printed():
    assert score_table(("cat", "dog"), (0.1, 0.2), CONFUSION).table() == PRINTED.strip()
    for order, end in (([1, 0], "0.1, the lowest tried"), ([0, 1, 0], "0.2"), ([1], "0.1")):
        thresholds = (0.1, 0.2, 0.3)[: len(order)]
        table = score_table(("cat", "dog"), thresholds, CONFUSION[order]).table()
        assert f"best: mIoU 62.50 at threshold {end}\n" in table
    one = score_table(("cat", "dog"), (None,), CONFUSION[1:])
    assert one.table() == PRINTED_WITHOUT_THRESHOLD.strip("\n")


def test_written_and_read_back():
    table = score_table(("cat", "dog"), (0.1, 0.2), CONFUSION)
    text = json.dumps(table.as_json(), allow_nan=False)
    found = json.loads(text)
    assert found["classes"] == ["background", "cat", "dog"]
    assert found["best"] == {"threshold": 0.2, "miou": 0.625}
    second = found["thresholds"][1]
    assert second["threshold"] == 0.2 and second["miou"] == 0.625
    assert second["iou"] == [0.75, 0.5, None]
    assert second["precision"] == [0.75, 1, None] and second["recall"] == [1, 0.5, None]
    assert second["confusion"] == CONFUSION[1].tolist()
    assert table_in(found).as_json() == table.as_json()


def test_where_nothing_is_scored():
    table = score_table(("cat",), (0.1, 0.2), np.zeros((2, 2, 2), np.int64))
    assert table.as_json()["best"] == {"threshold": 0.1, "miou": None}
    assert "best: mIoU nan" in table.table()
