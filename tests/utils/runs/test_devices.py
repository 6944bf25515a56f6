import gc
import threading
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from utils.runs.devices import DataParallel


class Told(nn.Module):
    """Says by whom it is called."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return self.name, x, threading.get_ident(), torch.is_grad_enabled()


@pytest.fixture
def parallel(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    model = DataParallel(nn.Identity(), [0, 1])
    model.device_ids = [0, 1]  # of which PyTorch takes none where there is no GPU
    return model


def test_every_gpu_keeps_its_thread(parallel):
    replicas, threads = [Told("a"), Told("b")], set()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = parallel.parallel_apply(replicas, [(1,), (2,)], [{}, {}])
        assert [one[:2] for one in found] == [("a", 1), ("b", 2)]
        assert all(one[3] is gradients for one in found)
        threads.add(tuple(one[2] for one in found))
    assert len(threads) == 1 and len({*threads.pop(), threading.get_ident()}) == 3
    assert len(parallel.parallel_apply(replicas[:1], [(1,)], [{}])) == 1  # a last, small batch


def test_an_error_is_the_replicas_own_and_holds_nothing(parallel):
    """A GPU that is short of memory must be free of it when the error arrives."""
    activations = []

    class Short(Told):
        def forward(self, x):
            held = torch.zeros(3)
            activations.append(weakref.ref(held))
            raise torch.OutOfMemoryError(self.name)

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError, match="b") as error:
            parallel.parallel_apply([Told("a"), Short("b")], [(1,), (2,)], [{}, {}])
        del error
        assert activations[0]() is None
    finally:
        gc.enable()
