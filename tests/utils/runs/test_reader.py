import numpy as np
import pytest
import torch
from PIL import Image

from datasets.collection import Collection
from datasets.files import InputError
from utils.runs.reader import Reader


def refuse(message):
    raise InputError(message)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_left_out_and_told(tmp_path, workers):
    paths = {name: tmp_path / f"{name}.png" for name in "abc"}
    for number, path in enumerate(paths.values()):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(path)
    paths["b"].write_bytes(b"")
    collection = Collection("custom", "train", ("x",), tuple(paths), paths, {})
    told = []
    items = list(Reader(torch.device("cpu"), workers, told.append).read(collection, "reading"))
    assert [item["id"] for item in items] == ["a", "c"]
    assert items[1]["image"].shape == (3, 4, 6) and (items[1]["image"] == 2).all()
    [message] = told
    assert "b.png: the file is empty" in message
    with pytest.raises(InputError, match="b.png"):
        list(Reader(torch.device("cpu"), workers, refuse).read(collection, "reading"))
