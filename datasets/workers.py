"""What processes that work for another one do about signals and its end."""

import multiprocessing
import os
import signal
import threading


def outlive_signals(seconds: int = 30) -> None:
    """In a worker: leave Ctrl-C to the parent, and end some seconds after SIGTERM, not at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(seconds))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> None:
    """In a worker: leave signals to the parent, and end when it is gone, even by kill -9."""
    outlive_signals()

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
