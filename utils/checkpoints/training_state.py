"""The state of a training: what it needs to go on as if it had never stopped.

A run keeps one in `training.pt`, beside the weights it is there for (`last.pt`, `best.pt`).
"""

import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.files import InputError
from datasets.loading import Plan
from utils.checkpoints import files, weights
from utils.checkpoints.beginning import FILE, Beginning
from utils.checkpoints.pickles import COPY_AGAIN
from utils.runs import distributed
from utils.runs.interruption import Stopped
from utils.runs.run import Run

GO_ON = "the same command with --resume goes on"


class EpochLosses(Protocol):
    """The losses of an epoch so far, as utils.training.losses.LossReader holds them."""

    def state(self) -> dict[str, Any]: ...  # noqa: D102
    def restore(self, state: Mapping[str, Any]) -> None: ...  # noqa: D102
    def read(self, step: int) -> None: ...  # noqa: D102


def random_state() -> dict[str, Any]:
    """The states of all random number generators, as a checkpoint can hold them."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Undo `random_state`; GPUs that were not there then keep their states."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class TrainingState:
    """The state of one training, as it goes on; saved on the way.

    Args:
        beginning: the state that was found, if any, whose content is taken up.
        run: the training's; the file goes into its folder, and it lists photographs skipped.
        plan: of the training.
        learner: the network without wrappers.
        optimizer: its momenta are saved.
        losses: of the epoch so far.

    Raises:
        InputError: the file to go on from is another network's, or damaged.
    """

    def __init__(
        self,
        beginning: Beginning,
        run: Run,
        plan: Plan,
        learner: nn.Module,
        optimizer: Optimizer,
        losses: EpochLosses,
    ) -> None:
        self.run, self.plan, self.made_from = run, plan, beginning.made_from
        self.learner, self.optimizer, self.losses = learner, optimizer, losses
        self._seconds = 60 * beginning.resuming.checkpoint_minutes
        self._last = time.monotonic()
        if beginning.content is not None:
            self._restore(beginning.content, beginning.path)

    def _restore(self, content: Mapping[str, Any], path: Path) -> None:
        if content.get("processes") != distributed.world_size():
            self.run.note(
                f"the run had {content.get('processes')} processes and has "
                f"{distributed.world_size()} now; results differ by rounding, and by batch "
                "statistics where these are learnt"
            )
        try:
            weights.fill(self.learner, content["model"], path, "the network to be trained")
            self._restore_momenta(content["optimizer"]["state"])
            self.losses.restore(content["losses"])
            self.run.skipped |= dict.fromkeys(map(str, content["skipped"]))
            states = content["random"]
            set_random_state(states[min(distributed.rank(), len(states) - 1)])
        except InputError:
            raise
        except Exception as error:  # a damaged state can make torch raise anything
            raise InputError(
                f"{path}: a damaged training state ({error!r:.200}); {COPY_AGAIN}"
            ) from None

    def _restore_momenta(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        """Take momenta and step counts; learning rates and decay are the options'."""
        groups = self.optimizer.state_dict()["param_groups"]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, values in state.items():
            for name, value in values.items():
                fits = not isinstance(value, Tensor) or value.ndim == 0
                if not fits and value.shape != parameters[number].shape:
                    raise ValueError(f"{name} of parameter {number} is {tuple(value.shape)}")
        self.optimizer.load_state_dict({"state": dict(state), "param_groups": groups})

    def save(self, epoch: int, position: int) -> None:
        """Write the state in which `position` steps of `epoch` are done.

        Raises:
            InputError: it cannot be written.
        """
        random_states = distributed.gather(random_state())
        skipped = distributed.gather(list(self.run.skipped))
        self._last = time.monotonic()
        if not distributed.is_first():
            return
        content = {
            "kind": "training",
            "script": Path(sys.argv[0]).name,
            "options": dict(self.run.settings.options),
            "fingerprints": self.made_from,
            "processes": distributed.world_size(),
            "epoch": epoch,
            "position": position,
            "step": epoch * self.plan.steps_per_epoch + position,
            "model": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses.state(),
            "skipped": sorted({message for part in skipped for message in part}),
            "random": random_states,
        }
        files.save(self.run.folder / FILE, content)

    def after_step(self, epoch: int, position: int) -> None:
        """Save the state if it is time; stop if any process was asked to.

        Raises:
            Stopped: after the state was saved.
        """
        due = 0 < self._seconds < time.monotonic() - self._last
        wished, due = distributed.all_reduce_max(self.run.interruption.wished, int(due))
        if wished or due:
            self.losses.read(epoch * self.plan.steps_per_epoch + position - 1)
            self.save(epoch, position)
        if wished:
            distributed.barrier()  # none leaves before the first has written
            raise Stopped(
                wished,
                f"{self.run.folder / FILE} holds everything up to step {position} of epoch "
                f"{epoch + 1}; {GO_ON}",
            )
