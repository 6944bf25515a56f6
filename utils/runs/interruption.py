"""SIGTERM and Ctrl-C as a wish that a training heeds between two steps."""

import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)

SECONDS_OF_ONE_WISH = 5.0
"""Signals within this time are one wish to stop."""


class Stopped(BaseException):
    """The run was asked to stop. Like KeyboardInterrupt, not an Exception that code may swallow.

    Args:
        number: of the signal.
        kept: what to say of the work so far.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        self.number, self.kept = number, kept
        super().__init__(f"stopped by {name_of(number)}{kept and '; '}{kept}")


def name_of(number: int) -> str:
    """The signal in a user's words."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class Interruption:
    """Listens to signals while it is open; a context manager.

    At once (the default) a signal raises Stopped where it strikes, with what was said to be
    `kept`. Otherwise it is kept in `wished` for whoever looks, and only a second one raises, some
    seconds later: who starts several processes often signals each of them more than once.
    """

    def __init__(self) -> None:
        self.wished, self.kept = 0, ""
        self._at_once, self._heard_at = True, 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self._at_once:
            raise Stopped(number, self.kept)
        if self.wished and time.monotonic() - self._heard_at > SECONDS_OF_ONE_WISH:
            raise Stopped(number)
        if not self.wished:
            self.wished, self._heard_at = number, time.monotonic()

    def defer(self) -> None:
        """From now on signals wait to be looked at."""
        self._at_once = False

    def at_once(self, kept: str) -> None:
        """From now on signals strike at once, one that came just before too.

        Args:
            kept: what to say then of the work so far.
        """
        self._at_once, self.kept = True, kept
        if self.wished:
            raise Stopped(self.wished, kept)
