"""One HTML page about an evaluation: scores, and a gallery of photographs.

The page is one file that fetches nothing. Everything that comes from outside (ids, class names,
paths, values of options) is escaped, and a content security policy forbids the rest.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.collection import Collection, missing_masks
from datasets.files import read_label_map, write_whole
from datasets.loading import read_ground_truth
from datasets.palette import voc_palette
from utils.pictures.drawing import encode_webp, heat_layer, label_layer
from utils.pictures.gallery import MOST_CAMS, Gallery, Thumbnails, in_base64
from utils.pictures.report_scores import (
    Evaluation,
    escaped,
    percent,
    score_sections,
    shown_labels,
    swatch,
)
from utils.scores.confusion import confusion_matrix, scores

TEMPLATE = Path(__file__).with_name("report_template.html")
PLACE = re.compile(r"\{\{(\w+)\}\}")
"""Where the template names a section."""


def write_report(
    path: Path, evaluation: Evaluation, collection: Collection, gallery: Gallery, labels: Path
) -> int:
    """Write the page, card by card, whole or not at all.

    Args:
        path: of the page.
        evaluation: what it says.
        collection: classes and ground truth.
        gallery: thumbnails of the photographs that are shown.
        labels: folder of the pseudo labels `<id>.png` that are shown.

    Returns:
        How many photographs of the gallery are left out, since their thumbnails or pseudo label
        are missing.

    Raises:
        InputError: a label map cannot be read, or the page cannot be written.
    """
    left_out: list[str] = []
    sections = _head(evaluation, collection, bool(gallery.ids)) | {
        "cards": _cards(collection, gallery, labels, left_out),
        "left_out": _left_out(collection, gallery, left_out),
    }
    with write_whole(path, "w") as file:
        for i, part in enumerate(PLACE.split(TEMPLATE.read_text(encoding="utf-8"))):
            for piece in sections[part] if i % 2 else (part,):
                file.write(piece)
    return len(left_out)


def _head(
    evaluation: Evaluation, collection: Collection, pictured: bool
) -> dict[str, Iterable[str]]:
    """The sections of the page above the cards; the gallery is hidden where nothing is pictured."""
    names = ("background", *collection.classes)
    scored = evaluation.matrix is not None
    links = [("curve", "mIoU"), ("classes", "classes"), ("confusion", "confusion")] * scored
    links += [("gallery", "photographs")] * pictured
    orders = [
        ("list", "list"),
        ("low", "IoU, low first"),
        ("high", "IoU, high first"),
        ("id", "id"),
    ]
    return {
        "title": [escaped(evaluation.title)],
        "links": [f'<a href="#{i}">{n}</a>' for i, n in links],
        "headline": _headline(evaluation),
        "scores": score_sections(evaluation, names) if scored else [],
        "hidden": [] if pictured else [" hidden"],
        "explanation": [_explanation(evaluation)],
        "ramp": [_ramp()],
        "legend": _legend(names),
        "orders": [
            f'<option value="{i}">{n}</option>' for i, n in orders if scored or "IoU" not in n
        ],
        "choices": [
            f'<option value="{k}">{escaped(n)}</option>' for k, n in enumerate(collection.classes)
        ],
    }


def _headline(evaluation: Evaluation) -> Iterator[str]:
    tiles = dict(evaluation.headline)
    if evaluation.matrix is not None:
        tiles = {"mIoU (%)": percent(scores(evaluation.matrix).miou)} | tiles
    tiles["background threshold"] = f"{evaluation.threshold:g}"
    yield '<dl class="tiles">'
    for name, value in tiles.items():
        yield f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>\n"
    yield '</dl>\n<dl class="facts panel">'
    for name, value in evaluation.details.items():
        yield f"<div><dt>{escaped(name)}</dt> <dd>{escaped(value)}</dd></div>\n"
    yield "</dl>"


def _explanation(evaluation: Evaluation) -> str:
    kind = f"Shown: {shown_labels(evaluation)}."
    if evaluation.matrix is None:
        return f"{kind} There are no masks, so nothing is scored."
    return (
        f"{kind} The IoU of a photograph is the mean over the classes, background included, that "
        "occur in its ground truth or its pseudo label; pale parts of the ground truth (255) are "
        "not scored."
    )


def _ramp() -> str:
    """The colours of heat maps as a CSS gradient."""
    colours = heat_layer(np.linspace(0, 1, 9, dtype=np.float32)[None], (9, 1))[0].tolist()
    return f"linear-gradient(90deg,{','.join(f'rgb({r},{g},{b})' for r, g, b in colours)})"


def _legend(names: Sequence[str]) -> Iterator[str]:
    yield '<details class="quiet"><summary>colours of the classes</summary><ul class="chips">'
    for i, name in enumerate(names[1:], start=1):
        yield f"<li>{swatch(i)}{escaped(name)}</li>\n"
    yield "</ul></details>"


def _cards(
    collection: Collection, gallery: Gallery, labels: Path, left_out: list[str]
) -> Iterator[str]:
    """A card for every photograph of the gallery; those left out are added to `left_out`."""
    masked = collection.masks is not None
    unmasked = frozenset(missing_masks(collection)) if masked else frozenset(gallery.ids)
    for identifier in gallery.ids:
        path = labels / f"{identifier}.png"
        thumbnails = gallery.read(identifier)
        if thumbnails is None or not path.is_file():
            left_out.append(identifier)
            continue
        label_map, truth = read_label_map(path), None
        if identifier not in unmasked:
            truth = read_ground_truth(collection, identifier, label_map.shape)
        yield from _card(identifier, thumbnails, label_map, truth, collection)


def _card(
    identifier: str,
    thumbnails: Thumbnails,
    label_map: np.ndarray,
    truth: np.ndarray | None,
    collection: Collection,
) -> Iterator[str]:
    """One photograph: its pictures, classes and IoU."""
    value, score = "", ""
    if truth is not None:
        iou = image_iou(truth, label_map, collection.num_classes)
        value = "" if math.isnan(iou) else f"{iou:.6f}"
        score = f'<span class="iou">IoU {percent(iou)}</span>'
    elif collection.masks is not None:
        score = '<span class="quiet">no mask</span>'
    width, height = thumbnails.size
    classes = " ".join(map(str, thumbnails.classes))
    yield (
        f'<article class="card" data-id="{escaped(identifier)}" data-iou="{value}" '
        f'data-classes="{classes}" style="--wide:{width / height:.4f};'
        f'--photo:url(data:image/webp;base64,{thumbnails.photo})">\n'
        f'<header><h3><bdi>{escaped(identifier)}</bdi></h3>{score}<ul class="chips">'
    )
    for k in thumbnails.classes[:MOST_CAMS]:
        yield f"<li>{swatch(k + 1)}{escaped(collection.classes[k])}</li>"
    if len(thumbnails.classes) > MOST_CAMS:
        yield f"<li>and {len(thumbnails.classes) - MOST_CAMS} more</li>"
    yield '</ul></header><div class="strip">\n'
    yield _thumb("photo")
    yield _thumb("superpixels", thumbnails.superpixels)
    for k, picture in thumbnails.cams:
        yield _thumb(f"CAM: {collection.classes[k]}", picture, "heat")
    palette = voc_palette()
    for name, one in (("pseudo label", label_map), ("ground truth", truth)):
        if one is not None:
            layer = label_layer(one, thumbnails.size, palette)
            yield _thumb(name, in_base64(encode_webp(layer)))
    yield "</div></article>\n"


def image_iou(truth: np.ndarray, label_map: np.ndarray, num_classes: int) -> float:
    """Mean IoU over the classes in the ground truth or the labels (H, W) of one photograph.

    Background counts as a class. NaN where no pixel is scored.
    """
    return scores(confusion_matrix(truth, label_map, num_classes)).miou


def _thumb(caption: str, layer: str | None = None, style: str = "") -> str:
    """A picture of a card: the photograph with a layer on it."""
    image = ""
    if layer is not None:
        image = (
            f'<img class="{style}" loading="lazy" decoding="async" alt="" '
            f'src="data:image/webp;base64,{layer}">'
        )
    return (
        f'<button type="button" class="thumb"><span class="picture">{image}</span>'
        f"{escaped(caption)}</button>\n"
    )


def _left_out(collection: Collection, gallery: Gallery, left_out: Sequence[str]) -> Iterator[str]:
    """How many photographs are shown; to be read after the cards."""
    shown = len(gallery.ids) - len(left_out)
    yield f"Shown: {shown} of {len(collection.ids)} photographs"
    yield ", evenly spread." if len(gallery.ids) < len(collection.ids) else "."
    if left_out:
        yield (
            f" {len(left_out)} more are left out, such as <bdi>{escaped(left_out[0])}</bdi>: "
            "their thumbnails or pseudo labels are missing."
        )
