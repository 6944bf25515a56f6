"""Steps of every stage, whole inference and whole trainings on the GPU."""

import gc
import os
import signal
from functools import partial

import pytest
import torch

from benchmarks import inference, scn_training, segmentation, training
from benchmarks.steps import Way, step
from datasets.files import InputError
from datasets.loading import Plan
from tests.utils.inference.test_collection_cams import assert_alike, inferred, small_collection
from utils.checkpoints.beginning import Beginning, ResumeSettings
from utils.checkpoints.training_state import TrainingState
from utils.inference import collection_cams
from utils.runs.interruption import Stopped
from utils.runs.options import RunSettings
from utils.training import loop
from utils.training.loop import Stage, drop_gradients, train
from utils.training.losses import READ_EVERY, LossReader
from utils.training.optimisers import sgd, trainable
from utils.training.training_options import LearningSettings

pytestmark = pytest.mark.gpu

STAGES = {
    "classifier": partial(training.Workload, batch=2, side=96, backbone="resnet18"),
    "superpixel network": partial(scn_training.Workload, batch=2, side=64),
    "segmentation network": partial(segmentation.Workload, batch=2, side=65, backbone="resnet18"),
}


def gradients(stage, precision, device):
    """The losses of a step and all gradients as one vector, on the CPU."""
    work = STAGES[stage](Way(precision), device=str(device))
    step(work)
    losses = torch.stack([v.detach() for v in work.objective(work.batch).values()]).cpu()
    return losses, torch.cat([p.grad.flatten() for p in trainable(work.learner)]).cpu()


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_in_float32(stage, device, as_on_a_gpu):
    losses, gradient = as_on_a_gpu(gradients, stage, "float32", device)
    expected_losses, expected = gradients(stage, "float32", "cpu")
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-6)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_in_bfloat16(stage, device, as_on_a_gpu):
    """docs/running.md states the bounds."""
    losses, gradient = as_on_a_gpu(gradients, stage, "bfloat16", device)
    expected_losses, expected = gradients(stage, "float32", "cpu")
    torch.testing.assert_close(losses[:1], expected_losses[:1], rtol=0.01, atol=0)
    assert torch.cosine_similarity(gradient, expected, dim=0) >= 0.99


def test_whole_inference(device, as_on_a_gpu):
    make = partial(inference.Workload, (47, 63), backbone="resnet18")
    expected = make(device="cpu").run_ours()
    found = as_on_a_gpu(make(device=str(device)).run_ours).cpu()
    assert expected.amax() > 0.5 and (found - expected).abs().max() <= 1e-4


def test_inference_of_a_collection(tmp_path, device, monkeypatch):
    """A GPU takes several photographs at a time."""
    collection = small_collection(tmp_path)
    expected, _ = inferred(collection, "cpu")
    for together in ((32, 2**20), (2, 2**20)):
        monkeypatch.setattr(collection_cams, "taken_together", lambda _, n=together: n)
        assert_alike(inferred(collection, str(device))[0], expected, 1e-4)


class Training:
    """Superpixel networks, a few steps long.

    Args:
        folder: of all runs.
        device: where.
        plan: how long.
        resuming: whether it goes on.
    """

    def __init__(self, folder, device, plan, resuming=None):
        work = scn_training.Workload(Way("float32"), 1, 32, device=str(device))
        self.work, self.plan, self.device, self.seen = work, plan, device, []
        self.optimizer = sgd([{"params": trainable(work.learner), "lr": 1e-2}], 0.9)
        taken = LearningSettings(lr=1e-2, power=0.5, momentum=0.9)
        self.stage = Stage(
            work.model, work.learner, work.objective, self.optimizer, lambda *_: None, taken
        )
        settings = RunSettings(experiments=str(folder))
        self.beginning = Beginning(settings, ResumeSettings(resuming, False, 0.0), {})

    def batches(self, step):
        """Another batch in every step, from the CPU as the loader's are."""
        batch = {name: value.cpu() for name, value in self.work.batch.items()}
        for number in range(step, self.plan.steps):
            self.seen.append(number)
            yield {**batch, "image": batch["image"].roll(number, 2)}

    def run(self):
        """Train; the weights on the CPU."""
        with self.beginning.open_run(self.device) as run:
            train(run, self.beginning, self.plan, self.batches, self.stage)
        return self.weights()

    def weights(self):
        """All that learn, as one vector."""
        return torch.cat([p.detach().flatten() for p in trainable(self.work.learner)]).cpu()


def test_a_training_that_was_stopped_goes_on(tmp_path, device, monkeypatch):
    plan = Plan(images=4, batch=1, epochs=2)
    whole = Training(tmp_path / "whole", device, plan).run()
    real = TrainingState.after_step

    def after_step(state, epoch, position):
        if position == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        real(state, epoch, position)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(TrainingState, "after_step", after_step)
        Training(tmp_path / "parts", device, plan).run()
    rest = Training(tmp_path / "parts", device, plan, resuming="")
    found = rest.run()
    assert rest.seen == [3, 4, 5, 6, 7]
    momenta = [s["momentum_buffer"] for s in rest.optimizer.state.values()]
    assert momenta and all(one.device.type == device.type for one in momenta)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)


def test_what_is_not_finite_is_skipped_and_stops_the_run(tmp_path, device, monkeypatch):
    # A CPU reads its losses in every step; here it does as a GPU.
    monkeypatch.setattr(loop, "LossReader", lambda *given: LossReader(*given[:3], READ_EVERY))
    attempt = Training(tmp_path, device, Plan(images=30, batch=1, epochs=1))
    before = attempt.weights()
    objective, dropped = attempt.stage.objective, []

    def with_nan(batch):
        losses = objective(batch)
        factor = float("nan") if attempt.seen[-1] == 7 else 1.0
        return {name: loss * factor for name, loss in losses.items()}

    def dropping(parameters, finite):
        drop_gradients(parameters, finite)
        dropped.append((finite, max(p.grad.abs().max() for p in parameters)))

    monkeypatch.setattr(loop, "drop_gradients", dropping)
    attempt.stage.objective = with_nan
    with pytest.raises(InputError, match="not finite at step 8 of epoch 1"):
        attempt.run()
    assert len(attempt.seen) == READ_EVERY
    assert [bool(finite) for finite, _ in dropped].count(False) == 1
    assert float(dropped[7][1]) == 0 < float(dropped[6][1])
    assert torch.isfinite(attempt.weights()).all() and (attempt.weights() != before).any()


def held(device):
    """The most bytes of tensors on a GPU since the last call; on a CPU those alive now."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return sum(one.untyped_storage().nbytes() for one in tensors)


def test_memory_does_not_grow(tmp_path, device, monkeypatch):
    monkeypatch.setattr(loop, "LossReader", lambda *given: LossReader(*given[:3], READ_EVERY))
    attempt = Training(tmp_path, device, Plan(images=200, batch=1, epochs=1))
    most = []

    def after_step(state, epoch, position):
        if position % 20 == 0:
            gc.collect()
            most.append(held(device))

    monkeypatch.setattr(TrainingState, "after_step", after_step)
    attempt.run()
    assert len(most) == 10 and max(most[2:]) <= 1.01 * most[1]
