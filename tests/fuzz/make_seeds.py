"""Makes the seeds, small good files of every kind: python -m tests.fuzz.make_seeds

They are kept in the repository so that a failure found once can be found again under the same
number, whatever versions of the libraries wrote them.
"""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, PngImagePlugin

from datasets.classes import coco_classes

SEEDS = Path(__file__).parent / "seeds"
IDS = ("2007_000032", "IMG 1", "ünï")


def image_seeds():
    rng = np.random.default_rng(0)
    rgb = np.kron(rng.integers(0, 255, (4, 6, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    grey = rgb[..., 0] % 21
    picture, mask = Image.fromarray(rgb), Image.fromarray(grey)
    exif = Image.Exif()
    exif[274], exif[271], exif[33434] = 6, "maker", 0.01
    palette = mask.convert("P")
    palette.putpalette(bytes(range(256)) * 3)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "compressed", zip=True)
    text.add_itxt("Title", "a title", zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "plain.jpg": (picture, {}),
        "exif.jpg": (picture, {"exif": exif, "comment": "a comment"}),
        "progressive.jpg": (picture, {"progressive": True, "restart_marker_blocks": 1}),
        "grey.jpg": (mask, {}),
        "cmyk.jpg": (picture.convert("CMYK"), {"dpi": (72, 72)}),
        "rgb.png": (picture, {"exif": exif, "pnginfo": text, "icc_profile": profile}),
        "alpha.png": (picture.convert("RGBA"), {}),
        "palette.png": (palette, {"transparency": 0}),
        "grey.png": (mask, {}),
        "bits.png": (mask.convert("1"), {}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 256), {}),
        "plain.bmp": (picture, {}),
        "palette.bmp": (palette, {}),
        "lossy.webp": (picture, {"exif": exif}),
        "lossless.webp": (picture.convert("RGBA"), {"lossless": True}),
        "plain.tif": (picture, {"exif": exif}),
        "lzw.tif": (picture, {"compression": "tiff_lzw"}),
        "deflate.tif": (mask, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (picture, {"compression": "jpeg"}),
        "fax.tif": (mask.convert("1"), {"compression": "group4"}),
        "float.tif": (Image.fromarray(grey.astype(np.float32)), {}),
    }


def result_json():
    """What an evaluator writes, with two thresholds and two classes."""
    row = {"iou": [0.6, None], "precision": [0.7, None], "recall": [1.0, 0.0]}
    rows = [{"threshold": t, "miou": 0.3, **row, "confusion": [[9, 0], [4, 0]]} for t in (0.1, 0.2)]
    best = {"threshold": 0.1, "miou": 0.3}
    return {
        "dataset": "custom",
        "images": 3,
        "classes": ["a", "b"],
        "best": best,
        "thresholds": rows,
        "best_labels": "pseudo_labels/0.1",
    }


def label_files():
    labels = {name: np.eye(20, dtype=np.float32)[k] for k, name in enumerate(IDS)}
    header = b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(79) + b"\n"
    numbered = {2007000032: np.zeros(20, np.int64), np.int64(9): np.ones(20, np.int64)}
    return {
        "new.npy": header + pickle.dumps(np.array(labels), 4),
        "old.npy": header
        + pickle.dumps(np.array(labels), 2).replace(b"numpy._core", b"numpy.core"),
        "numbers.npy": header + pickle.dumps(np.array(numbered), 3),
    }


def instances():
    square = [4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]
    segmentations = [
        [square],
        [square, [1, 1, 3, 1, 3.5, 3]],
        {"size": [16, 24], "counts": [16, 100, 268]},
        {"size": [16, 24], "counts": "`0T3T2^Nb2"},
    ]
    annotations = [
        {
            "id": k,
            "image_id": 1 + k % 2,
            "category_id": 1 + k,
            "segmentation": segmentation,
            "area": 64.0 + k,
            "iscrowd": int(k == 2),
        }
        for k, segmentation in enumerate(segmentations)
    ]
    images = [
        {"id": k, "file_name": f"COCO_train2014_{k:012}.jpg", "height": 16, "width": 24}
        for k in (1, 2)
    ]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(coco_classes()[:6])]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content).encode()


def text_files():
    names = ("person", "cat", "dog")
    objects = "".join(
        f"<object>\n<name>{name}</name><difficult>1</difficult><bndbox><xmin>1</xmin></bndbox>"
        "<part><name>head</name></part></object>"
        for name in names
    )
    xml = f"<annotation><filename>a.jpg</filename><!-- made -->{objects}</annotation>"
    labels = {"classes": list(names), "labels": {name: [k] for k, name in enumerate(IDS)}}
    value = {"text": "ü\n", "numbers": [1, -2.5, 1e3, True, None], "nested": {"a": [[{}]]}}
    return {
        "xml/utf8.xml": xml.encode(),
        "xml/utf16.xml": f'<?xml version="1.0" encoding="UTF-16"?>{xml}'.encode("utf-16"),
        "xml/latin.xml": f'<?xml version="1.0" encoding="latin-1"?>{xml}'.encode("latin-1"),
        "list/ids.txt": "\n".join(IDS).encode(),
        "list/windows.txt": "\ufeff2007_000032\r\nIMG 1\r\n".encode(),
        "classes/labels.txt": b"background\ncat\ndog\nperson\n",
        "csv/labels.csv": b'id,class\r\n# c\r\na.jpg,cat,dog\r\n"b, 1",person\r\nc\r\n',
        "labels_json/labels.json": json.dumps(labels).encode(),
        "json/value.json": json.dumps(value).encode(),
        "result/result.json": json.dumps(result_json()).encode(),
        "json/utf16.json": json.dumps(value).encode("utf-16"),
        "instances/instances.json": instances(),
    }


def checkpoint_files():
    state = {"module.a.weight": torch.arange(6.0).reshape(2, 3), "module.a.bias": torch.ones(2)}
    state["steps"] = torch.tensor(3)
    content = {"epoch": 3, "arch": "a", "best": np.float64(0.3), "state_dict": state}
    content["options"] = {"rate": [0.1, None, True], "names": ("a", "b")}
    files = {}
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    return files


def main():
    files = {f"npy/{name}": data for name, data in label_files().items()} | text_files()
    files |= {f"checkpoint/{name}": data for name, data in checkpoint_files().items()}
    for name, data in files.items():
        (SEEDS / name).parent.mkdir(parents=True, exist_ok=True)
        (SEEDS / name).write_bytes(data)
    (SEEDS / "image").mkdir(exist_ok=True)
    for name, (picture, options) in image_seeds().items():
        picture.save(SEEDS / "image" / name, **options)


if __name__ == "__main__":
    main()
