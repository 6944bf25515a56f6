"""The generated scenes: what they promise to those who judge by them."""

import cv2
import numpy as np
import pytest

from datasets.demo import MIN_SIZE
from datasets.scenes import CLASSES, make_scene

SIZE = 96


@pytest.fixture(scope="module")
def scenes():
    return [make_scene((0, 0, number), number % 6, SIZE) for number in range(180)]


def test_six_scenes_in_a_row_show_every_class(scenes):
    for start in range(0, 36, 6):
        present = {item.name for scene in scenes[start : start + 6] for item in scene.items}
        assert present == set(CLASSES)


def test_objects_are_large_and_some_hide_others(scenes):
    share = np.mean([(scene.labels > 0).mean() for scene in scenes])
    assert 0.2 < share < 0.45
    assert {len(scene.items) for scene in scenes} == {1, 2, 3}
    items = [item for scene in scenes for item in scene.items]
    assert 0.1 < np.mean([item.occluded for item in items]) < 0.6
    assert 0.05 < np.mean([item.truncated for item in items]) < 0.8


def test_colour_does_not_give_the_class(scenes):
    """Nearest mean colour, fitted on one half of the objects, guesses the other half by chance."""
    colours, classes = [], []
    for scene in scenes:
        lab = cv2.cvtColor(scene.image, cv2.COLOR_RGB2LAB).astype(float)
        for index in set(np.unique(scene.labels)) - {0}:
            colours.append(lab[scene.labels == index].mean(0))
            classes.append(index)
    colours, classes = np.array(colours), np.array(classes)
    fitted, tried = slice(0, None, 2), slice(1, None, 2)
    means = np.array([colours[fitted][classes[fitted] == k].mean(0) for k in range(1, 7)])
    distance = np.linalg.norm(colours[tried][:, None] - means, axis=2)
    assert np.mean(distance.argmin(1) + 1 == classes[tried]) < 0.3


def test_background_shares_the_colours_of_objects(scenes):
    inside = np.array([scene.image[scene.labels > 0].mean(0) for scene in scenes])
    outside = np.array([scene.image[scene.labels == 0].mean(0) for scene in scenes])
    assert np.all(np.abs(inside.mean(0) - outside.mean(0)) < 25)
    assert np.all(outside.std(0) > 20)


def test_saliency_is_good_but_imperfect(scenes):
    overlaps, wrong = [], []
    for scene in scenes:
        found, there = scene.saliency > 127, scene.labels > 0
        overlaps.append((found & there).sum() / (found | there).sum())
        wrong.append((found & ~there).sum() / there.sum())
    assert 0.6 < np.mean(overlaps) < 0.9
    assert max(overlaps) < 0.99
    assert 0.02 < np.mean(np.array(overlaps) < 0.4) < 0.3  # objects missed
    assert np.mean(np.array(wrong) > 0.15) > 0.05  # background found
    values = np.concatenate([scene.saliency.ravel() for scene in scenes])
    assert np.mean((values > 40) & (values < 215)) > 0.1  # soft borders


@pytest.mark.parametrize("size", [MIN_SIZE, 300])
def test_other_sizes(size):
    for number in range(6):
        scene = make_scene((1, 0, number), number, size)
        assert max(scene.labels.shape) == size
        assert scene.image.shape[:2] == scene.labels.shape == scene.saliency.shape
