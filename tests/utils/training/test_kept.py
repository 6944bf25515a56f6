"""The checkpoints that a training keeps."""

import pytest
import torch

from utils.runs.options import RunSettings
from utils.runs.run import Run
from utils.training.kept import Kept


@pytest.fixture
def run(tmp_path):
    with Run(RunSettings(experiments=str(tmp_path)), torch.device("cpu")) as run:
        yield run


def kept_in(run, name):
    return torch.load(run.folder / f"{name}.pt", weights_only=True)


def save(kept, *mious):
    for epoch, miou in enumerate(mious):
        kept.save({"epoch": epoch}, None if miou is None else {"miou": miou, "threshold": 0.25})


@pytest.mark.parametrize("mious, best", [((0.2, 0.5, 0.4), 1), ((0.0,), 0), ((0.3, 0.3), 0)])
def test_best_keeps_the_best_and_the_first_of_equals(run, mious, best):
    kept = Kept(run, None)
    save(kept, *mious)
    assert kept.best == mious[best]
    assert kept_in(run, "last") == {"epoch": len(mious) - 1}  # nothing that masks told
    assert kept_in(run, "best") == {"epoch": best, "miou": mious[best], "threshold": 0.25}


def test_nothing_is_best_where_nothing_is_scored(run):
    save(Kept(run, None), None, None)
    assert kept_in(run, "last") == {"epoch": 1} and not (run.folder / "best.pt").exists()


@pytest.mark.parametrize("resume, best", [("", 0.5), (None, 0.4)])
def test_only_a_resumed_run_goes_by_what_is_there(run, resume, best):
    save(Kept(run, None), 0.5)
    kept = Kept(run, resume)
    save(kept, 0.4)
    assert kept.best == best == kept_in(run, "best")["miou"]


@pytest.mark.parametrize("named", ["other", "other/training.pt"])
@pytest.mark.parametrize("miou, best, epoch", [(0.4, 0.5, 7), (0.6, 0.6, 0)])
def test_the_best_of_another_run_that_is_resumed_counts(run, tmp_path, named, miou, best, epoch):
    (tmp_path / "other").mkdir()
    torch.save({"epoch": 7, "miou": 0.5}, tmp_path / "other/best.pt")
    kept = Kept(run, str(tmp_path / named))
    save(kept, miou)
    assert kept.best == best == kept_in(run, "best")["miou"]
    assert kept_in(run, "best")["epoch"] == epoch


@pytest.mark.parametrize("content", [{}, {"miou": None}, {"miou": "high"}, None])
def test_a_resumed_run_may_have_no_best_one_yet(run, content):
    if content is not None:
        torch.save(content, run.folder / "best.pt")
    assert Kept(run, "").best == -1


@pytest.mark.parametrize(
    "miou, take_best, named",
    [(0.5, True, "best.pt"), (0.5, False, "last.pt"), (None, True, "last.pt")],
)
def test_what_is_to_be_run_next_names_the_checkpoint(run, capsys, miou, take_best, named):
    kept = Kept(run, None)
    save(kept, miou)
    kept.say_which("Chosen on val.", "evaluator_seg.py", "--flip", take_best=take_best)
    said = capsys.readouterr().out
    assert ("Chosen on val. last.pt is not chosen by masks." in said) == (miou is not None)
    assert f"python evaluator_seg.py --checkpoint {run.folder / named} --flip" in said
