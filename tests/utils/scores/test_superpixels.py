import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from utils.scores.superpixels import (
    asa,
    boundaries,
    boundary_recall,
    connected,
    undersegmentation_error,
)

SCORES = (asa, boundary_recall, undersegmentation_error)


def blocks(rng, size, cell, ids):
    """A random partition made of blocks, so that regions are larger than a pixel."""
    grid = rng.integers(0, ids, (-(-size[0] // cell), -(-size[1] // cell)))
    return np.kron(grid, np.ones((cell, cell), int))[: size[0], : size[1]]


def regions(labels):
    return [labels == value for value in set(labels.ravel().tolist())]


def loop_asa(labels, truth):
    best = 0
    for superpixel in regions(labels):
        best += max((superpixel & region).sum() for region in regions(truth))
    return best / labels.size


def loop_undersegmentation(labels, truth):
    leaked = 0
    for region in regions(truth):
        for superpixel in regions(labels):
            inside, outside = (superpixel & region).sum(), (superpixel & ~region).sum()
            if inside:
                leaked += min(inside, outside)
    return leaked / labels.size


def loop_boundaries(labels):
    height, width = labels.shape
    found = set()
    for y in range(height):
        for x in range(width):
            for other_y, other_x in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                within = 0 <= other_y < height and 0 <= other_x < width
                if within and labels[other_y, other_x] != labels[y, x]:
                    found.add((y, x))
    return found


def loop_recall(labels, truth, tolerance):
    near, wanted = loop_boundaries(labels), loop_boundaries(truth)
    recalled = [any(max(abs(y - b), abs(x - a)) <= tolerance for b, a in near) for y, x in wanted]
    return np.mean(recalled) if wanted else 1.0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6), st.integers(0, 3))
def test_scores_agree_with_loops_over_pixels(seed, cell, ids, tolerance):
    rng = np.random.default_rng(seed)
    labels, truth = blocks(rng, (11, 14), 3, 7) * 5 - 2, blocks(rng, (11, 14), cell, ids)
    assert asa(labels, truth) == pytest.approx(loop_asa(labels, truth))
    assert undersegmentation_error(labels, truth) == pytest.approx(
        loop_undersegmentation(labels, truth)
    )
    expected = loop_recall(labels, truth, tolerance)
    assert boundary_recall(labels, truth, tolerance) == pytest.approx(expected)
    assert set(zip(*np.nonzero(boundaries(labels)), strict=True)) == loop_boundaries(labels)


def test_two_halves_against_a_shifted_edge():
    labels, truth = np.zeros((10, 20), int), np.zeros((10, 20), int)
    labels[:, 10:], truth[:, 13:] = 1, 1
    assert asa(labels, truth) == pytest.approx(0.85)  # 3 of 20 columns leak
    assert undersegmentation_error(labels, truth) == pytest.approx(0.3)  # once for each region
    assert boundary_recall(labels, truth, 1) == 0.0
    assert boundary_recall(labels, truth, 2) == 0.5  # columns 9, 10 against 12, 13
    assert boundary_recall(labels, truth, 3) == 1.0


def test_a_perfect_partition_under_other_names_and_finer():
    truth = blocks(np.random.default_rng(1), (24, 24), 8, 9)
    finer = 100 - (truth * 1000 + np.arange(24)[:, None] // 4)
    for labels in (50 - truth, finer):
        assert asa(labels, truth) == 1
        assert boundary_recall(labels, truth) == 1
        assert undersegmentation_error(labels, truth) == 0


def test_a_truth_without_boundary_is_recalled():
    assert boundary_recall(np.arange(12).reshape(3, 4), np.zeros((3, 4), int)) == 1


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("shapes", [((3, 4), (4, 3)), ((12,), (12,)), ((0, 4), (0, 4))])
def test_shapes_that_do_not_fit_are_refused(score, shapes):
    with pytest.raises(ValueError, match="must be equal"):
        score(np.zeros(shapes[0], int), np.zeros(shapes[1], int))


def components(labels):
    """Pixels of each 4-connected component, by flood fill."""
    left, found = set(np.ndindex(labels.shape)), []
    while left:
        stack, component = [left.pop()], []
        while stack:
            y, x = stack.pop()
            component.append((y, x))
            for other in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if other in left and labels[other] == labels[y, x]:
                    left.remove(other)
                    stack.append(other)
        found.append(component)
    return found


def loop_connected(labels, smallest):
    """The smallest piece joins its neighbour with the longest border, again and again."""
    pieces = measure.label(labels - labels.min() + 1, background=0, connectivity=1)
    while True:
        sizes = {value: int((pieces == value).sum()) for value in np.unique(pieces).tolist()}
        small = [(size, value) for value, size in sizes.items() if size < smallest]
        if not small or len(sizes) == 1:
            return pieces
        piece, border = min(small)[1], {}
        for first, second in ((pieces[:, :-1], pieces[:, 1:]), (pieces[:-1], pieces[1:])):
            for one, other in ((first, second), (second, first)):
                for value in other[(one == piece) & (other != piece)].tolist():
                    border[value] = border.get(value, 0) + 1
        pieces[pieces == piece] = max(border, key=lambda value: (border[value], -value))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(2, 6))
def test_pieces_join_as_in_a_loop(seed, smallest, ids):
    labels = np.random.default_rng(seed).integers(0, ids, (9, 12))
    expected = np.unique(loop_connected(labels, smallest), return_inverse=True)[1]
    assert (connected(labels, smallest) == expected.reshape(labels.shape)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_connected_leaves_no_fragment(seed, smallest):
    labels = blocks(np.random.default_rng(seed), (18, 15), 2, 4)
    result = connected(labels, smallest)
    parts = components(result)
    assert len(parts) == len(np.unique(result))  # every id is one piece
    assert len(parts) == 1 or min(map(len, parts)) >= smallest
    kept = [part for part in components(labels) if len(part) >= smallest]
    for part in kept:  # pieces that are large enough stay whole
        assert len({int(result[pixel]) for pixel in part}) == 1


def test_a_fragment_goes_to_the_neighbour_with_the_longest_border():
    labels = np.zeros((6, 9), int)
    labels[:, 5:] = 1
    labels[2, 4] = 2  # above, below and left of it: 0; right of it: 1
    labels[4, 6] = 0  # a piece of 0 amid 1
    result = connected(labels, 4)
    expected = np.zeros((6, 9), int)
    expected[:, 5:] = 1
    assert (result == expected).all()
