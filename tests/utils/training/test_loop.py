import argparse
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._utils import ExceptionWrapper

from datasets.files import InputError
from datasets.loading import Plan
from utils.checkpoints.beginning import Beginning, ResumeSettings
from utils.runs.options import RunSettings
from utils.runs.run import Run, duration
from utils.runs.start import start
from utils.training import loop
from utils.training.loop import Stage, backward, drop_gradients, in_steps, train
from utils.training.losses import LossReader
from utils.training.optimisers import sgd
from utils.training.training_options import LearningSettings


def make_run(folder: Path, **changes) -> Run:
    return Run(RunSettings(experiments=str(folder), **changes), torch.device("cpu"))


def train_in(folder: Path, plan: Plan, batches, stage: Stage) -> None:
    settings = RunSettings(experiments=str(folder))
    beginning = Beginning(settings, ResumeSettings(checkpoint_minutes=0.0), {})
    device = torch.device("cpu")
    train(beginning.open_run(device), beginning, plan, batches, stage)


def stage_of(model, objective, after_epoch):
    learning = LearningSettings(lr=0.1, power=0.5)
    optimizer = sgd([{"params": list(model.parameters()), "lr": learning.lr}], learning.momentum)
    return Stage(model, model, objective, optimizer, after_epoch, learning)


def test_the_loop_minimises_and_reports_means(tmp_path):
    torch.manual_seed(0)
    model, target = nn.Linear(3, 1), torch.tensor([[1.0, -2.0, 3.0]])
    plan = Plan(images=8, batch=4, epochs=20)
    means = []

    def objective(batch):
        loss = (model(batch["x"]) - batch["x"] @ target.T).square().mean()
        return {"loss": loss, "twice": 2 * loss}

    batches = [{"x": torch.randn(4, 3)} for _ in range(plan.steps)]
    stage = stage_of(model, objective, lambda epoch, losses: means.append(losses))
    train_in(tmp_path, plan, lambda step: batches[step:], stage)
    assert len(means) == 20
    assert means[-1]["loss"] < 0.1 * means[0]["loss"]
    assert means[3]["twice"] == pytest.approx(2 * means[3]["loss"])


@pytest.mark.parametrize("clip", [None, 0.5])
def test_every_step_by_hand(tmp_path, clip):
    """Clipped gradients, rates that rise, then decay every two steps, momentum; in train mode."""
    model = nn.Linear(2, 1, bias=False)
    inputs = torch.randn(6, 1, 2)
    weight, velocity, seen = model.weight.detach().clone(), torch.zeros(1, 2), []
    expected = []
    for step, x in enumerate(inputs):
        gradient = 2 * (weight @ x.T) * x
        if clip is not None:
            gradient = gradient * min(1, clip / gradient.norm())
        velocity = 0.8 * velocity + gradient
        rate = 0.3 * min(1, (step + 1) / 3) * (1 - step // 2 * 2 / 6) ** 0.9
        weight = weight - rate * velocity
        expected.append(weight)

    def objective(batch):
        assert model.training
        seen.append(model.weight.detach().clone())
        return {"loss": model(batch["x"]).square().sum()}

    learning = LearningSettings(lr=0.3, power=0.9, warmup=2, momentum=0.8, clip=clip)
    optimizer = sgd([{"params": [model.weight], "lr": learning.lr}], learning.momentum)
    stage = Stage(
        model, model, objective, optimizer, lambda *_: model.eval(), learning, decay_every=2
    )
    batches = [{"x": x} for x in inputs]
    train_in(tmp_path, Plan(images=3, batch=1, epochs=2), lambda step: batches[step:], stage)
    seen.append(model.weight.detach())
    torch.testing.assert_close(torch.stack(seen[1:]), torch.stack(expected))


def test_accumulated_parts_give_the_gradient_of_the_batch(tmp_path):
    torch.manual_seed(0)
    batch = {"x": torch.randn(5, 3)}
    gradients = []
    for parts in (1, 2, 5, 9):
        torch.manual_seed(1)
        model = nn.Linear(3, 1)

        def objective(part, model=model):
            return {"loss": model(part["x"]).square().mean()}

        stage = stage_of(model, objective, lambda *_: None)
        stage.learning = replace(stage.learning, accumulate=parts)
        losses = backward(stage, batch)
        gradients.append((model.weight.grad, losses["loss"]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


FULL = "CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has .."


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_gpu_is_answered_with_the_options_that_help(wrapped, monkeypatch, capsys):
    """Also under DataParallel, which wraps what its threads raise."""

    def main(_):
        try:
            raise torch.OutOfMemoryError(FULL)
        except torch.OutOfMemoryError:
            if wrapped:
                ExceptionWrapper(where="in replica 1 on device 1").reraise()
            raise

    parser = argparse.ArgumentParser()
    parser.add_argument("--debug", action="store_true")
    monkeypatch.setattr("sys.argv", ["train"])
    with pytest.raises(SystemExit) as stop:
        start(main, parser)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert "CUDA out of memory)" in error
    assert "--accumulate" in error and "--crop" in error and "--amp" in error


def test_a_warm_up_that_never_ends_is_noted(tmp_path, capsys):
    model = nn.Linear(1, 1)

    def objective(batch):
        return {"loss": model(batch["x"]).sum()}

    for warmup, noted in ((1, False), (2, True)):
        stage = stage_of(model, objective, lambda epoch, losses: None)
        stage.learning = replace(stage.learning, warmup=warmup)
        batches = [{"x": torch.ones(2, 1)}] * 2
        train_in(tmp_path / str(warmup), Plan(4, 2, 1), lambda _, b=batches: b, stage)
        assert ("so --lr is never reached;" in capsys.readouterr().out) == noted


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = nn.Linear(1, 1)
    epochs = []

    def objective(batch):
        return {"loss": (model(batch["x"]) * batch["factor"]).sum()}

    factors = [1.0, 1.0, 1.0, float("nan")]
    batches = [{"x": torch.ones(2, 1), "factor": torch.full((2, 1), f)} for f in factors]
    stage = stage_of(model, objective, lambda epoch, losses: epochs.append(epoch))
    with pytest.raises(
        InputError, match=r"step 2 of epoch 2 \(loss nan.*\); last finite: loss [-\d]"
    ):
        train_in(tmp_path, Plan(4, 2, 2), lambda _: batches, stage)
    assert epochs == [0]
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("bad", range(5))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_no_weight_before_it_is_read(tmp_path, monkeypatch, bad, value):
    """As on a GPU, where losses are read every some steps: here in threes, then the last two."""
    monkeypatch.setattr(loop, "LossReader", partial(every_third, LossReader))
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    seen = []

    def objective(batch):
        seen.append([p.detach().clone() for p in model.parameters()])
        return {"loss": (model(batch["x"]) * batch["factor"]).sum()}

    batches = [{"x": torch.ones(2, 1), "factor": torch.ones(2, 1)} for _ in range(5)]
    batches[bad]["factor"] *= value
    stage = stage_of(model, objective, lambda *_: None)
    with pytest.raises(InputError, match=f"not finite at step {bad + 1} of epoch 1"):
        train_in(tmp_path, Plan(10, 2, 1), lambda _: batches, stage)
    assert len(seen) == (3 if bad < 3 else 5)
    seen.append(list(model.parameters()))
    assert all(torch.isfinite(p).all() for step in seen for p in step)
    for step, (before, after) in enumerate(pairwise(seen)):
        moved = not all(map(torch.equal, before, after))
        # A reading that ends the run comes before its step.
        assert moved == (step != bad and step != (2 if bad < 3 else -1))


def every_third(reader, run, plan, optimizer, _):
    return reader(run, plan, optimizer, every=3)


@pytest.mark.parametrize("finite", [True, False])
def test_gradients_are_dropped_whole_or_kept_bit_for_bit(finite):
    parameters = [nn.Parameter(torch.zeros(n)) for n in (4, 1, 2)]
    gradient = torch.tensor([1e-45, -0.0, float("nan"), float("inf")])
    parameters[0].grad = gradient.clone()
    parameters[1].grad = torch.ones(1, dtype=torch.float32)
    drop_gradients(parameters, torch.tensor(finite))
    expected = gradient if finite else torch.zeros(4)
    assert torch.equal(parameters[0].grad.view(torch.int32), expected.view(torch.int32))
    assert parameters[1].grad.item() == finite and parameters[2].grad is None


def test_dropping_gradients_reads_nothing_from_the_device():
    """A tensor on the meta device has no values: whoever asks for one gets an error."""
    parameter = nn.Parameter(torch.zeros(3, device="meta"))
    parameter.grad = torch.zeros(3, device="meta")
    finite = torch.zeros((), dtype=torch.bool, device="meta")
    with pytest.raises(RuntimeError):
        bool(finite)
    drop_gradients([parameter], finite)
    assert parameter.grad.shape == (3,)


def test_an_unreadable_photograph_ends_in_its_message(tmp_path):
    model = nn.Linear(1, 1)
    stage = stage_of(model, lambda batch: {}, lambda *_: None)
    with pytest.raises(InputError, match=r"^a\.jpg: the file is empty$"):
        train_in(tmp_path, Plan(1, 1, 1), lambda _: [{"error": "a.jpg: the file is empty"}], stage)


def test_a_folder_is_not_overwritten_unasked(tmp_path):
    with make_run(tmp_path) as run:
        (run.folder / "best.pt").write_bytes(b"old")
        (run.folder / "pseudo_labels" / "0.1").mkdir(parents=True)
    with pytest.raises(InputError, match="--tag, or --overwrite"):
        make_run(tmp_path)
    with make_run(tmp_path, overwrite=True) as run:
        names = {path.name.split(".out")[0] for path in run.folder.iterdir()}
    assert names == {"options.json", "log.txt", "events"}


def test_a_run_that_failed_at_its_start_does_not_block_its_tag(tmp_path):
    with pytest.raises(InputError, match="a.jpg"), make_run(tmp_path) as run:
        raise InputError("a.jpg: the file is empty")
    assert "ended: a.jpg: the file is empty" in (run.folder / "log.txt").read_text()
    with make_run(tmp_path):
        pass
    with pytest.raises(InputError, match="--tag"):
        make_run(tmp_path, tag="")


def test_a_run_goes_on_without_tensorboardx(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with make_run(tmp_path) as run:
        run.scalars({"loss": 1.0}, 0)
    assert "note: tensorboardX is not installed: no events are written" in capsys.readouterr().out
    assert {path.name for path in run.folder.iterdir()} == {"options.json", "log.txt"}


def test_plan():
    plan = Plan(images=35, batch=16, epochs=3)
    assert plan.steps_per_epoch == 2 and plan.steps == 6
    assert Plan(images=3, batch=16, epochs=2).steps_per_epoch == 1
    assert in_steps(Plan(9, 4, 1)) == "1 epoch of 2 steps"
    assert in_steps(Plan(3, 4, 2)) == "2 epochs of 1 step (of fewer photographs than --batch)"


def test_duration():
    assert [duration(s) for s in (7, 185, 3723)] == ["7 s", "3 min 05 s", "1 h 02 min"]
