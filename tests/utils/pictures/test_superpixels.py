import sys
from runpy import run_path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.checkpoints import open_scn
from utils.inference.superpixels import superpixels as superpixels_of
from utils.pictures import superpixels


def run(monkeypatch, folder, more=""):
    arguments = f"superpixels --images {folder}/photographs --out {folder}/out --device cpu {more}"
    monkeypatch.setattr(sys, "argv", arguments.split())
    try:
        run_path(superpixels.__file__, run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture
def photograph(tmp_path):
    """80 x 40 pixels: a red half beside a blue one."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40, 0], pixels[:, 40:, 2] = 200, 200
    (tmp_path / "photographs").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photographs" / "a.png")
    return pixels


def test_ids_and_boundaries_of_a_folder(photograph, tmp_path, monkeypatch, capsys):
    assert not run(monkeypatch, tmp_path)
    ids = cv2.imread(str(tmp_path / "out/ids/a.png"), cv2.IMREAD_UNCHANGED)  # Pillow 10: int32
    assert ids.dtype == np.uint16 and ids.shape == (40, 80)
    tensor = torch.from_numpy(photograph).permute(2, 0, 1)
    network = open_scn()
    assert not network.training
    np.testing.assert_array_equal(ids, superpixels_of(tensor, network))
    assert not set(ids[:, :38].ravel()) & set(ids[:, 42:].ravel())
    drawn = np.asarray(Image.open(tmp_path / "out/boundaries/a.png"))
    assert drawn.shape == photograph.shape and (drawn != photograph).any()
    said = f"1 photograph, {len(np.unique(ids))} superpixels each on average; written to {tmp_path}"
    assert said in capsys.readouterr().out
    (tmp_path / "photographs/b.jpg").write_bytes(b"no photograph")
    assert not run(monkeypatch, tmp_path)
    said = capsys.readouterr().out
    assert "skipped: " in said and "b.jpg: not an image file" in said and "1 photograph, " in said


def test_photographs_are_not_written_over(photograph, tmp_path, monkeypatch, capsys):
    (tmp_path / "photographs").rename(tmp_path / "ids")
    before = (tmp_path / "ids/a.png").read_bytes()
    for images in ("ids", "ids/a.png"):
        assert run(monkeypatch, tmp_path, f"--images {tmp_path}/{images} --out {tmp_path}") == 2
        assert "holds the photographs; name another" in capsys.readouterr().err
    assert (tmp_path / "ids/a.png").read_bytes() == before


def test_what_cannot_be(photograph, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path, "--scn none.pt") == 2
    assert "--scn none.pt: no such file" in capsys.readouterr().err
    network = open_scn()
    monkeypatch.setattr("utils.checkpoints.open_scn", lambda _: network)
    huge = np.full((40, 80), 2**16)
    monkeypatch.setattr("utils.inference.superpixels.superpixels", lambda *_: huge)
    assert run(monkeypatch, tmp_path) == 2
    said = capsys.readouterr()
    assert "a.png: more than 65536 superpixels; scale it down" in said.out
    assert "no photograph could be read" in said.err
