import threading

import pytest

from utils.labels import background
from utils.labels.background import BackgroundWriter


def fail():
    raise OSError("disk")


def test_an_error_while_writing_surfaces():
    with pytest.raises(OSError, match="disk"), BackgroundWriter() as writer:
        writer.submit(fail)


def test_it_surfaces_at_a_later_call_too():
    """Not first at the end, hours later."""
    writer = BackgroundWriter()
    writer.submit(fail)
    writer._waiting[0].exception()  # it has failed by now
    with pytest.raises(OSError, match="disk"):
        writer.submit(print)


def test_everything_is_written_in_the_end():
    written = []
    with BackgroundWriter() as writer:
        for i in range(200):
            writer.submit(written.append, i)
    assert sorted(written) == list(range(200))


def test_the_caller_waits_when_many_writes_do(monkeypatch):
    monkeypatch.setattr(background, "MOST_WAITING", 3)
    may_go_on = threading.Event()
    with BackgroundWriter() as writer:
        for _ in range(3):
            writer.submit(may_go_on.wait)
        fourth = threading.Thread(target=writer.submit, args=(may_go_on.wait,))
        fourth.start()
        fourth.join(0.3)
        waited = fourth.is_alive()
        may_go_on.set()
        fourth.join(60)
        assert waited and not fourth.is_alive()


def test_after_an_error_of_the_caller_what_has_not_begun_is_dropped():
    may_go_on, written = threading.Event(), []
    with pytest.raises(ValueError, match="stop"), BackgroundWriter() as writer:
        threads = writer._pool._max_workers
        for _ in range(threads):
            writer.submit(may_go_on.wait)
        writer.submit(written.append, 1)
        threading.Timer(0.5, may_go_on.set).start()
        raise ValueError("stop")
    assert written == []
