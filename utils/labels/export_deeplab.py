"""A data tree that kazuto1011/deeplab-pytorch's `VOCAug` data set reads as it is.

DIR/VOC2012/JPEGImages/<id>.jpg              links to the photographs
DIR/VOC2012/SegmentationClassAug/<id>.png    pseudo labels
DIR/VOC2012/ImageSets/SegmentationAug/train_aug.txt
    lines `/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png`
DIR/VOC2012/exported.txt                     says that the tree is an export

Where VOC2012 is something else, such as the data set itself, nothing is written.
"""

from pathlib import Path

import cv2

from datasets.collection import Collection
from datasets.files import UNFINISHED, InputError, read_bytes, write_bytes, write_text
from datasets.images import is_turned, read_photograph

MARK = "exported.txt"


def check(folder: Path, collection: Collection) -> None:
    """Refuse, before anything is inferred, what could not be exported, and mark the tree.

    Raises:
        InputError: an id holds a space, which separates the columns of deeplab-pytorch's lists, or
            the folder cannot be written, or holds a VOC2012 that is no export.
    """
    for identifier in collection.ids:
        if any(character.isspace() for character in identifier):
            raise InputError(
                f"--export_deeplab: the id {identifier!r} holds a space, which deeplab-pytorch's "
                "lists cannot; rename the file"
            )
    root = folder / "VOC2012"
    try:
        root.mkdir(parents=True, exist_ok=True)
        others = (path for path in root.iterdir() if not path.name.endswith(UNFINISHED))
        exported = (root / MARK).is_file() or not any(others)
    except OSError as error:
        raise InputError(f"--export_deeplab {folder}: {error.strerror or error}") from error
    if not exported:
        raise InputError(
            f"--export_deeplab {folder}: {root} is there and was not made by --export_deeplab, "
            "which would replace files in it; name another folder"
        )
    write_text(root / MARK, "Written by --export_deeplab, which replaces files here.\n")


def export(folder: Path, collection: Collection, labels: Path) -> Path:
    """Write the tree.

    Args:
        folder: DIR.
        collection: the photographs; those without a label are left out.
        labels: holds `<id>.png`.

    Returns:
        The list of training pairs.
    """
    root = folder / "VOC2012"
    lines = []
    for identifier in collection.ids:
        made = labels / f"{identifier}.png"
        if not made.is_file():  # skipped by the evaluation
            continue
        image, label = f"/JPEGImages/{identifier}.jpg", f"/SegmentationClassAug/{identifier}.png"
        _link(collection.images[identifier], root / image[1:])
        write_bytes(root / label[1:], read_bytes(made))
        lines.append(f"{image} {label}")
    path = root / "ImageSets" / "SegmentationAug" / "train_aug.txt"
    write_text(path, "\n".join(lines) + "\n")
    return path


def _link(photograph: Path, link: Path) -> None:
    """A symbolic link to a photograph, or a copy where links cannot be made.

    deeplab-pytorch reads with OpenCV, which turns photographs by EXIF; labels lie on stored pixels.
    A photograph that would be turned is written again without EXIF.
    """
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        photograph = photograph.resolve()
        if photograph == link.absolute():  # the tree is taken as the data set, and has copies
            return
        link.unlink(missing_ok=True)
        if is_turned(photograph):
            bgr = cv2.cvtColor(read_photograph(photograph), cv2.COLOR_RGB2BGR)
            write_bytes(
                link, cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes()
            )
            return
        try:
            link.symlink_to(photograph)
        except OSError:
            write_bytes(link, read_bytes(photograph))
    except OSError as error:
        raise InputError(f"cannot write {link}: {error.strerror or error}") from error
