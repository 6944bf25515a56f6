"""Writing files in the background, so that inference seldom waits for them."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from utils.runs import distributed

MOST_WAITING = 64
"""So many writes may wait; then the caller waits, which bounds memory."""


class BackgroundWriter:
    """Runs writing functions in threads; an error surfaces at the next call or at the end.

    There are half as many threads as this process has cores to itself, 2 to 8: PNG compression
    releases Python's lock.
    """

    def __init__(self) -> None:
        threads = min(8, max(2, distributed.own_cores() // 2))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="writer")
        self._waiting: deque[Future] = deque()

    def submit(self, write: Callable, *arguments: object) -> None:
        """Call `write(*arguments)` soon."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= MOST_WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write, *arguments))

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()
