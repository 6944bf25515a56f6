"""SIGTERM and Ctrl-C as a wish that a training heeds between two steps."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

    At once (the default) a signal raises Stopped where it strikes. Otherwise it is kept in
    `wished` for whoever looks, and only a second one raises.
    """

    def __init__(self) -> None:
        self.wished = 0
        self._at_once = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self._at_once or self.wished:
            raise Stopped(number)
        self.wished = number

    def wait(self) -> None:
        """From now on signals wait to be looked at."""
        self._at_once = False

    def strike(self) -> None:
        """From now on signals strike at once, one that came just before too."""
        self._at_once = True
        if self.wished:
            raise Stopped(self.wished)
