import pytest

from utils.runs.data import DataSettings, own_list


@pytest.mark.parametrize("split", ["train", "train_aug", "val", "test"])
def test_usual_splits_are_left_to_the_next_stage(split):
    assert own_list(DataSettings("custom", split, "photos")) == ()


def test_a_list_of_ones_own_is_named_to_the_next_stage():
    assert own_list(DataSettings("custom", "fold 1", "photos")) == ("--split", "fold 1")
