"""Fixtures: where the shared data lies, and small data sets in the real formats.

Tests break what the fixtures build: each reader is tried on a good file and on its broken twins.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

import dataset_root
from datasets.classes import coco_classes
from datasets.palette import voc_palette

SIZE = (24, 32)
"""Height and width of the photographs the fixtures make."""

# Times on a shared CPU vary; a seed of its own for every run would make failures unrepeatable.
settings.register_profile("msa", deadline=None, derandomize=True)
settings.load_profile("msa")


@pytest.fixture(scope="session")
def shared():
    """The folder of real data: MSA_SHARED, or `shared` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("MSA_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set MSA_SHARED to where the shared data lies")
    return folder


@pytest.fixture(scope="session")
def mutated():
    """A strategy of damaged copies of some bytes: overwritten, inserted, cut."""

    def strategy(data):
        position = st.integers(0, len(data) - 1)
        edits = st.lists(st.tuples(position, st.binary(max_size=6), st.booleans()), max_size=6)

        def damage(edits_and_end):
            edits, end = edits_and_end
            copy = bytearray(data)
            for start, piece, insert in edits:
                copy[start : start + (0 if insert else len(piece))] = piece
            return bytes(copy[:end])

        end = st.one_of(st.none(), position)
        return st.tuples(edits, end).map(damage)

    return strategy


@pytest.fixture
def write_photograph():
    """A function (path, seed) that writes a photograph of SIZE in the format of the ending."""

    def write(path, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(noise).save(path)

    return write


@pytest.fixture
def write_mask():
    """A function (path, classes) that writes a palette PNG of SIZE with these class indices."""

    def write(path, classes):
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros(SIZE, np.uint8)
        for stripe, index in enumerate((*classes, 255)):
            mask[4 * stripe + 2 : 4 * stripe + 5] = index
        picture = Image.fromarray(mask)
        picture.putpalette(voc_palette().tobytes())
        picture.save(path)

    return write


def annotation(*objects):
    """A VOC XML with these objects; each has a part of its own, and the first is difficult."""
    lines = [
        "<annotation>",
        "\t<filename>x.jpg</filename>",
        "\t<owner><name>somebody</name></owner>",
    ]
    for number, name in enumerate(objects):
        lines.append(
            f"\t<object>\n\t\t<name>{name}</name>\n\t\t<difficult>{int(number == 0)}</difficult>\n"
            "\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>\n"
            "\t\t<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>\n\t</object>"
        )
    return "\n".join([*lines, "</annotation>", ""])


def write_file(path, text):
    """Write text, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def voc_root(tmp_path, write_photograph, write_mask):
    """VOC's layout: train 1 and 2, val 3, and 4 and 5 in SegmentationClassAug only."""
    root = tmp_path / "VOC2012"
    objects = {1: ("person", "dog"), 2: ("cat",), 3: ("person",), 4: ("dog", "dog"), 5: ("bus",)}
    index = {"person": 15, "dog": 12, "cat": 8, "bus": 6}
    for number, names in objects.items():
        identifier = f"2007_00000{number}"
        write_photograph(root / "JPEGImages" / f"{identifier}.jpg", number)
        write_mask(root / "SegmentationClassAug" / f"{identifier}.png", {index[n] for n in names})
        write_mask(root / "saliency_map" / f"{identifier}.png", ())
        write_file(root / "Annotations" / f"{identifier}.xml", annotation(*names))
    lists = root / "ImageSets" / "Segmentation"
    write_file(lists / "train.txt", "2007_000001\n2007_000002\n")
    write_file(lists / "val.txt", "2007_000003\n")
    return root


@pytest.fixture
def custom_root(tmp_path, write_photograph):
    """One's own data: photographs of several endings, labels.txt and labels.csv, nothing else."""
    root = tmp_path / "own"
    for number, name in enumerate(("a b.PNG", "IMG-1.jpeg", "x.y.webp", "z.tif")):
        write_photograph(root / "JPEGImages" / name, number)
    write_file(root / "labels.txt", "background\nleaf\nstem\n")
    write_file(
        root / "labels.csv", "id,classes\na b,leaf\nIMG-1.jpeg,stem,leaf\nx.y,stem\nz,leaf\n"
    )
    return root


def square(left, top, side):
    """A polygon in COCO's order x, y, x, y, .."""
    right, bottom = left + side, top + side
    return [left, top, right, top, right, bottom, left, bottom]


def coco_file(split, images):
    """An instances file: images is a list of lists of (category id, segmentation, area, crowd)."""
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]
    ids += [27, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 47, 48, 49, 50, 51]
    ids += [52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 67, 70, 72, 73, 74, 75, 76, 77]
    ids += [78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90]
    records, annotations = [], []
    for number, objects in enumerate(images, start=1):
        name = f"COCO_{split}2014_{number:012d}.jpg"
        size = {"height": SIZE[0], "width": SIZE[1]}
        records.append({"id": number, "file_name": name, **size})
        for category, segmentation, area, crowd in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "segmentation": segmentation,
                    "area": area,
                    "iscrowd": crowd,
                }
            )
    categories = [{"id": i, "name": n} for i, n in zip(ids, coco_classes(), strict=True)]
    return {"images": records, "annotations": annotations, "categories": categories}


@pytest.fixture
def coco_root(tmp_path, write_photograph):
    """COCO's layout. Train: polygons on top of each other, a crowd, an RLE string, nothing."""
    root = tmp_path / "coco"
    height, width = SIZE
    crowd = {"size": [height, width], "counts": [0, 8 * height, (width - 8) * height]}
    # Columns 8..15 as pycocotools writes them: 192 zeros, 192 ones, 384 zeros.
    string = {"size": [height, width], "counts": "P6P6P<"}
    train = [
        [(18, [square(4, 4, 8)], 64.0, 0), (1, [square(2, 2, 18)], 324.0, 0), (1, crowd, 192, 1)],
        [(90, string, 192, 0), (3, [square(1.5, 1.5, 3), square(20, 10, 5.25)], 36, 0)],
        [],
    ]
    val = [[(62, [square(0, 0, 10)], 100, 0)], []]
    for split, images in (("train", train), ("val", val)):
        text = json.dumps(coco_file(split, images))
        write_file(root / "annotations" / f"instances_{split}2014.json", text)
        for number in range(1, len(images) + 1):
            name = f"COCO_{split}2014_{number:012d}.jpg"
            write_photograph(root / f"{split}2014" / name, number)
    return root


@pytest.fixture(autouse=True, scope="session")
def prepared_elsewhere(tmp_path_factory):
    """Lists that scripts prepare on the spot do not go into the repository's data folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("prepared"))
        patch.setattr(dataset_root, "PREPARED_ROOT", folder)
        patch.setenv("PREPARED_ROOT", folder)  # for the processes that a test starts
        yield
