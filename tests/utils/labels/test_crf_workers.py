import signal

import pytest

from utils.labels.crf_workers import CrfWorkers


def blocked_signals():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_ctrl_c_does_not_reach_workers_that_are_starting():
    """A terminal sends it to all; a pool whose workers die while they start can hang."""
    with CrfWorkers(1) as workers:
        assert workers.taken(workers.run(blocked_signals))
    assert not blocked_signals()
