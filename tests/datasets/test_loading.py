import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets.collection import Collection
from datasets.files import InputError, write_bytes
from datasets.images import encode_png, write_label_map
from datasets.loading import (
    Photographs,
    Plan,
    ShuffledBatches,
    TrainingCrops,
    photograph_loader,
    read_ground_truth,
    training_loader,
)
from tests.calling import REPOSITORY


@pytest.fixture
def collection(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = {}, {}
    for i in range(7):
        name = f"img{i}"
        image = rng.integers(0, 256, (40, 50 + i, 3), dtype=np.uint8)
        images[name] = tmp_path / f"{name}.png"
        write_bytes(images[name], encode_png(image))
        write_bytes(tmp_path / "sal" / f"{name}.png", encode_png(image[..., 0]))
        mask = (image[..., 1] % 3).astype(np.uint8)
        write_label_map(tmp_path / "masks" / f"{name}.png", mask)
        labels[name] = np.array([i % 2, 1], np.uint8)
    return Collection(
        "custom",
        "train",
        ("cat", "dog"),
        tuple(images),
        images,
        labels,
        tmp_path / "masks",
        tmp_path / "sal",
    )


def batches_of(collection, workers, start=0, seed=3):
    crops = TrainingCrops(collection, 32, (30, 60), seed, ("labels", "saliency", "lab"))
    order = ShuffledBatches(Plan(len(collection.ids), 3, 2), seed, start)
    return list(training_loader(crops, order, workers, pin=False))


def test_a_batch(collection):
    batches = batches_of(collection, 0)
    assert len(batches) == 4  # two full batches of 3 of the 7 images, twice
    batch = batches[0]
    assert batch["image"].shape == (3, 32, 32, 3) and batch["image"].dtype == torch.uint8
    assert batch["saliency"].shape == (3, 32, 32, 1) and batch["labels"].shape == (3, 2)
    lab = cv2.cvtColor(batch["image"][0].numpy(), cv2.COLOR_RGB2LAB)
    assert (batch["lab"][0].numpy() == lab).all()
    top, left, bottom, right = batch["box"][0].tolist()
    red = batch["image"][0, top:bottom, left:right, 0]
    assert (batch["saliency"][0, top:bottom, left:right, 0] == red).all()


def test_batches_do_not_depend_on_workers_and_go_on_anywhere(collection):
    whole = batches_of(collection, 0)
    for other, expected in (
        (batches_of(collection, 2), whole),
        (batches_of(collection, 1, 3), whole[3:]),
    ):
        assert len(other) == len(expected)
        for one, two in zip(other, expected, strict=True):
            assert all(torch.equal(one[key], two[key]) for key in two)
    reseeded = batches_of(collection, 0, seed=4)
    assert not torch.equal(reseeded[0]["image"], whole[0]["image"])


def test_every_epoch_has_its_own_order_and_each_image_at_most_once():
    plan = Plan(images=10, batch=3, epochs=2)
    steps = list(ShuffledBatches(plan, seed=0))
    epochs = [[index for step in steps[i : i + 3] for _, index in step] for i in (0, 3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs) and epochs[0] != epochs[1]
    assert [epoch for step in steps for epoch, _ in step] == [0] * 9 + [1] * 9


def test_photographs(collection):
    items = list(photograph_loader(Photographs(collection), 2, pin=False))
    assert [item["id"] for item in items] == list(collection.ids)
    assert items[2]["image"].shape == (3, 40, 52) and items[2]["mask"].shape == (40, 52)
    assert items[1]["labels"].tolist() == [1, 1]


READING = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from datasets.collection import Collection
from datasets.loading import Photographs, photograph_loader
folder = Path(sys.argv[1])
multiprocessing.set_start_method(sys.argv[2])
images = {f"p{i}": folder / "p.png" for i in range(20)}
for i in images:
    (folder / f"{i}.png").symlink_to(folder / "mask.png")
photographs = Collection("custom", "train", ("cat",), tuple(images), images, {}, folder)
reading = iter(photograph_loader(Photographs(photographs), 1, pin=False))
next(reading)
time.sleep(1)  # the worker has filled the pipe, and waits
print(reading._workers[0].pid, flush=True)
"""
KILLED = READING + "os.kill(os.getpid(), signal.SIGKILL)"
WAITING = READING + "time.sleep(60)"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_readers_end_with_a_parent_that_is_killed(tmp_path):
    """Even one that is just handing over a mask larger than a pipe holds."""
    with a_reader(KILLED, "fork", tmp_path) as (parent, reader):
        parent.wait()
        deadline = time.monotonic() + 30
        while is_running(reader) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_running(reader)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_outlive_a_signal_that_their_parent_may_have_got_too(tmp_path, method):
    with a_reader(WAITING, method, tmp_path) as (_, reader):
        for _ in range(2):
            os.kill(reader, signal.SIGTERM)
            time.sleep(0.5)
        assert is_running(reader)


@contextmanager
def a_reader(code, method, folder):
    """A process that runs `code`, and the number of its reader, which is started by `method`."""
    write_bytes(folder / "p.png", encode_png(np.zeros((600, 600, 3), np.uint8)))
    write_label_map(folder / "mask.png", np.zeros((600, 600), np.uint8))
    command = [sys.executable, "-c", code, str(folder), method]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        reader = int(parent.stdout.readline())
        try:
            yield parent, reader
        finally:
            parent.kill()
            with suppress(ProcessLookupError):
                os.kill(reader, signal.SIGKILL)


def is_running(process):
    """Not if it is gone, or a zombie that nobody collects."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photograph_gives_one_line(collection, workers):
    path = collection.images["img3"]
    path.write_bytes(path.read_bytes()[:500])
    errors = [b["error"] for b in batches_of(collection, workers) if "error" in b]
    assert errors and "\n" not in errors[0] and "img3.png" in errors[0]
    items = list(photograph_loader(Photographs(collection), workers, pin=False))
    assert [i for i, item in enumerate(items) if "error" in item] == [3]


def test_a_mask_must_fit(collection):
    path = collection.mask_path("img0")
    with pytest.raises(InputError, match=r"img0\.png: 50 x 40 pixels, but .* 41 x 40"):
        read_ground_truth(collection, "img0", (40, 41))
    write_label_map(path, np.full((40, 50), 9, np.uint8))
    with pytest.raises(InputError, match=r"img0\.png: holds class 9, .* 0 to 2"):
        read_ground_truth(collection, "img0", (40, 50))
    write_label_map(path, np.full((40, 50), 255, np.uint8))
    assert (read_ground_truth(collection, "img0", (40, 50)) == 255).all()


def test_the_order_and_the_first_crop_draw_different_numbers():
    """To numpy the seeds (s, e) and (s, e, 0) are the same stream."""
    crops = TrainingCrops(None, 64, (64, 64), seed=3)
    plan = Plan(images=50, batch=50, epochs=2)
    order = [index for batch in ShuffledBatches(plan, seed=3) for _, index in batch]
    for number in range(2):
        mine = order[50 * number : 50 * (number + 1)]
        assert sorted(mine) == list(range(50))
        assert mine != crops.random(number, 0).permutation(50).tolist()
    assert order[:50] != order[50:]


def test_an_epoch_of_some_steps_goes_on_through_the_passes():
    plan = Plan(images=6, batch=2, epochs=2, length=4)
    assert (plan.steps_per_pass, plan.steps_per_epoch, plan.steps) == (3, 4, 8)
    batches = list(ShuffledBatches(plan, seed=0))
    assert [batch[0][0] for batch in batches] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert {index for batch in batches[3:6] for _, index in batch} == set(range(6))
    assert list(ShuffledBatches(plan, seed=0, start=5)) == batches[5:]
