import cv2
import numpy as np
import pytest
import torch

from datasets.palette import voc_palette
from utils.inference.collection_cams import Inferred
from utils.pictures.contact_sheet import (
    GAP,
    TILE,
    contact_sheet,
    label_map_sheet,
    labelled_sheet,
)
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
    assert sheet.shape == (24 + 2 * (TILE + 24 + GAP), 2 * (TILE + GAP), 3)
    row = sheet[24 : 24 + TILE]
    assert (row[:, 50:150] == 10).all() and (row[:, :50] == 255).all()
    assert (row[:, TILE : TILE + GAP] == 255).all() and (row[:, TILE + GAP : -GAP] == 235).all()


def test_a_column_without_any_picture_is_left_out():
    image = np.full((50, 50, 3), 10, np.uint8)
    rows = [("first", (image, None, image)), ("second", (None, None, image))]
    sheet = contact_sheet(("a", "b", "c"), rows)
    assert sheet.shape[1] == 2 * (TILE + GAP)
    without = [(text, pictures[::2]) for text, pictures in rows]
    assert (sheet == contact_sheet(("a", "c"), without)).all()
    assert contact_sheet(("a", "b"), []).shape == (24, 2 * (TILE + GAP), 3)


def squares(legend):
    """The colours of a legend's squares, line by line; letters have other colours."""
    lines = np.split(legend, len(legend) // 24)
    return [
        [tuple(colour) for colour in line[12].tolist() if len(set(colour)) > 1][::14]
        for line in lines
    ]


def test_the_legend_explains_the_colours_that_occur():
    """Lines are as many as the names need; background has no colour of its own."""
    labels, truth = np.zeros((2, 48, 48), np.uint8)
    labels[:9], labels[9:12], truth[:20], truth[20:22] = 2, 5, 4, 255
    classes = ("cat", "dog", "cow", "a name as long as many others", "sheep", "car")
    titles, rows = ("a", "b"), [("x", np.full((48, 48, 3), 90, np.uint8), [labels, truth])]
    sheet = label_map_sheet(titles, rows, classes)
    height = 24 + TILE + 24
    colours = [tuple(colour) for colour in voc_palette().tolist()]
    one_line = [[colours[i] for i in (2, 4, 5, 255)]]
    assert squares(sheet[height:]) == one_line
    narrow = label_map_sheet(titles[:1], [(*rows[0][:2], [labels])], classes)
    assert squares(narrow[height:]) == [[colours[2], colours[5]]]
    longer = (*classes[:3], "as wide as this sheet, " * 5, "x", "y")
    lines = [[colours[2]], [colours[4]], [colours[5], colours[255]]]
    assert squares(label_map_sheet(titles, rows, longer)[height:]) == lines
    assert (sheet[height:].max(2) < 60).any()  # the names are written
    assert sheet.shape[1] == 3 * (TILE + GAP)


def test_a_sheet_of_background_alone_has_no_legend():
    rows = [("x", np.full((48, 48, 3), 90, np.uint8), [np.zeros((48, 48), np.uint8)])]
    assert len(label_map_sheet(("a",), rows, ("cat",))) == 24 + TILE + 24 + GAP


def labelled(mask):
    """The contact sheet of a grey photograph labelled 1, of class `cat`."""
    image = torch.from_numpy(GREY).permute(2, 0, 1)
    nothing = np.zeros((0, 32, 48), np.float32)
    cells = np.arange(32 * 48, dtype=np.int32).reshape(32, 48)  # boundaries everywhere
    found = Inferred("x", image, np.zeros(0, int), nothing, np.zeros(2), mask, cells)
    labels = np.full((32, 48), 1, np.uint8)
    return labelled_sheet([found], lambda _: labels, "labels", ("cat", "dog"))


def test_labelled_sheet_of_a_photograph_without_class_or_mask():
    sheet = labelled(None)
    assert sheet.shape[1] == 4 * (TILE + GAP)
    tiles = [sheet[24 + TILE // 2, i * (TILE + GAP) + TILE // 2] for i in range(4)]
    assert tiles[0].tolist() == [90] * 3
    expected = 0.35 * 90 + 0.65 * voc_palette()[1]
    assert np.abs(tiles[3] - expected).max() <= 1
    assert np.abs(tiles[2] - (0.45 * 90 + 0.55 * heat(np.zeros((1, 1)))[0, 0])).max() <= 1
    assert (sheet[24 : 24 + TILE, TILE + GAP : 2 * TILE + GAP] == BOUNDARY).all(-1).any()
    assert squares(sheet[48 + TILE + GAP :]) == [[tuple(voc_palette()[1])]]


def test_labelled_sheet_shows_and_explains_a_mask():
    sheet = labelled(np.full((32, 48), 2, np.uint8))
    truth = sheet[24 + TILE // 2, 4 * (TILE + GAP) + TILE // 2]
    assert np.abs(truth - (0.35 * 90 + 0.65 * voc_palette()[2])).max() <= 1
    assert squares(sheet[48 + TILE + GAP :]) == [[tuple(voc_palette()[k]) for k in (1, 2)]]
