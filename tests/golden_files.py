"""Reading tests/golden: reference outputs, and networks filled with the weights they belong to."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

from utils.checkpoints.weights import PUBLISHED_NAMES

GOLDEN = Path(__file__).parent / "golden"

_spec = importlib.util.spec_from_file_location("formula", GOLDEN / "formula.py")
formula = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(formula)


def golden(name):
    """The arrays of golden/<name>.npz as tensors."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def _filled(names_file, prefix):
    names = json.loads((GOLDEN / names_file).read_text())
    return {
        name: torch.from_numpy(np.asarray(formula.fill(prefix + name, shape)))
        for name, shape in names.items()
    }


def published_scn_state():
    return _filled("scn_names.json", "scn.")


def published_classifier_state():
    return _filled("classifier_names.json", "cls.")


def published_deeplab_state():
    """Under the names of deeplab_v2_names.json, `base.*`."""
    names = json.loads((GOLDEN / "deeplab_v2_names.json").read_text())
    state = {name: torch.from_numpy(np.asarray(formula.fill(name, names[name]))) for name in names}
    for name in names:
        if name.endswith("increase.bn.weight"):
            state[name] *= 0.3
    return state


def filled_classifier_state():
    """The golden weights under our names."""

    def ours(name):
        begin = next(b for b in PUBLISHED_NAMES if name.startswith(b))
        return PUBLISHED_NAMES[begin] + name.removeprefix(begin)

    return {ours(name): value for name, value in published_classifier_state().items()}
