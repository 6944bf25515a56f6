"""The device a script runs on, and its random seed."""

import random

import numpy as np
import torch
from torch import nn

from datasets.files import InputError


def choose(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"--device {name}: this machine shows {count} CUDA GPUs; try cpu")
    return device


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    names = [torch.cuda.get_device_name(i) for i in gpu_indices(device)]
    return f"{len(names)} GPU{'s' if len(names) > 1 else ''}: {', '.join(names)}"


def gpu_indices(device: torch.device) -> list[int]:
    """The GPUs in use: all visible ones for `cuda`, one for `cuda:N`, none for the CPU."""
    if device.type != "cuda":
        return []
    return list(range(torch.cuda.device_count())) if device.index is None else [device.index]


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` on the device; split over all GPUs by DataParallel where there are several.

    Channels go last in memory: convolutions are faster so on CPUs and on GPUs.
    """
    module = module.to(device, memory_format=torch.channels_last)
    gpus = gpu_indices(device)
    return nn.DataParallel(module, device_ids=gpus) if len(gpus) > 1 else module


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. On the CPU the same seed then gives the same weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
