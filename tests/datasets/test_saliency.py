import cv2
import numpy as np
import pytest

from datasets.saliency import INVERTED_BY, Look, coverage_of, look_at, suspicions


def written(path, saliency):
    cv2.imwrite(str(path), saliency)
    return look_at(path)


def test_a_map_in_numbers(tmp_path):
    saliency = np.zeros((10, 20), np.uint8)
    saliency[2:8, 5:15] = 255
    look = written(tmp_path / "a.png", saliency)
    assert look == Look((10, 20), pytest.approx(0.3), 0, ())
    inverted = written(tmp_path / "b.png", 255 - saliency)
    assert inverted == Look((10, 20), pytest.approx(0.7), 1, ())


@pytest.mark.parametrize(
    "coverage, border, lines",
    [
        (0.3, 0.1, 0),
        (0.3, 0.3 + INVERTED_BY / 2, 0),
        (0.3, 0.3 + 2 * INVERTED_BY, 1),
        (0.004, 0.0, 1),
        (0.95, 0.7, 1),
        (0.92, 0.99, 2),
    ],
)
def test_suspicions_are_of_all_maps_together(coverage, border, lines):
    looks = [Look((1, 1), coverage + step, border + step, ()) for step in (-0.003, 0.003)]
    assert len(suspicions(looks)) == lines


def test_no_map_that_can_be_read():
    assert suspicions([]) == [] and coverage_of([]) == "none can be read"


def test_real_maps_and_their_inversions(shared):
    """The margin: every tenth of the real maps is enough to tell them from inverted ones."""
    paths = sorted((shared / "coco_mini_voc" / "saliency_map").glob("*.png"))
    looks = [look_at(path) for path in paths[::10]]
    assert suspicions(looks) == []
    inverted = [Look(look.size, 1 - look.coverage, 1 - look.border, ()) for look in looks]
    assert len(suspicions(inverted)) == 1
