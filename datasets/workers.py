"""Processes that work for another one: their tasks, signals, and end."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from datasets.files import InputError

LAST = 300
"""Seconds that a worker keeps running after SIGTERM. The parent may finish a step that takes longer
than usual, on a machine that is stopping many things at once."""


def cores() -> int:
    """The CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; knows of SLURM's and containers' shares
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def outlive_signals() -> None:
    """In a worker: leave Ctrl-C to the parent, and end some time after SIGTERM, not at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LAST))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> None:
    """In a worker: leave signals to the parent, and end when it is gone, even by kill -9."""
    outlive_signals()

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(function: Callable, tasks: Iterable, workers: int, chunk: int = 1) -> Iterator:
    """`function(task)` of every task, as they finish, in `workers` processes (here, if 1).

    Tasks are taken from the iterable only as fast as they are done, so that memory stays
    bounded. A process is sent `chunk` of them at once.

    Raises:
        InputError: a process was killed.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    # spawn: the processes share nothing with this one, which may hold gigabytes of annotations.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    remaining, running = iter(tasks), set()
    try:
        while taken := list(islice(remaining, chunk)):
            running.add(pool.submit(_each, function, taken))
            if len(running) >= 2 * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        for future in as_completed(running):
            yield from future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for lack of memory; try fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _each(function: Callable, tasks: list) -> list:
    return [function(task) for task in tasks]
