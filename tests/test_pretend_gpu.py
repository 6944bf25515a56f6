"""Every script on a pretend GPU: what mixes devices fails here as it would on a GPU.

Numbers are the CPU's, and so are the rules of autocast.
"""

import numpy as np
import pytest
import torch

from tests.every_script import run_every_script
from tests.pretend import Pretend, pretend
from tests.utils.inference.test_collection_cams import assert_alike, inferred, small_collection
from utils.inference import collection_cams

VERSION = tuple(map(int, torch.__version__.split(".")[:2]))
pytestmark = pytest.mark.skipif(VERSION < (2, 13), reason="was tried with PyTorch 2.13 and 2.14")


@pytest.fixture
def gpu(monkeypatch):
    pretend(monkeypatch)


def test_devices_do_not_mix(gpu):
    x, y = torch.ones(3, device="cuda"), torch.ones(3)
    assert x.device.type == "cuda" and isinstance(x + torch.tensor(1.0), Pretend)
    for mixed in (lambda: x + y, lambda: torch.cat([x, y]), lambda: y[x.long()]):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)
    assert torch.equal(x[torch.tensor([0, 2])].cpu(), torch.ones(2))
    leaf = torch.ones(3, requires_grad=True)
    (leaf.to("cuda") * x).sum().backward()
    assert type(leaf.grad) is torch.Tensor


def test_values_that_are_put_do_not_mix(gpu):
    x = torch.zeros(3, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        x[torch.tensor([0, 1])] = torch.ones(2)
    x[:2] = torch.ones(2)  # a copy
    assert x.cpu().sum() == 2


def test_copies_that_nobody_waits_for_hold_garbage(gpu):
    x = torch.ones(3, device="cuda")
    copied = x.to("cpu", non_blocking=True)
    assert (copied != 1).all()
    torch.cuda.synchronize()
    assert (copied == 1).all() and (x.to("cpu") == 1).all()


def test_cams_are_read_when_they_are_there(gpu, tmp_path, monkeypatch):
    """And the next photographs are begun before."""
    collection = small_collection(tmp_path)
    expected, _ = inferred(collection, "cpu")
    events = []

    class Block(collection_cams.Block):
        def __init__(self, *given):
            events.append("begun")
            super().__init__(*given)

        def inferred(self):
            events.append("handed out")
            return super().inferred()

    monkeypatch.setattr(collection_cams, "Block", Block)
    monkeypatch.setattr(collection_cams, "taken_together", lambda _: (2, 2**20))
    assert_alike(inferred(collection, "cuda")[0], expected, 1e-5)
    assert events == ["begun", *["begun", "handed out"] * 2, "handed out"]


@pytest.mark.slow
def test_every_script(gpu, tmp_path):
    run_every_script(tmp_path, "cuda")
