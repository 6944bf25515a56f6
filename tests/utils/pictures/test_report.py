import json
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from datasets.collection import Collection
from datasets.files import InputError
from datasets.images import read_label_map, read_photograph, write_label_map
from utils.inference.collection_cams import Inferred
from utils.pictures.gallery import MOST_CAMS, SIDE, Gallery
from utils.pictures.report import PageContent, image_iou, write_report
from utils.scores.confusion import class_scores

SHAPE = (30, 40)
HOSTILE_ID = "<img src=x onerror=alert(1)> \"'&{{cards}}"
HOSTILE_CLASSES = ("</script><script>alert(2)</script>", '"><b onclick=alert(3)>', "dog")
THRESHOLDS = (0.2, 0.4)


class Page(HTMLParser):
    """Collects the tags with attributes, and the texts, of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data.strip())

    def all(self, tag, style=None):
        found = [attrs for name, attrs in self.tags if name == tag]
        return [a for a in found if style is None or style in (a.get("class") or "").split()]


@pytest.fixture
def made(tmp_path):
    """A function (ids, classes, masks) that makes a collection, its labels and a full gallery."""

    def make(ids, classes=("cat", "dog", "cow"), masks=True, present=(0, 2)):
        rng = np.random.default_rng(5)
        gallery = Gallery(tmp_path / "report", ids, len(classes))
        for identifier in ids:
            truth = rng.integers(0, len(classes) + 1, SHAPE, np.uint8)
            truth[:3] = 255
            label_map = np.where(rng.random(SHAPE) < 0.7, truth, 1).astype(np.uint8)
            label_map[label_map == 255] = 0
            for folder, one in (("masks", truth), ("labels", label_map)):
                write_label_map(tmp_path / folder / f"{identifier}.png", one)
            gallery.add(inferred(identifier, present), np.arange(1200).reshape(SHAPE) // 70)
        folder = tmp_path / "masks" if masks else None
        return Collection("custom", "train", tuple(classes), tuple(ids), {}, {}, folder), gallery

    return make


def inferred(identifier, present=(0, 2), image=None, cams=None):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*SHAPE, 3), np.uint8) if image is None else image
    cams = rng.random((len(present), *image.shape[:2]), np.float32) if cams is None else cams
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    return Inferred(identifier, pixels, np.asarray(present, int), cams, np.zeros(3), None)


def matrices(num_classes, seed=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1000, (len(THRESHOLDS), num_classes, num_classes))


def evaluation(**changes):
    values = {"title": "a run", "headline": {"photographs": 3}, "details": {"beta": 8}}
    return PageContent(**{**values, "threshold": 0.4, "thresholds": THRESHOLDS, **changes})


def report(tmp_path, collection, gallery, given):
    left_out = write_report(
        tmp_path / "report.html", given, collection, gallery, tmp_path / "labels"
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8"), left_out


def percents(values):
    return ["–" if np.isnan(v) else f"{100 * v:.1f}" for v in values]


def test_nothing_from_outside_becomes_markup(tmp_path, made):
    collection, gallery = made([HOSTILE_ID, "b"], HOSTILE_CLASSES)
    path = "/runs/\udcff<i>&/best.pt"  # a file name that is not UTF-8
    given = evaluation(
        title="<u>run</u>",
        details={"checkpoint": path, "<s>": "{{title}}"},
        headline={"<em>": "<em>"},
        confusion={"</title><s>": matrices(4), "<s>": matrices(4)},
        shown="</title><s>",
    )
    text, _ = report(tmp_path, collection, gallery, given)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not {"u", "s", "b", "em"} & {tag for tag, _ in page.tags}
    assert all(attrs["src"].startswith("data:image/webp;base64,") for attrs in page.all("img"))
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert HOSTILE_ID in page.texts
    assert [card["data-id"] for card in page.all("article")] == [HOSTILE_ID, "b"]
    assert "/runs/\\udcff<i>&/best.pt" in page.texts
    assert "{{title}}" in page.texts
    assert [name for name in HOSTILE_CLASSES if name not in page.texts] == []


def test_the_page_fetches_nothing(tmp_path, made):
    collection, gallery = made(["a"])
    text, _ = report(
        tmp_path, collection, gallery, evaluation(confusion={"pl": matrices(4)}, shown="pl")
    )
    policies = [a["content"] for a in Page(text).all("meta") if "http-equiv" in a]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ]
    assert not re.findall(r"https?:|//\w+\.|@import|<link|<iframe", text)
    assert set(re.findall(r"url\((.{5})", text)) == {"data:"}
    assert "{{" not in text


def test_numbers_are_those_of_a_plain_computation(tmp_path, made):
    collection, gallery = made(["a", "b"])
    plain, refined = matrices(4), matrices(4, seed=8)
    plain[:, 3] = plain[:, :, 3] = 0  # a class that never occurs
    given = evaluation(confusion={"plain": plain, "CRF": refined}, shown="plain")
    page = Page(report(tmp_path, collection, gallery, given)[0])

    iou, precision, recall = [], [], []
    for k in range(4):
        hit, truth = plain[1, k, k], plain[1, k].sum()
        predicted = plain[1, :, k].sum()
        union = truth + predicted - hit
        parts = [(iou, union), (precision, predicted), (recall, truth)]
        for values, total in parts:
            values.append(hit / total if total else np.nan)
    texts = [text for text in page.texts if text]
    start = texts.index("recall") + 1
    table = np.reshape(texts[start : start + 16], (4, 4))
    assert table[:, 0].tolist() == ["background", "cat", "dog", "cow"]
    for column, values in enumerate((iou, precision, recall), start=1):
        assert table[:, column].tolist() == percents(values)
    assert texts[texts.index("mIoU (%)") + 1] == f"{100 * np.nanmean(iou):.1f}"

    tooltips = [cell["title"] for cell in page.all("td") if "title" in cell]
    share = plain[1, 1, 2] / plain[1, 1].sum()
    expected = f"cat → dog: {100 * share:.2f} % ({plain[1, 1, 2]} of {plain[1, 1].sum()} pixels)"
    assert expected in tooltips
    assert len(tooltips) == 9


def test_curve_of_both_kinds(tmp_path, made):
    collection, gallery = made(["a"])
    perfect = np.stack([np.diag([9, 9, 9, 9]), np.diag([9, 9, 9, 9])])
    half = perfect.copy()
    half[0, :, 0], half[0, 1:, 1:] = 9, 0  # IoU 1/4 of background, 0 of the others
    given = evaluation(confusion={"plain": half, "CRF": perfect}, shown="CRF")
    page = Page(report(tmp_path, collection, gallery, given)[0])
    lines = [line["points"].split() for line in page.all("polyline")]
    assert [len(line) for line in lines] == [2, 2]
    heights = [[float(point.split(",")[1]) for point in line] for line in lines]
    assert heights[0][0] > heights[0][1] == heights[1][0] == heights[1][1]
    assert [t for t in page.texts if " at 0." in t and ":" in t][:4] == [
        "plain: 6.2 at 0.2",
        "plain: 100.0 at 0.4",
        "CRF: 100.0 at 0.2",
        "CRF: 100.0 at 0.4",
    ]


def test_iou_of_every_photograph(tmp_path, made):
    collection, gallery = made(["a", "b", "c"])
    (tmp_path / "masks" / "c.png").unlink()
    page = Page(report(tmp_path, collection, gallery, evaluation())[0])
    shown = {card["data-id"]: card["data-iou"] for card in page.all("article")}
    for identifier in "ab":
        truth = read_label_map(tmp_path / "masks" / f"{identifier}.png")
        label_map = read_label_map(tmp_path / "labels" / f"{identifier}.png")
        counts = truth != 255
        ious = []
        for k in range(4):
            union = (((truth == k) | (label_map == k)) & counts).sum()
            if union:
                ious.append((((truth == k) & (label_map == k)) & counts).sum() / union)
        assert float(shown[identifier]) == pytest.approx(np.mean(ious), abs=1e-6)
        assert f"IoU {100 * np.mean(ious):.1f}" in page.texts
    assert shown["c"] == ""
    assert "no mask" in page.texts


def test_image_iou_by_hand():
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    assert image_iou(truth, np.array([[0, 2, 1, 2]], np.uint8), 4) == pytest.approx(0.5)
    assert np.isnan(image_iou(np.full((1, 2), 255, np.uint8), np.zeros((1, 2), np.uint8), 4))


def test_without_masks(tmp_path, made):
    collection, gallery = made(["a"], masks=False)
    page = Page(report(tmp_path, collection, gallery, evaluation())[0])
    assert not page.all("table") and not page.all("svg")
    assert [card["data-iou"] for card in page.all("article")] == [""]
    captions = [text for text in page.texts if text in ("pseudo label", "ground truth")]
    assert captions == ["pseudo label"]
    assert not any("IoU" in option for option in page.texts if "first" in option)


def test_of_a_segmentation_network(tmp_path, made):
    """No threshold, no cams, no superpixels: one confusion matrix, and labels of another name."""
    collection, _ = made(["a", "b"])
    gallery = Gallery(tmp_path / "photographs", ["a", "b"], 3)
    for identifier in "ab":
        gallery.add_photograph(identifier, np.zeros((*SHAPE, 3), np.uint8), [1])
    matrix = matrices(4)[0]
    given = PageContent(
        title="Segmentation: a run",
        headline={"photographs": 2},
        details={},
        confusion={"predictions": matrix[None]},
        shown="predictions",
        label="prediction",
    )
    text, left_out = report(tmp_path, collection, gallery, given)
    page, texts = Page(text), [text for text in Page(text).texts if text]
    assert left_out == 0 and len(page.all("article")) == 2
    assert not page.all("svg") and "#curve" not in [a["href"] for a in page.all("a")]
    assert "background threshold" not in texts and "at threshold" not in text
    assert "pseudo label" not in text
    assert len(page.all("table", "classes")) == len(page.all("table", "confusion")) == 1
    assert texts[texts.index("mIoU (%)") + 1] == f"{100 * class_scores(matrix).miou:.1f}"
    captions = ("photo", "superpixels", "CAM: dog", "prediction", "ground truth")
    assert [t for t in texts if t in captions] == ["photo", "prediction", "ground truth"] * 2
    assert [card["data-classes"] for card in page.all("article")] == ["1", "1"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_photographs(tmp_path, made):
    ids = [f"p{i:03}" for i in range(120)]
    collection, full = made(ids)
    peaks = []
    for shown in (ids[:20], ids):
        gallery = Gallery(full.folder, shown, 3)
        tracemalloc.start()
        write_report(
            tmp_path / "report.html", evaluation(), collection, gallery, tmp_path / "labels"
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    cards = (tmp_path / "report.html").stat().st_size * 100 / 120
    assert peaks[1] - peaks[0] < cards / 4


def test_not_one_scored_pixel(tmp_path, made):
    collection, gallery = made(["a"])
    nothing = np.zeros((2, 4, 4), np.int64)
    page = Page(
        report(tmp_path, collection, gallery, evaluation(confusion={"pl": nothing}, shown="pl"))[0]
    )
    assert not page.all("svg")
    assert page.texts[page.texts.index("mIoU (%)") + 1] == "–"


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "{",
        "[]",
        {"photo": '"><script>'},
        {"size": [0, -1]},
        {"size": [10**400, 1]},
        {"classes": [3]},
        {"cams": [[-1, "AAAA"]]},
    ],
)
def test_photographs_without_good_thumbnails_are_left_out(tmp_path, made, damage):
    collection, gallery = made(["a", "b", "c"])
    path = tmp_path / "report" / "b.pic"
    if damage is None:
        path.unlink()
    elif isinstance(damage, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    else:
        path.write_text(damage)
    text, left_out = report(tmp_path, collection, gallery, evaluation())
    assert left_out == 1
    assert [card["data-id"] for card in Page(text).all("article")] == ["a", "c"]
    assert "1 more is left out" in text


def test_photographs_without_labels_are_left_out(tmp_path, made):
    collection, gallery = made(["a", "b"])
    (tmp_path / "labels" / "a.png").unlink()
    assert report(tmp_path, collection, gallery, evaluation())[1] == 1


def test_a_mask_of_another_size_leaves_the_old_page(tmp_path, made):
    collection, gallery = made(["a"])
    text, _ = report(tmp_path, collection, gallery, evaluation())
    write_label_map(tmp_path / "masks" / "a.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(InputError, match="a mask must be as large as its photograph"):
        report(tmp_path, collection, gallery, evaluation())
    assert (tmp_path / "report.html").read_text() == text


def test_gallery_takes_its_own_photographs_only(tmp_path):
    gallery = Gallery(tmp_path / "report", ["a"], 3)
    assert gallery.lacks("a") and not gallery.lacks("b")
    for identifier in "ab":
        gallery.add(inferred(identifier), np.zeros(SHAPE, int))
    assert not gallery.lacks("a")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["a.pic"]
    found = gallery.read("a")
    assert (found.classes, [k for k, _ in found.cams]) == ((0, 2), [0, 2])
    assert found.size == (SIDE, SIDE * 3 // 4)
    (tmp_path / "report" / "a.pic").write_text("{}")
    assert gallery.lacks("a")


def test_the_strongest_of_many_cams(tmp_path):
    classes = tuple(range(MOST_CAMS + 3))
    cams = np.ones((len(classes), *SHAPE), np.float32) * 0.5
    cams[[1, 4, 7]] = 0.1
    gallery = Gallery(tmp_path, ["a"], len(classes))
    gallery.add(inferred("a", classes, cams=cams), np.zeros(SHAPE, int))
    found = gallery.read("a")
    assert found.classes == classes
    assert [k for k, _ in found.cams] == [k for k in classes if k not in (1, 4, 7)]


def test_without_photographs_there_is_no_gallery(tmp_path, made):
    collection, gallery = made([])
    text, _ = report(tmp_path, collection, gallery, evaluation())
    page = Page(text)
    assert [a["id"] for a in page.all("section") if "hidden" in a] == ["gallery"]
    assert "#gallery" not in [a["href"] for a in page.all("a")]


def test_a_photograph_without_class(tmp_path, made):
    collection, gallery = made(["a"], present=())
    text, left_out = report(tmp_path, collection, gallery, evaluation())
    assert left_out == 0
    assert [card["data-classes"] for card in Page(text).all("article")] == [""]


def test_real_photographs_fit_the_budget(tmp_path, shared):
    root = shared / "coco_mini_voc"
    masks = {
        path.stem: path for path in sorted((root / "SegmentationClassAug").glob("*.png"))[::30]
    }
    gallery = Gallery(tmp_path / "report", masks, 20)
    for identifier, path in masks.items():
        image, truth = (
            read_photograph(root / "JPEGImages" / f"{identifier}.jpg"),
            read_label_map(path),
        )
        present = [int(k) for k in np.unique(truth) if 0 < k < 255][:3]
        cams = np.stack([(truth == k).astype(np.float32) for k in present])
        rows, columns = np.indices(truth.shape)
        cells = rows // 16 * 1000 + columns // 16
        gallery.add(inferred(identifier, [k - 1 for k in present], image, cams), cells)
        write_label_map(tmp_path / "labels" / f"{identifier}.png", truth * (truth < 255))
    names = tuple(f"class {k}" for k in range(20))
    collection = Collection(
        "voc12", "x", names, tuple(masks), {}, {}, root / "SegmentationClassAug"
    )
    text, left_out = report(tmp_path, collection, gallery, evaluation())
    assert left_out == 0
    cards = [len(card) for card in re.findall(r"<article.*?</article>", text, re.DOTALL)]
    assert len(cards) == len(masks)
    assert np.mean(cards) < 40e6 / 1500
