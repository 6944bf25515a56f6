"""The device a script runs on, and its random seed."""

import ctypes
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._utils import ExceptionWrapper

from datasets.files import InputError
from utils.runs import distributed
from utils.runs.wording import counted


def choose(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`; under torchrun, this process's GPU.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda:") and distributed.world_size() > 1:
        raise InputError(f"--device {name}: torchrun gives each process its own GPU; give cuda")
    if name == "cuda" and distributed.launched():
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: choose auto, cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type != "cuda":
        raise InputError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"--device {name}: this machine shows {count} CUDA GPUs; try cpu")
        if device.index is not None:
            # What NCCL takes, and the thread that pins memory: it would go to the first GPU.
            torch.cuda.set_device(device)
    return device


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next tensor (Linux, CPU).

    By default glibc gives every block over 32 MB back to the kernel and takes it again, zeroed page
    by page, for the next tensor: a fifth of the time of inference. The peak stays the peak.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        trim_threshold, mmap_threshold, one_gib = -1, -3, 1 << 30
        mallopt(trim_threshold, one_gib)
        mallopt(mmap_threshold, one_gib)


def peak_memory(device: torch.device) -> str:
    """The most memory used so far, in words."""
    parts = []
    if device.type == "cuda":
        most = max(torch.cuda.max_memory_allocated(i) for i in gpu_indices(device))
        parts.append(f"{most / 2**30:.1f} GiB on a GPU")
    if sys.platform != "win32":
        import resource  # Unix only

        unit = 1 if sys.platform == "darwin" else 1024
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        parts.append(f"{most / 2**30:.1f} GiB of main memory")
    return " and ".join(parts) or "unknown"


def _describe_one(device: torch.device) -> str:
    if device.type == "cpu":
        return f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    names = [torch.cuda.get_device_name(i) for i in gpu_indices(device)]
    return f"{counted(len(names), 'GPU')}: {', '.join(names)}"


def describe(device: torch.device) -> str:
    """The device in words, with the number of processes where there are several."""
    count, one = distributed.world_size(), _describe_one(device)
    return one if count == 1 else f"{count} processes, this one on {one}"


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
    return DataParallel(module, gpus) if len(gpus) > 1 else module


class DataParallel(nn.DataParallel):
    """PyTorch's, with one thread for each GPU that is kept.

    cuDNN's plans belong to the thread that made them. Threads that last for one pass, as PyTorch
    has them, make them anew every time, and releases since the end of 2025 never give their memory
    back (PyTorch's pull request 169153).

    Args:
        module: whose batches are split; its parameters are on the first GPU.
        device_ids: of the GPUs.
    """

    def __init__(self, module: nn.Module, device_ids: Sequence[int]) -> None:
        super().__init__(module, list(device_ids))
        self._threads = [ThreadPoolExecutor(1, f"gpu {number}") for number in device_ids]

    def parallel_apply(
        self, replicas: Sequence[nn.Module], inputs: Sequence[tuple], kwargs: Sequence[dict]
    ) -> list[Any]:
        """What the replicas make of their inputs, each on its GPU."""
        gradients = torch.is_grad_enabled()

        def apply(replica: nn.Module, given: tuple, named: dict, number: int) -> object:
            try:
                with torch.set_grad_enabled(gradients), torch.cuda.device(number):
                    return replica(*given, **named)
            except Exception:  # as such it would hold on to what is in a GPU's memory
                return ExceptionWrapper(where=f"on GPU {number}")

        work = list(zip(self._threads, replicas, inputs, kwargs, self.device_ids, strict=False))
        futures = [thread.submit(apply, *rest) for thread, *rest in work]
        wait(futures)
        outputs = [future.result() for future in futures]
        for output in outputs:
            if isinstance(output, ExceptionWrapper):
                output.reraise()
        return outputs


def parallel_training(module: nn.Module, device: torch.device) -> nn.Module:
    """`parallel` for a module that learns: several processes share its gradients."""
    module = parallel(module, device)
    if distributed.world_size() == 1:
        return module
    gpus = gpu_indices(device) or None
    return nn.parallel.DistributedDataParallel(module, gpus, gradient_as_bucket_view=True)


def without_synchronisation(module: nn.Module) -> AbstractContextManager:
    """A block whose backward pass leaves gradients in this process."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. On the CPU the same seed then gives the same weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
