"""Three kills of those that `python -m tests.survival` does."""

import sys

import pytest

from tests import survival

JOBS = ("train_seg", "evaluator_cls_image", "prepare")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_runs_come_out_as_if_never_killed(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = survival.survive(3, seed=4, names=JOBS)
    assert [one["damaged"] for one in seen] == [[]] * 3
    assert all(one["same"] for one in seen)


def test_damage_and_differences_are_seen(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1')
    (tmp_path / "b.pt").write_bytes(b"PK")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    (tmp_path / ".d.png.x.part").write_bytes(b"half")
    assert [line.split(":")[0] for line in survival.damaged(tmp_path)] == [
        "a.json",
        "b.pt",
        "c.png",
    ]
    before = survival.files(tmp_path, "*.png")
    (tmp_path / "c.png").write_bytes(b"\x89PNF")
    assert survival.files(tmp_path, "*.png") != before
