import numpy as np
import pytest

from datasets.collection import evenly_spread


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 10, 11, 1000])
def test_evenly_spread_from_the_first_to_the_last(count):
    ids = [f"{i:03}" for i in range(10)]
    found = [int(i) for i in evenly_spread(ids, count)]
    assert len(found) == len(set(found)) == min(count, 10)
    assert found == sorted(found) and found[:1] == [0][:count]
    steps = np.diff(found)
    assert count < 2 or (found[-1] == 9 and steps.max() - steps.min() <= 1)
    assert evenly_spread([], count) == ()
