"""One HTML page about an evaluation: scores, and a gallery of photographs.

report_template.html is the page; here is what it shows. The page is one file that fetches nothing.
The template escapes everything that comes from outside (ids, class names, paths, values of
options), and a content security policy forbids the rest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from datasets.collection import Collection
from datasets.files import write_whole
from datasets.images import IGNORE, read_label_map
from datasets.loading import ground_truth_of
from datasets.palette import voc_palette
from utils.pictures.curve import curve_of
from utils.pictures.drawing import heat, label_layer
from utils.pictures.gallery import MOST_CAMS, Gallery, Thumbnails, webp_base64
from utils.scores.confusion import class_scores, confusion_matrix
from utils.scores.tables import percent


@dataclass(frozen=True)
class PageContent:
    """What the page says besides the gallery.

    Attributes:
        title: of the page.
        headline: numbers as tiles, such as photographs and seconds, by name.
        details: the rest, such as checkpoint and options, by name.
        threshold: of background: that of the labels which the gallery shows; None where labels
            need none, as those of a segmentation network.
        thresholds: all that were scored.
        confusion: matrices (thresholds, C, C), without a threshold (1, C, C), rows ground truth,
            of every kind of labels by its name (plain, refined); empty without masks. At most two.
        shown: the kind that the gallery shows.
        label: what one of them is called.
    """

    title: str
    headline: Mapping[str, object]
    details: Mapping[str, object]
    threshold: float | None = None
    thresholds: Sequence[float] = ()
    confusion: Mapping[str, np.ndarray] = field(default_factory=dict)
    shown: str = "pseudo labels"
    label: str = "pseudo label"

    @property
    def matrix(self) -> np.ndarray | None:
        """The confusion matrix (C, C) of the labels that the gallery shows."""
        if not self.confusion:
            return None
        index = 0 if self.threshold is None else self.thresholds.index(self.threshold)
        return self.confusion[self.shown][index]

    @property
    def mious(self) -> dict[str, list[float]]:
        """The mIoU at every threshold of every kind of labels; empty without a threshold."""
        return {
            kind: [class_scores(matrix).miou for matrix in matrices]
            for kind, matrices in self.confusion.items()
            if self.threshold is not None
        }


class Card(NamedTuple):
    """One photograph of the gallery; the layers of its labels and ground truth in base64."""

    id: str
    thumbnails: Thumbnails
    labels: str
    truth: str | None
    iou: float | None


def write_report(
    path: Path, evaluation: PageContent, collection: Collection, gallery: Gallery, labels: Path
) -> int:
    """Write the page, card by card, whole or not at all.

    Args:
        path: of the page.
        evaluation: what it says.
        collection: classes and ground truth.
        gallery: thumbnails of the photographs that are shown.
        labels: folder of the label maps `<id>.png` that are shown.

    Returns:
        How many photographs of the gallery are left out, since their thumbnails or label map are
        missing.

    Raises:
        InputError: a label map cannot be read, or the page cannot be written.
    """
    matrix, mious, left_out = evaluation.matrix, evaluation.mious, []
    page = _template().stream(
        evaluation=evaluation,
        collection=collection,
        gallery=gallery,
        names=("background", *collection.classes),
        colours=[_css(colour) for colour in voc_palette()],
        ramp=[_css(colour) for colour in heat(np.linspace(0, 1, 9)[None])[0]],
        scores=None if matrix is None else class_scores(matrix),
        matrix=None if matrix is None else matrix.tolist(),
        mious=mious,
        curve=curve_of(evaluation.thresholds, mious),
        cards=_cards(collection, gallery, labels, left_out),
        left_out=left_out,  # filled while the cards are written, read after them
        most_chips=MOST_CAMS,
    )
    with write_whole(path) as file:
        # Paths that are not UTF-8 are shown with backslashes.
        page.dump(file, encoding="utf-8", errors="backslashreplace")
    return len(left_out)


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["zip"] = zip
    environment.filters["percent"] = partial(percent, nothing="–")
    environment.tests["nan"] = math.isnan
    return environment.get_template("report_template.html")


def _css(colour: np.ndarray) -> str:
    return "#" + bytes(colour.tolist()).hex()


def _cards(
    collection: Collection, gallery: Gallery, labels: Path, left_out: list[str]
) -> Iterator[Card]:
    """A card for every photograph of the gallery; those left out are added to `left_out`."""
    for identifier in gallery.ids:
        path = labels / f"{identifier}.png"
        thumbnails = gallery.read(identifier)
        if thumbnails is None or not path.is_file():
            left_out.append(identifier)
            continue
        label_map = read_label_map(path)
        truth = ground_truth_of(collection, identifier, label_map.shape)
        iou = None if truth is None else image_iou(truth, label_map, collection.num_classes)
        layers = [
            None if one is None else webp_base64(label_layer(one, thumbnails.size))
            for one in (label_map, truth)
        ]
        yield Card(identifier, thumbnails, *layers, iou)


def image_iou(truth: np.ndarray, label_map: np.ndarray, num_classes: int) -> float:
    """Mean IoU over the classes in the ground truth or the labels (H, W) of one photograph.

    Background counts as a class; pixels labelled 255 are left out. NaN where no pixel is scored.
    """
    truth = np.where(label_map == IGNORE, label_map, truth)
    return class_scores(confusion_matrix(truth, label_map, num_classes)).miou
