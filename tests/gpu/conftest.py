"""The device under test, and comparing it with the CPU.

These tests need no fixture from outside this folder, nor hypothesis.
"""

import os

import pytest
import torch

from networks import cells, reassembly

NAME = os.environ.get("MSA_GPU_TEST_DEVICE", "cuda")


@pytest.fixture(scope="session")
def device():
    """`cuda`, or what MSA_GPU_TEST_DEVICE names."""
    if NAME.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("this machine shows no CUDA GPU; MSA_GPU_TEST_DEVICE=cpu takes the CPU")
    return torch.device(NAME)


@pytest.fixture(autouse=True)
def exact():
    """No TF32, and algorithms that give the same result every time."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    wanted = ((matmul, "allow_tf32", False), (cudnn, "allow_tf32", False))
    wanted += ((cudnn, "deterministic", True),)
    before = [getattr(place, name) for place, name, _ in wanted]
    for place, name, value in wanted:
        setattr(place, name, value)
    yield
    # By hand: pytest's monkeypatch would delete attributes that an object computes.
    for (place, name, _), value in zip(wanted, before, strict=True):
        setattr(place, name, value)


@pytest.fixture
def as_on_a_gpu(device, monkeypatch):
    """A function that calls another; if the device under test is the CPU, on the GPU's paths."""

    def call(function, *arguments):
        if device.type == "cuda":
            return function(*arguments)
        with monkeypatch.context() as patch:
            for module in (cells, reassembly):
                patch.setattr(module, "prefers_passes", lambda _: False)
            return function(*arguments)

    return call
