"""Watches a reader: what it runs and writes, how long it takes, and how much memory."""

import os
import resource
import signal
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SECONDS = 20
BYTES = 2 * 2**30

RUNS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn")
RUNS += ("subprocess.Popen", "os.startfile", "webbrowser.open", "urllib.Request", "code.__new__")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link")
CHANGES += ("os.symlink", "os.truncate", "os.utime", "shutil.rmtree", "shutil.move")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class ViolationError(BaseException):
    """A file did what no file may do. No `except Exception` of a reader can hide it."""


class Watch:
    """Collects what happens that a file must not bring about, while it is armed.

    Attributes:
        folder: where files may be written, or None while nobody watches.
        seen: what happened elsewhere, one line each.
    """

    def __init__(self):
        self.folder = None
        self.seen = []

    def __call__(self, event, arguments):
        """The audit hook."""
        if self.folder is not None and self._forbidden(event, arguments):
            self.seen.append(f"{event} {arguments!r}"[:500])
            raise ViolationError(self.seen[-1])

    def _forbidden(self, event, arguments):
        if event in RUNS or event.startswith(("socket.", "ctypes.dlopen")):
            return True
        if event == "exec":  # modules are run from files, hostile code from text
            return arguments[0].co_filename == "<string>"
        if event == "compile":
            return arguments[1] in (None, "<string>", b"<string>")
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in (mode or "") for c in "wax+") or (flags or 0) & WRITING
            return bool(writes) and self._outside(path)
        return event in CHANGES and any(self._outside(argument) for argument in arguments)

    def _outside(self, path):
        if not isinstance(path, str | bytes | os.PathLike):  # a descriptor, opened before; a mode
            return False
        resolved = Path(os.path.realpath(os.fsdecode(path)))
        return not resolved.is_relative_to(os.path.realpath(self.folder))


@cache
def watch():
    """The one watch of this process: Python's audit hooks cannot be removed."""
    hook = Watch()
    sys.addaudithook(hook)
    return hook


def peak_bytes():
    """The most memory this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def guarded(folder):
    """Raise ViolationError when the block runs code, writes outside `folder`, or takes too much."""

    def late(*_):
        raise ViolationError(f"more than {SECONDS} s")

    hook, before = watch(), peak_bytes()
    hook.seen.clear()
    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    hook.folder = folder
    try:
        yield
    finally:
        hook.folder = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        # Also where the reader hid it behind an error of its own:
        if hook.seen:
            raise ViolationError(hook.seen[0])
        if peak_bytes() - before > BYTES:
            raise ViolationError(f"more than {BYTES} bytes of memory")
