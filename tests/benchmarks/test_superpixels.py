import json

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat

from benchmarks import superpixels
from datasets.files import InputError
from networks.superpixel import SuperpixelNet
from utils.checkpoints import SHIPPED
from utils.scores.superpixels import asa, boundary_recall, undersegmentation_error

SIZE = (65, 97)


def annotator(segmentation):
    """One entry of groundTruth, as BSDS500's files hold it."""
    return {"Segmentation": segmentation.astype(np.uint16), "Boundaries": np.zeros(SIZE)}


@pytest.fixture
def bsds(tmp_path):
    """Two photographs of coloured rectangles, seen differently by two annotators."""
    rng = np.random.default_rng(0)
    for folder in ("images/val", "groundTruth/val"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("b", "a"):
        regions = np.kron(rng.integers(0, 5, (3, 4)), np.ones((22, 25), int))[:65, :97]
        colours = rng.integers(0, 256, (5, 3), dtype=np.uint8)
        noise = rng.integers(0, 20, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"images/val/{name}.jpg"), colours[regions] // 2 + noise)
        people = np.empty((1, 2), object)
        people[0, 0], people[0, 1] = annotator(regions + 1), annotator(regions // 2 + 1)
        savemat(tmp_path / f"groundTruth/val/{name}.mat", {"groundTruth": people})
    return tmp_path


@pytest.fixture
def scn_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "scn.pt"
    torch.save({"kind": "scn", "epoch": 1, "model": SuperpixelNet().state_dict()}, path)
    return path


def arguments(bsds, scn_file, *more):
    given = ["--bsds", bsds, "--scn", scn_file, "--output", bsds / "out.json", *more]
    return [str(value) for value in given]


def grid(image, cells=4):
    """Superpixels that ignore the image: so many cells a side."""
    rows, columns = (np.arange(side) * cells // side for side in image.shape[:2])
    return rows[:, None] * cells + columns


def test_annotations_are_the_segmentations_of_all_annotators(bsds):
    truths = superpixels.annotations(bsds / "groundTruth/val/a.mat")
    assert [truth.shape for truth in truths] == [SIZE, SIZE]
    assert truths[0].dtype == np.int32
    assert ((truths[0] - 1) // 2 == truths[1] - 1).all()


def test_a_score_is_the_mean_over_annotators(bsds):
    truths = superpixels.annotations(bsds / "groundTruth/val/a.mat")
    ids = grid(truths[0])
    expected = [
        np.mean([score(ids, truth) for truth in truths])
        for score in (asa, boundary_recall, undersegmentation_error)
    ]
    assert superpixels.score(ids, truths) == pytest.approx([*expected, 16])


def test_superpixels_of_the_network_are_as_large_as_the_photograph(monkeypatch):
    monkeypatch.setattr(superpixels, "GRID", (4, 6))
    scn = SuperpixelNet().eval()
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    ids = superpixels.scn_superpixels(image, scn)
    assert ids.shape == SIZE
    assert np.bincount(ids.ravel()).min() >= superpixels.SMALLEST
    upright = superpixels.scn_superpixels(image.transpose(1, 0, 2), scn)
    assert upright.shape == SIZE[::-1]


def test_means_are_kept_and_not_scored_again(bsds):
    images, truths = superpixels.choose(bsds, None)
    assert list(images) == ["a", "b"]
    first = superpixels.Record(bsds / "out.json", {"a": images["a"]}, truths).means("grid", grid)
    seen = []

    def counted(image):
        seen.append(image)
        return grid(image)

    again = superpixels.Record(bsds / "out.json", images, truths)
    both = again.means("grid", counted)
    assert len(seen) == 1  # b only
    alone = superpixels.score(grid(seen[0]), superpixels.annotations(truths / "b.mat"))
    assert both == pytest.approx(np.mean([first, alone], axis=0))


def jumping(image, n_segments, compactness, start_label):
    """30 superpixels for 40 to 69 segments, 60 for 70 to 99, .."""
    count = (n_segments - 10) // 30 * 30
    return np.arange(image[..., 0].size) * count // image[..., 0].size


@pytest.mark.parametrize("count, segments", [(30, 40), (30.5, 40), (31, 70), (60, 70), (10, 40)])
def test_slic_gets_the_smallest_number_that_suffices(monkeypatch, count, segments):
    monkeypatch.setattr(superpixels, "slic", jumping)
    images = [np.zeros((40, 50, 3), np.uint8)] * 2
    assert superpixels.segments_for(images, 10, count) == segments


def test_a_number_that_slic_never_gives_is_refused(monkeypatch):
    monkeypatch.setattr(superpixels, "slic", lambda image, **_: np.zeros(image.shape[:2], int))
    with pytest.raises(InputError, match="never gave 30"):
        superpixels.segments_for([np.zeros((40, 50, 3), np.uint8)], 10, 30)


def test_the_command_writes_a_summary(bsds, scn_file, capsys, monkeypatch):
    monkeypatch.setattr(superpixels, "GRID", (2, 3))
    more = ("--more_scn", SHIPPED, "--compactness", "10", "20")
    assert superpixels.main(arguments(bsds, scn_file, *more)) == 0
    written = json.loads((bsds / "out.json").read_text())
    rows = written["summary"]
    assert written["images"] == 2
    assert [row["method"] for row in rows] == ["scn", "scn", "slic", "slic"]
    assert set(written["runs"]) == {row["run"] for row in rows} and len(written["runs"]) == 4
    assert "SLIC, compactness 20" in capsys.readouterr().out


def test_a_photograph_without_ground_truth_is_named(bsds, scn_file, capsys):
    (bsds / "groundTruth/val/b.mat").unlink()
    assert superpixels.main(arguments(bsds, scn_file)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "b.mat" in error and error.count("\n") == 1
