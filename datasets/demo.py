"""A small generated data set in VOC layout, to try the whole pipeline on.

Each scene shows one to three toys before a textured background. A class is a shape with a pattern
(a striped ball, a checked box, ..); the colours of toys and backgrounds come from one and the same
distribution, so they tell nothing about the class. Written as VOC lays it out:

    JPEGImages/<id>.jpg            the scene
    Annotations/<id>.xml           its objects: class, bounding box
    SegmentationClassAug/<id>.png  exact masks, 0 background, k + 1 for CLASSES[k]
    saliency_map/<id>.png          grey, with the faults of a saliency detector
    ImageSets/Segmentation/        train.txt, val.txt
    labels.txt                     class names, one a line
"""

import argparse
import re
import sys
from pathlib import Path

import cv2

from datasets.command_line import new_parser, run
from datasets.files import InputError, read_lines, write_bytes, write_text
from datasets.images import encode_png, write_label_map
from datasets.progress import progress_bar
from datasets.scenes import CLASSES, Scene, make_scene

MIN_SIZE, MAX_SIZE = 48, 1024
"""Bounds of the longer side in pixels: below, patterns cannot be seen; above, nobody waits."""

JPEG_QUALITY = 92

_FILES = {
    "JPEGImages": ".jpg",
    "Annotations": ".xml",
    "SegmentationClassAug": ".png",
    "saliency_map": ".png",
}
"""The folders with one file a scene, and the endings of these files."""


def annotation_xml(identifier: str, scene: Scene) -> str:
    """The annotation of a scene as VOC writes it; box corners are inclusive and count from 1."""
    height, width = scene.labels.shape
    objects = ""
    for item in scene.items:
        left, top, right, bottom = (corner + 1 for corner in item.box)
        objects += f"""\
\t<object>
\t\t<name>{item.name}</name>
\t\t<truncated>{item.truncated:d}</truncated>
\t\t<occluded>{item.occluded:d}</occluded>
\t\t<difficult>0</difficult>
\t\t<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>
\t</object>
"""
    return f"""\
<annotation>
\t<filename>{identifier}.jpg</filename>
\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
\t<segmented>1</segmented>
{objects}</annotation>
"""


def generate(
    root: str | Path,
    images: int = 240,
    validation: int = 40,
    size: int = 112,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Write the data set to `root`, in place of an earlier one of this generator.

    The same arguments give the same files, byte for byte. A scene depends on its number, `size`
    and `seed` only, so a larger set begins with the scenes of a smaller one. Every six scenes in
    a row show every class.

    Args:
        root: folder to write; made if it is not there.
        images: training scenes, `scene_0001` and on.
        validation: validation scenes, `val_0001` and on.
        size: longer side in pixels; the other is 0.72 to 1 of it.
        seed: of all random numbers, not negative.
        progress: show a bar.

    Raises:
        InputError: an argument out of range, a root that holds other data, or not writable.
    """
    for name, value, low, high in (
        ("images", images, 1, None),
        ("validation", validation, 0, None),
        ("seed", seed, 0, None),
        ("size", size, MIN_SIZE, MAX_SIZE),
    ):
        if value < low or (high is not None and value > high):
            bounds = f"at least {low}" if high is None else f"{low} to {high} pixels"
            raise InputError(f"{name} {value}: must be {bounds}")
    root = Path(root)
    _claim(root)
    lists = {
        "train": [f"scene_{number:04d}" for number in range(1, images + 1)],
        "val": [f"val_{number:04d}" for number in range(1, validation + 1)],
    }
    _remove_others(root, {*lists["train"], *lists["val"]})
    scenes = [
        (identifier, stream, number)
        for stream, ids in enumerate(lists.values())
        for number, identifier in enumerate(ids)
    ]
    for split, ids in lists.items():  # first: of what is left half done, nothing can be trained
        text = "".join(f"{identifier}\n" for identifier in ids)
        write_text(root / "ImageSets" / "Segmentation" / f"{split}.txt", text)
    for identifier, stream, number in progress_bar(scenes, "scenes", quiet=not progress):
        scene = make_scene((seed, stream, number), number % len(CLASSES), size)
        _write_scene(root, identifier, scene)


def _claim(root: Path) -> None:
    """Mark `root` as this generator's by its labels.txt; other people's data is left alone."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: not a folder")
    labels = root / "labels.txt"
    if labels.exists():
        foreign = tuple(read_lines(labels)) != CLASSES
    else:
        foreign = any((root / name).exists() for name in (*_FILES, "ImageSets"))
    if foreign:
        raise InputError(f"{root}: holds another data set; name a folder of its own")
    write_text(labels, "".join(f"{name}\n" for name in CLASSES))


def _remove_others(root: Path, identifiers: set[str]) -> None:
    """Remove scenes of an earlier, larger set: train_aug is whatever has a mask and is not val."""
    for folder, ending in _FILES.items():
        for path in (root / folder).glob(f"*{ending}"):
            if re.fullmatch(r"(scene|val)_\d{4,}", path.stem) and path.stem not in identifiers:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise InputError(f"cannot remove {path}: {error.strerror}") from error


def _write_scene(root: Path, identifier: str, scene: Scene) -> None:
    """Write the four files of a scene."""
    path = {folder: root / folder / f"{identifier}{ending}" for folder, ending in _FILES.items()}
    bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    write_bytes(path["JPEGImages"], jpeg.tobytes())
    write_text(path["Annotations"], annotation_xml(identifier, scene))
    write_label_map(path["SegmentationClassAug"], scene.labels)
    write_bytes(path["saliency_map"], encode_png(scene.saliency))


def _command(args: argparse.Namespace) -> int:
    generate(args.root, args.images, args.validation, args.size, args.seed, progress=True)
    crop = -(-args.size // 16) * 16
    print(
        f"{args.images} training and {args.validation} validation scenes are in {args.root}; "
        f"next: python train_scn.py --dataset custom --root {args.root} "
        f"--crop {crop} --long_side {crop} {crop + 16}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = new_parser(__doc__, prog="python -m datasets.demo")
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="folder to write")
    for name, default, what in (
        ("images", 240, "training scenes"),
        ("validation", 40, "validation scenes"),
        ("size", 112, f"longer side of a scene in pixels, {MIN_SIZE} to {MAX_SIZE}"),
        ("seed", 0, "of all random numbers; the same seed gives the same files"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=what)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run(_command, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
