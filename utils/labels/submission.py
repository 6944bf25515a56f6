"""An archive of masks as VOC's test server takes it: competition 6, segmentation, own choice of
training data.

results/VOC2012/Segmentation/comp6_test_cls/<id>.png    palette PNGs, class indices 0 to 20
"""

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from datasets import voc
from datasets.collection import Collection
from datasets.files import InputError, read_bytes, write_whole
from datasets.images import image_header, read_label_map

PLACE = "results/VOC2012/Segmentation/comp6_test_cls"


def check(photographs: Collection) -> None:
    """Refuse, before anything is segmented, what the server would not take.

    Raises:
        InputError: the photographs are not those of VOC's test split.
    """
    if (photographs.name, photographs.split) != (voc.NAME, "test"):
        raise InputError(
            f"--submission: the server takes masks of VOC's test split, not of {photographs.name} "
            f"{photographs.split}; give --dataset voc12 --split test, without --images"
        )


def write(path: Path, photographs: Collection, masks: Path) -> int:
    """Check the masks `<id>.png` in a folder, and write them as an archive, whole or not at all.

    Returns:
        How many there are.

    Raises:
        InputError: a mask is missing or not as the server takes it, or the archive cannot be
            written.
    """
    files = [masks / f"{identifier}.png" for identifier in photographs.ids]
    _require_all(files, photographs)
    with (
        write_whole(path) as file,
        # Without a time, the same masks make the same archive.
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for mask in files:
            data = read_bytes(mask)
            entry = tarfile.TarInfo(f"{PLACE}/{mask.name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return len(files)


def _require_all(files: Sequence[Path], photographs: Collection) -> None:
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(
            f"--submission: {len(missing)} of {len(files)} masks are missing, such as "
            f"{missing[0]}; the server takes all or none; replace the photographs that were skipped"
        )
    for path in files:
        labels = read_label_map(path)
        _, size = image_header(photographs.images[path.stem])
        if labels.shape != size:
            raise InputError(
                f"--submission: {path} has {labels.shape[1]} x {labels.shape[0]} pixels, but its "
                f"photograph {size[1]} x {size[0]}; make it anew with --overwrite"
            )
        highest = int(labels.max(initial=0))
        if image_header(path)[0] != "P" or highest >= photographs.num_classes:
            raise InputError(
                f"--submission: {path} must be a palette PNG of class indices 0 to "
                f"{photographs.num_classes - 1}, but holds {highest}; make it anew with --overwrite"
            )
