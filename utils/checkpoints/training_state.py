"""The state of a training: what it needs to go on as if it had never stopped.

A run keeps one in `training.pt`, beside the weights it is there for (`last.pt`, `best.pt`).
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.files import InputError
from datasets.loading import Plan
from utils.checkpoints import files, weights
from utils.checkpoints.pickles import COPY_AGAIN
from utils.runs import distributed, options
from utils.runs.changes import HARMLESS, changed_options
from utils.runs.interruption import Stopped
from utils.runs.options import RunSettings
from utils.runs.run import EVALUATION, Run

FILE = "training.pt"

GO_ON = "the same command with --resume goes on"


@dataclass(frozen=True)
class ResumeSettings:
    """When the state of a training is saved, and from which one it goes on.

    Attributes:
        resume: None starts anew; a file or folder goes on from the state there, an empty string
            from that of the run itself.
        force: go on although options or data have changed.
        checkpoint_minutes: the state is saved that often, 0 for after every epoch only.
    """

    resume: str | None = None
    force: bool = False
    checkpoint_minutes: float = 15.0


def add_resume_options(parser: argparse.ArgumentParser) -> None:
    """When training state is saved, and how a training goes on from there."""
    group = parser.add_argument_group("stopping and resuming")
    group.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="go on where this run stopped, or from another training.pt; a run that has saved "
        "nothing yet starts at its beginning",
    )
    group.add_argument(
        "--force", action="store_true", help="resume although options or data have changed"
    )
    group.add_argument(
        "--checkpoint_minutes",
        type=options.not_negative,
        default=15.0,
        help="save the training state that often (and after every epoch; 0: only then). SIGTERM "
        "and Ctrl-C save it too",
    )


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
    """The state of one training: found at its start, taken up, and saved on the way.

    Args:
        settings: of the run; the state goes into its folder.
        resuming: whether and from where the training goes on.
        made_from: fingerprints of what it is made from, by name; see `also_made_from`.

    Attributes:
        content: of the file to go on from; None at a beginning.

    Raises:
        InputError: the file to go on from is missing, no training state, or was made with other
            options or data (unless forced).
    """

    def __init__(
        self, settings: RunSettings, resuming: ResumeSettings, made_from: Mapping[str, str]
    ) -> None:
        self.settings, self.resuming, self.made_from = settings, resuming, dict(made_from)
        self.path, self.content = settings.folder / FILE, None
        self._last = time.monotonic()
        if resuming.resume is None:
            return
        if settings.overwrite:
            raise InputError("--overwrite: removes what --resume needs; give one of them")
        found = self._find() if distributed.is_first() else None
        self.path, self.content = distributed.broadcast(found) or (self.path, None)
        self._refuse_changes(self.made_from)

    def also_made_from(self, more: Mapping[str, str]) -> None:
        """Fingerprints of what is known only after the start, such as networks that are built.

        Raises:
            InputError: the file to go on from was made with others (unless forced).
        """
        self.made_from |= more
        self._refuse_changes(more)

    def _find(self) -> tuple[Path, dict[str, Any]] | None:
        """The file to go on from and its content; None where nothing was saved yet."""
        named = self.resuming.resume
        path = Path(named) if named else self.settings.folder
        path = path / FILE if path.is_dir() or not named else path
        if not named and not path.is_file():
            if any(path.parent.glob("*.pt")):
                raise InputError(
                    f"{path}: no such file, so the run there cannot go on; give another --tag, or "
                    "--overwrite"
                )
            return None
        return path, read_state(path)

    def _refuse_changes(self, made_from: Mapping[str, str]) -> None:
        if self.content is None:
            return
        changes = changed_options(self.content, self.settings.options, made_from, HARMLESS)
        if changes and not self.resuming.force:
            raise InputError(
                f"{self.path}: the run was started otherwise: {'; '.join(changes)}. Give what it "
                "was started with, --force to go on all the same, or another --tag for a new run"
            )

    def open_run(self, device: torch.device) -> Run:
        """The run's folder, going on there if the state is the folder's own.

        Raises:
            InputError: the folder holds an evaluation; or see Run.
        """
        folder = self.settings.folder
        own = self.content is not None and self.path.resolve().parent == folder.resolve()
        # --overwrite would remove labels to learn from.
        if (folder / EVALUATION).is_file() and not own:
            raise InputError(
                f"{folder}: holds an evaluation, and a training has a folder of its own; give it "
                "another --tag"
            )
        # With another batch (--force) steps count otherwise; then no event is hidden.
        batch = self.settings.options.get("batch")
        same = own and self.content["options"].get("batch") == batch
        step = self.content["step"] if same else None
        return Run(self.settings, device, continues=own, first_step=step)

    def place(self, plan: Plan) -> tuple[int, int]:
        """The epoch that was under way, from 0, and how many of its steps are done.

        Raises:
            InputError: the training was longer.
        """
        if self.content is None:
            return 0, 0
        epoch, position = self.content["epoch"], self.content["position"]
        if epoch >= plan.epochs:
            raise InputError(
                f"{self.path}: is in epoch {epoch + 1}, which is more than is asked for; train "
                "longer"
            )
        return epoch, min(position, plan.steps_per_epoch)

    def take_up(
        self, run: Run, plan: Plan, learner: nn.Module, optimizer: Optimizer, losses: EpochLosses
    ) -> None:
        """Name what is to be saved, and give it the content of the file there is.

        Args:
            run: the training's; lists photographs that were skipped.
            plan: of the training.
            learner: the network without wrappers.
            optimizer: its momenta are saved.
            losses: of the epoch so far.

        Raises:
            InputError: the file is another network's, or damaged.
        """
        self.run, self.plan = run, plan
        self.learner, self.optimizer, self.losses = learner, optimizer, losses
        if self.content is not None:
            self._restore(self.content)

    def _restore(self, content: Mapping[str, Any]) -> None:
        if content.get("processes") != distributed.world_size():
            self.run.note(
                f"the run had {content.get('processes')} processes and has "
                f"{distributed.world_size()} now; results differ by rounding, and by batch "
                "statistics where these are learnt"
            )
        try:
            weights.fill(self.learner, content["model"], self.path, "the network to be trained")
            self._restore_momenta(content["optimizer"]["state"])
            self.losses.restore(content["losses"])
            self.run.skipped |= dict.fromkeys(map(str, content["skipped"]))
            states = content["random"]
            set_random_state(states[min(distributed.rank(), len(states) - 1)])
        except InputError:
            raise
        except Exception as error:  # a damaged state can make torch raise anything
            raise InputError(
                f"{self.path}: a damaged training state ({error!r:.200}); {COPY_AGAIN}"
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
            "options": dict(self.settings.options),
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
        seconds = 60 * self.resuming.checkpoint_minutes
        due = seconds > 0 and time.monotonic() - self._last > seconds
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


def read_state(path: Path) -> dict[str, Any]:
    """The content of a training state, its numbers and options checked.

    Raises:
        InputError: no training state, or damaged.
    """
    content = files.read(path)
    wanted = {"kind", "script", "options", "fingerprints", "epoch", "position", "model", "step"}
    if content.get("kind") != "training" or not wanted <= set(content):
        raise InputError(f"{path}: not a training state; --resume needs a run's {FILE}")
    try:
        for name in ("epoch", "position", "step"):
            content[name] = range(1 << 40)[content[name]]  # an integer, and no absurd one
        content["script"] = str(content["script"])
        for name in ("options", "fingerprints"):
            content[name] = json.loads(json.dumps(content[name]))
            content[name].items()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise InputError(f"{path}: a damaged training state; {COPY_AGAIN}") from None
    return content
