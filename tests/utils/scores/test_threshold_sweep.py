import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.inference.label_maps import label_map
from utils.scores.average_precision import average_precision
from utils.scores.confusion import class_scores, confusion_matrix
from utils.scores.threshold_sweep import ThresholdSweep

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)


def loop_confusion(truth, prediction, num_classes):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 9), st.permutations(THRESHOLDS))
def test_sweep_agrees_with_one_argmax_a_threshold(seed, classes, thresholds):
    rng = np.random.default_rng(seed)
    sweep = ThresholdSweep(classes + 1, thresholds)
    expected = np.zeros((len(thresholds), classes + 1, classes + 1), np.int64)
    for _ in range(2):
        truth = rng.integers(0, classes + 1, (7, 8)).astype(np.uint8)
        truth[rng.random((7, 8)) < 0.1] = 255
        # values on the thresholds themselves, where > and >= differ
        cams = rng.choice(np.asarray([0, *THRESHOLDS, 0.5, 1], np.float32), (classes, 7, 8))
        sweep.add(cams, truth)
        for i, threshold in enumerate(thresholds):
            stacked = np.concatenate([np.full((1, 7, 8), threshold, np.float32), cams])
            expected[i] += loop_confusion(truth, stacked.argmax(0), classes + 1)
    result = sweep.result()
    assert result.dtype == np.int64
    assert (result == expected).all()


def test_sweep_with_the_present_classes_only():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, (9, 9)).astype(np.uint8)
    present = np.array([1, 3])
    cams = rng.random((2, 9, 9), np.float32)
    full = np.zeros((5, 9, 9), np.float32)
    full[present] = cams
    one, two = ThresholdSweep(6, THRESHOLDS), ThresholdSweep(6, THRESHOLDS)
    one.add(full, truth)
    two.add_present(present, cams, truth)
    assert (one.result() == two.result()).all()
    empty = ThresholdSweep(6, THRESHOLDS)
    empty.add_present(np.array([], int), np.zeros((0, 9, 9), np.float32), truth)
    assert (empty.result()[:, :, 0].sum(1) == 81).all()


def test_sweep_matches_the_written_labels():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, (20, 20)).astype(np.uint8)
    cams = rng.random((3, 20, 20), np.float32)
    sweep = ThresholdSweep(4, THRESHOLDS)
    sweep.add(cams, truth)
    for threshold, matrix in zip(THRESHOLDS, sweep.result(), strict=True):
        labels = label_map(np.arange(3), cams, threshold)
        assert (confusion_matrix(truth, labels, 4) == matrix).all()


def test_sweep_refuses_what_does_not_fit():
    sweep = ThresholdSweep(3, THRESHOLDS)
    with pytest.raises(ValueError, match="do not fit"):
        sweep.add(np.zeros((2, 4, 4), np.float32), np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="class 7"):
        sweep.add(np.zeros((2, 4, 4), np.float32), np.full((4, 4), 7, np.uint8))
    for wrong in (-1, 2):
        cams, truth = np.ones((1, 4, 4), np.float32), np.zeros((4, 4), np.uint8)
        with pytest.raises(ValueError, match="foreground classes are 0 to 1"):
            sweep.add_present(np.array([wrong]), cams, truth)


@pytest.mark.parametrize("wrong", [-1, 254, 300])
def test_a_class_that_no_label_map_holds(wrong):
    with pytest.raises(ValueError, match="0 to 253"):
        label_map(np.array([wrong]), np.ones((1, 4, 4), np.float32), 0.5)


def test_scores():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    result = class_scores(matrix)
    np.testing.assert_allclose(result.iou, [6 / 9, 3 / 6, np.nan])
    np.testing.assert_allclose(result.precision, [6 / 7, 3 / 5, np.nan])
    np.testing.assert_allclose(result.recall, [6 / 8, 3 / 4, np.nan])
    assert result.miou == pytest.approx((6 / 9 + 3 / 6) / 2)


def test_average_precision():
    ranking = np.array([[0.9, 1.0], [0.8, 0.0], [0.7, 0.5], [0.6, 0.2]])
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    result = average_precision(ranking, labels)
    assert result[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert np.isnan(result[1])


def test_average_precision_does_not_depend_on_the_order_of_equal_scores():
    rng = np.random.default_rng(0)
    ranking, labels = rng.integers(0, 4, (30, 5)), rng.integers(0, 2, (30, 5))
    result = average_precision(ranking, labels)
    for k in range(5):
        expected, before = 0.0, 0.0
        for score in sorted(set(ranking[:, k]), reverse=True):
            found = labels[ranking[:, k] >= score, k]
            recall = found.sum() / labels[:, k].sum()
            expected, before = expected + (recall - before) * found.mean(), recall
        assert result[k] == pytest.approx(expected)
    mixed = rng.permutation(30)
    np.testing.assert_allclose(average_precision(ranking[mixed], labels[mixed]), result)
    assert average_precision(np.zeros((10, 1)), np.eye(10)[:, :1]) == pytest.approx(0.1)
