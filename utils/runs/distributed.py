"""Several processes as one run, as torchrun starts them.

    torchrun --nproc_per_node 2 train_scn.py ...

Without torchrun there is one process, and nothing here does anything. Small things (wishes to stop,
counts) travel over gloo in main memory, gradients over NCCL between GPUs.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from datasets.workers import cores

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""So long one process waits for another."""


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def joined() -> bool:
    """Whether this process has joined the others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0; also before it has joined the others."""
    return dist.get_rank() if joined() else int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """The number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0


def local_world_size() -> int:
    """How many processes of the run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1


def own_cores() -> int:
    """The CPU cores for this process alone: processes on one machine share them."""
    return max(1, cores() // local_world_size())


def world_size() -> int:
    """How many processes make up the run."""
    return dist.get_world_size() if joined() else 1


def is_first() -> bool:
    """Whether this process speaks and writes for all."""
    return rank() == 0


@contextlib.contextmanager
def quiet_unless_first() -> Iterator[None]:
    """Let the first process alone print to stderr and stdout in the block."""
    if is_first():
        yield
        return
    nowhere = io.StringIO()
    with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield


class Group:
    """The processes of a run, joined; a context manager.

    Errors are reported once: `may_report` is true for the process that asks first.
    """

    def __init__(self) -> None:
        self._store = None

    def __enter__(self) -> "Group":
        if launched():
            from torch.distributed.rendezvous import rendezvous  # not in every build of PyTorch

            self._store, number, count = next(iter(rendezvous("env://")))
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            # Waiting is normal, for a slower share or a report; a process that died is noticed.
            dist.init_process_group(
                backend, timeout=PATIENCE, store=self._store, rank=number, world_size=count
            )
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        # After an error the others may be gone; waiting for them would never end.
        if joined() and kind is None:
            barrier()

    def leave(self, status: int) -> NoReturn:
        """End this process.

        Of several processes each ends at once: taking gloo apart, or leaving that to the
        interpreter, hangs or aborts now and then in PyTorch 2.6. All files are closed by now.
        """
        if joined():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        sys.exit(status)

    def may_report(self) -> bool:
        """Whether no process has reported an error yet."""
        if self._store is None:
            return True
        try:
            return self._store.add("errors", 1) == 1
        except RuntimeError:  # the machine that holds the store is gone
            return is_first()


def lost_another(error: BaseException) -> bool:
    """Whether an error says that another process of the run has died."""
    if not joined() or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text


def all_reduce_max(*values: int) -> list[int]:
    """The greatest of each value over all processes."""
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def barrier() -> None:
    """Wait until all processes are here. In main memory: NCCL's own needs a GPU."""
    all_reduce_max(0)


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient; of one process, the tensor."""
    if world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def all_reduce_mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; without gradient."""
    return all_reduce_sum(value) / world_size()


def all_reduce_counts(counts: np.ndarray) -> np.ndarray:
    """The exact sum of int64 counts over all processes."""
    return all_reduce_sum(torch.from_numpy(counts)).numpy()


def broadcast_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers, which are those that checkpoints hold."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def broadcast(value: Any) -> Any:
    """What the first process gives, in all processes."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gather(value: Any) -> list[Any]:
    """What every process gives, in their order; empty in all processes but the first."""
    if world_size() == 1:
        return [value]
    gathered = [None] * world_size() if is_first() else None
    dist.gather_object(value, gathered)
    return gathered or []


def share(values: Sequence[T]) -> Sequence[T]:
    """This process's share of values that all have alike."""
    return values[rank() :: world_size()]


@contextlib.contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in the first process before the others, which read what it writes."""
    if not is_first():
        barrier()
    try:
        yield
    finally:  # also after an error, which the others will meet too, or not
        if is_first():
            barrier()
