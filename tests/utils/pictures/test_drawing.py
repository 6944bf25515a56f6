import cv2
import numpy as np
import pytest
import torch

from datasets.palette import voc_palette
from tests.middle_cell import MiddleCell
from utils.inference.collection_cams import Inferred
from utils.pictures.contact_sheet import GAP, TILE, contact_sheet, labelled_sheet
from utils.pictures.drawing import BOUNDARY, boundary_layer, caption, heat, with_boundaries

GREY = np.full((32, 48, 3), 90, np.uint8)
HALVES = np.repeat([[0] * 20 + [7] * 28], 32, axis=0)


def test_boundaries_lie_on_both_sides():
    drawn = with_boundaries(GREY, HALVES)
    assert (drawn[:, 19:21] == BOUNDARY).all()
    assert (np.delete(drawn, (19, 20), 1) == 90).all() and (GREY == 90).all()
    layer = boundary_layer(HALVES, (24, 16))
    assert np.unique(np.nonzero(layer[..., 3])[1]).tolist() == [9, 10]


def test_heat_grows_lighter():
    luminance = cv2.cvtColor(heat(np.linspace(-0.1, 1.1, 25)[None]), cv2.COLOR_RGB2LAB)[0, :, 0]
    assert (np.diff(luminance.astype(int)) >= 0).all() and luminance[-1] > luminance[0] + 150


def test_caption():
    strip = caption("one", 80)
    assert strip.shape == (24, 80, 3) and strip.min() < 100 and strip[:, 60:].min() == 255
    assert caption("\udcff", 60).min() < 100  # a file name that is not UTF-8


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 draws ASCII only")
def test_caption_outside_ascii():
    drawn = [caption(text, 60).tobytes() for text in ("é", "e", "ł", "中", "日", "?")]
    assert len(set(drawn)) == len(drawn)


def test_contact_sheet():
    tall = np.full((100, 50, 3), 10, np.uint8)
    sheet = contact_sheet(("a", "b"), [("first", (tall, None)), ("second", (tall, tall))])
    assert sheet.shape == (24 + 2 * (TILE + 24), 2 * (TILE + GAP), 3)
    row = sheet[24 : 24 + TILE]
    assert (row[:, 50:150] == 10).all() and (row[:, :50] == 255).all()
    assert (row[:, TILE : TILE + GAP] == 255).all() and (row[:, TILE + GAP : -GAP] == 235).all()


def test_labelled_sheet_of_a_photograph_without_class_or_mask():
    image = torch.from_numpy(GREY).permute(2, 0, 1)
    nothing = np.zeros((0, 32, 48), np.float32)
    found = Inferred("x", image, np.zeros(0, int), nothing, np.zeros(2), None)
    labels = np.full((32, 48), 1, np.uint8)
    sheet = labelled_sheet([found], MiddleCell(), lambda _: labels, "labels", ("cat", "dog"))
    tiles = [sheet[24 + TILE // 2, i * (TILE + GAP) + TILE // 2] for i in range(5)]
    assert tiles[0].tolist() == [90] * 3 and tiles[4].tolist() == [235] * 3
    expected = 0.35 * 90 + 0.65 * voc_palette()[1]
    assert np.abs(tiles[3] - expected).max() <= 1
    assert np.abs(tiles[2] - (0.45 * 90 + 0.55 * heat(np.zeros((1, 1)))[0, 0])).max() <= 1
    assert (sheet[24:-24, TILE + GAP : 2 * TILE + GAP] == BOUNDARY).all(-1).any()
