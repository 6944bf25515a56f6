import numpy as np
import pytest

from datasets.palette import voc_palette


@pytest.mark.parametrize("name, count", [("voc12", 21), ("coco", 81)])
def test_committed_colours_are_the_palette(pytestconfig, name, count):
    lines = (pytestconfig.rootpath / "data" / f"{name}_classes.csv").read_text().splitlines()
    assert lines[:2] == ["index,name,red,green,blue", "0,background,0,0,0"]
    colours = [[int(c) for c in line.split(",")[2:]] for line in lines[1:]]
    np.testing.assert_array_equal(colours, voc_palette()[:count])


def test_nobody_changes_the_colours_of_others():
    assert voc_palette() is voc_palette()
    with pytest.raises(ValueError, match="read-only"):
        voc_palette()[0] = 255
