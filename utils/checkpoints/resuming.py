"""Training states: what a training needs to go on as if it had never stopped.

A run keeps one in `training.pt`, beside the weights it is there for (`last.pt`, `best.pt`).
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.files import InputError
from datasets.loading import Plan
from utils.checkpoints import files, weights
from utils.checkpoints.pickles import COPY_AGAIN
from utils.runs import distributed
from utils.runs.interruption import Stopped
from utils.runs.options import not_negative
from utils.runs.run import Run, option_values

FILE = "training.pt"

GO_ON = "the same command with --resume goes on"

HARMLESS = frozenset(
    {
        *("experiments", "tag", "overwrite", "resume", "force", "checkpoint_minutes", "debug"),
        *("device", "workers", "skip_bad", "scn", "labels_file", "root", "sal_root"),
        *("voc_root", "voc_sal_root", "coco_root", "coco_sal_root"),
    }
)
"""Options that do not alter a result. What files hold counts instead of their names: see
`fingerprint`."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """When a training keeps its state, and how it goes on from there."""
    group = parser.add_argument_group("stopping and going on")
    group.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="go on where this run stopped, or from another training.pt; a run that has kept "
        "nothing yet starts at its beginning",
    )
    group.add_argument(
        "--force", action="store_true", help="resume although options or data have changed"
    )
    group.add_argument(
        "--checkpoint_minutes",
        type=not_negative,
        default=15.0,
        help="keep the training's state that often (and after every epoch; 0: only then). SIGTERM "
        "and Ctrl-C keep it too",
    )


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


def changed_options(
    before: Mapping[str, Any],
    options: argparse.Namespace,
    fingerprints: Mapping[str, str],
    harmless: Set[str],
) -> list[str]:
    """What differs from a run that was started before, in words.

    Args:
        before: its `script`, `options` and `fingerprints`.
        options: those of now.
        fingerprints: those of now.
        harmless: options that may differ.
    """
    changes = []
    if before["script"] != Path(sys.argv[0]).name:
        changes.append(f"it is of {before['script']}")
    then, now = before["options"], option_values(options)
    for name in sorted({*then, *now} - harmless):
        if then.get(name) != now.get(name):
            changes.append(f"--{name} was {then.get(name)}, is {now.get(name)}")
    for name, value in fingerprints.items():
        if before["fingerprints"].get(name) != value:
            changes.append(f"{name}: the content was another")
    return changes


@dataclass(frozen=True)
class Saved:
    """A training state that was read.

    Attributes:
        path: of its file.
        content: of the file; see `StateKeeper.keep`.
    """

    path: Path
    content: dict[str, Any]

    def place(self, plan: Plan) -> tuple[int, int]:
        """The epoch that was under way, from 0, and how many of its steps are done.

        Raises:
            InputError: the training was longer.
        """
        epoch, position = self.content["epoch"], self.content["position"]
        if epoch >= plan.epochs:
            raise InputError(f"{self.path}: is in epoch {epoch + 1}; give more --epochs than that")
        return epoch, min(position, plan.steps_per_epoch)

    def refuse_changes(self, options: argparse.Namespace, fingerprints: Mapping[str, str]) -> None:
        """Refuse to go on with other options or data, unless forced.

        Raises:
            InputError: naming every option that differs.
        """
        changes = changed_options(self.content, options, fingerprints, HARMLESS)
        if changes and not options.force:
            raise InputError(
                f"{self.path}: the run was started otherwise: {'; '.join(changes)}. Give what it "
                "was started with, --force to go on all the same, or another --tag for a new run"
            )


def find(options: argparse.Namespace) -> Saved | None:
    """The state to go on from: None without --resume, or where nothing was kept yet.

    Raises:
        InputError: the file is missing or no training state, or options contradict each other.
    """
    if options.resume is None:
        return None
    if options.overwrite:
        raise InputError("--overwrite: removes what --resume needs; give one of them")
    saved = _read(options) if distributed.is_first() else None
    return distributed.shared(saved)


def _read(options: argparse.Namespace) -> Saved | None:
    path = Path(options.resume or Path(options.experiments) / options.tag)
    path = path / FILE if path.is_dir() or not options.resume else path
    if not options.resume and not path.is_file():
        if any(path.parent.glob("*.pt")):
            raise InputError(
                f"{path}: no such file, so the run there cannot go on; give another --tag, or "
                "--overwrite"
            )
        return None
    content = files.read(path)
    wanted = {"kind", "script", "options", "fingerprints", "epoch", "position", "model", "step"}
    if content.get("kind") != "training" or not wanted <= set(content):
        raise InputError(f"{path}: no state of a training; --resume needs a run's {FILE}")
    try:
        for name in ("epoch", "position", "step"):
            content[name] = range(1 << 40)[content[name]]  # an integer, and no absurd one
        content["script"] = str(content["script"])
        for name in ("options", "fingerprints"):
            content[name] = json.loads(json.dumps(content[name]))
            content[name].items()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise InputError(f"{path}: a damaged training state; {COPY_AGAIN}") from None
    return Saved(path, content)


def open_run(options: argparse.Namespace, device: torch.device, saved: Saved | None) -> Run:
    """The run's folder, going on there if the state is the folder's own."""
    folder = Path(options.experiments) / options.tag
    own = saved is not None and saved.path.resolve().parent == folder.resolve()
    # With other options (--force) steps count otherwise; then nothing is hidden.
    same = own and saved.content["options"].get("batch") == options.batch
    return Run(options, device, continues=own, first_step=saved.content["step"] if same else None)


class StateKeeper:
    """Keeps a training's state after epochs, every some minutes, and when it is asked to stop.

    Args:
        run: the state goes into its folder; its options are kept too.
        plan: of the training.
        fingerprints: of what the training is made from.
        learner: the network without wrappers.
        optimizer: its momenta are kept.
        losses: `state()` and `restore(state)` of the epoch's losses so far.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        fingerprints: Mapping[str, str],
        learner: nn.Module,
        optimizer: Optimizer,
        losses: Any,  # noqa: ANN401
    ) -> None:
        self.run, self.plan, self.fingerprints = run, plan, dict(fingerprints)
        self.learner, self.optimizer, self.losses = learner, optimizer, losses
        self._seconds = run.options.checkpoint_minutes * 60
        self._last = time.monotonic()

    def keep(self, epoch: int, position: int) -> None:
        """Write the state in which `position` steps of `epoch` are done."""
        random_states = distributed.gather(random_state())
        skipped = distributed.gather(list(self.run.skipped))
        self._last = time.monotonic()
        if not distributed.is_first():
            return
        content = {
            "kind": "training",
            "script": Path(sys.argv[0]).name,
            "options": option_values(self.run.options),
            "fingerprints": self.fingerprints,
            "processes": distributed.processes(),
            "epoch": epoch,
            "position": position,
            "step": epoch * self.plan.steps_per_epoch + position,
            "plan": vars(self.plan),
            "model": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses.state(),
            "skipped": sorted({message for part in skipped for message in part}),
            "random": random_states,
        }
        files.save(self.run.folder / FILE, content)

    def after_step(self, epoch: int, position: int) -> None:
        """Keep the state if it is time; stop if any process was asked to.

        Raises:
            Stopped: after the state was kept.
        """
        due = self._seconds > 0 and time.monotonic() - self._last > self._seconds
        wished, due = distributed.maximum(self.run.interruption.wished, int(due))
        if wished or due:
            self.losses.read(epoch * self.plan.steps_per_epoch + position - 1)
            self.keep(epoch, position)
        if wished:
            distributed.maximum(0)  # none leaves before the first has written
            raise Stopped(
                wished,
                f"{self.run.folder / FILE} holds everything up to step {position} of epoch "
                f"{epoch + 1}; {GO_ON}",
            )

    def restore(self, saved: Saved) -> None:
        """Take a state as one's own.

        Raises:
            InputError: it is another network's, or damaged.
        """
        content, path = saved.content, saved.path
        if content.get("processes") != distributed.processes():
            self.run.say(
                f"note: the run had {content.get('processes')} processes and has "
                f"{distributed.processes()} now; results differ by rounding, and by batch "
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
