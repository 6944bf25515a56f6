import argparse

import pytest

from utils.labels.crf import add_crf_options
from utils.runs import distributed


@pytest.mark.parametrize(("processes", "workers"), [(None, 8), (1, 8), (3, 2), (16, 1)])
def test_processes_of_a_machine_share_its_cores(monkeypatch, processes, workers):
    monkeypatch.setattr(distributed, "cores", lambda: 8)
    if processes is not None:  # as torchrun does
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(name, str(processes))
        monkeypatch.setenv("RANK", "0")
    parser = argparse.ArgumentParser()
    add_crf_options(parser, "masks", "masks_crf")
    assert parser.parse_args([]).crf_workers == workers
