"""Worker processes that refine label maps by a dense CRF."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import numpy as np

from datasets.files import InputError
from datasets.workers import end_with_parent


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """In the block SIGINT waits; processes that are started in it never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class CrfWorkers:
    """Processes that refine photographs, so that inference goes on; a context manager.

    Args:
        workers: how many; at least one.
    """

    def __init__(self, workers: int) -> None:
        # Forked processes could inherit locks that torch's threads hold; spawned ones start clean.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            max(1, workers), mp_context=context, initializer=end_with_parent
        )
        # Each waiting photograph is held in memory.
        self._room = threading.BoundedSemaphore(4 * max(1, workers))

    def run(self, function: Callable, *arguments: object) -> Future:
        """Call `function(*arguments)` in a process soon, where there is room. See `taken`.

        Raises:
            InputError: a process has died.
        """
        self._room.acquire()
        try:
            with ctrl_c_held_back():  # until they leave it to the parent, it would kill them
                future = self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            raise self._died() from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def taken(self, future: Future) -> np.ndarray:
        """Wait for what `run` gave.

        Raises:
            InputError: the files cannot be written, or a process has died.
        """
        try:
            return future.result()
        except BrokenProcessPool:
            raise self._died() from None

    def _died(self) -> InputError:
        return InputError("--crf: a worker process died (out of memory?); give fewer --crf_workers")

    def __enter__(self) -> "CrfWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
