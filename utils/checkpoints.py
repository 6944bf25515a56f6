"""Checkpoint files: our own, and the published ones under their own names.

Everything is read with `weights_only=True`: no code in a file is ever executed.
"""

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.files import InputError, read_bytes, write_bytes
from networks.backbone import ResNetBackbone, build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet

PUBLISHED_NAMES = {
    "model.": "backbone.",
    "get_qfeats.": "dcr.embed.",
    "x4_feats.0.": "dcr.kernels4.reduce.",
    "x5_feats.0.": "dcr.kernels5.reduce.",
    "get_tran_conv4.": "dcr.kernels4.kernels.",
    "get_tran_conv5.": "dcr.kernels5.kernels.",
    "ala1.0.": "dcr.gate4.squeeze.",
    "ala1.2.": "dcr.gate4.excite.",
    "ala2.0.": "dcr.gate5.squeeze.",
    "ala2.2.": "dcr.gate5.excite.",
    "classifier.0.": "classifier.",
}
"""How the names in published checkpoints of this method begin, and the same in `Classifier`."""


def save(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getvalue())


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, tensors on the CPU.

    Raises:
        InputError: missing, truncated, not a checkpoint, or one that asks for code to be run.
    """
    data = read_bytes(path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        if "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds more than weights and is refused ({_refused(error)}); "
                "save it again as a plain state dict"
            ) from None
        raise InputError(f"{path}: not a checkpoint, or damaged ({reason})") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: truncated, or not a checkpoint ({reason})") from None
    except Exception as error:  # a damaged pickle can raise anything; it has executed nothing
        raise InputError(f"{path}: not a checkpoint ({type(error).__name__})") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return dict(content)


def _refused(error: Exception) -> str:
    """What torch names as refused in its long message."""
    lines = [line.strip()[:200] for line in str(error).split("\n") if "GLOBAL" in line]
    return lines[0]


def _numpy_scalars() -> list:
    """What a score kept as a numpy number pickles as; it runs nothing."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [
        np.dtype,
        *dtypes,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
    ]


def _weights(content: Mapping[str, Any], path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a checkpoint's content, without DataParallel's `module.`.

    Raises:
        InputError: there is none.
    """
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {str(n).removeprefix("module."): v for n, v in content.items() if isinstance(v, Tensor)}
    if not state:
        raise InputError(
            f"{path}: holds no weights, only {', '.join(map(str, content)) or 'nothing'}"
        )
    return state


def _fill(
    model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike, what: str
) -> None:
    """Load `state` into `model`; a misfit is answered with what was expected and what is held."""
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    strange = [n for n in state if n not in wanted]
    if missing or strange:
        parts = [f"{path}: not the weights of {what} ({len(wanted)} names)"]
        if missing:
            parts.append(f"lacks {len(missing)}, such as {missing[0]}")
        if strange:
            parts.append(f"holds {len(strange)} others, such as {strange[0]}")
        raise InputError("; ".join(parts))
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"{path}: {name} is {tuple(value.shape)}, but {what} needs "
                f"{tuple(wanted[name].shape)}"
            )
    model.load_state_dict({**wanted, **state})


def load_scn(model: SuperpixelNet, path: str | os.PathLike) -> None:
    """Load a superpixel network: ours, the BSDS500 release or the method's release.

    The BSDS500 release (a dict with `state_dict`) was trained on differently normalised images;
    the model then converts its input.

    Raises:
        InputError: the file does not hold such weights.
    """
    content = read(path)
    state = _weights(content, path)
    model.input_scale.fill_(1)
    model.input_shift.zero_()
    if "input_scale" not in state:
        state |= {"input_scale": model.input_scale, "input_shift": model.input_shift}
        if "state_dict" in content:
            model.expect_bsds_normalisation()
    _fill(model, state, path, "the superpixel network (SCN)")


def load_classifier(model: Classifier, path: str | os.PathLike) -> None:
    """Load a classification network: ours, or one under the published names.

    Raises:
        InputError: the file does not hold such weights, or those of another backbone or number
            of classes.
    """
    content = read(path)
    _load_classifier_state(model, content, path)


def _load_classifier_state(
    model: Classifier, content: Mapping[str, Any], path: str | os.PathLike
) -> None:
    state = _weights(content, path)
    if any(name.startswith("model.") for name in state):
        state = {_our_name(name): value for name, value in state.items()}
    last = state.get("classifier.weight")
    if last is not None and len(last) != model.num_classes:
        raise InputError(
            f"{path}: trained for {len(last)} classes with background, "
            f"but the data set has {model.num_classes}"
        )
    kind = "a plain CAM network" if model.dcr is None else "the classification network"
    name = getattr(model.backbone, "name", type(model.backbone).__name__)
    _fill(model, state, path, f"{kind} with backbone {name}")


def _our_name(published: str) -> str:
    for theirs, ours in PUBLISHED_NAMES.items():
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    return published


def load_backbone(model: ResNetBackbone, path: str | os.PathLike) -> None:
    """Load a torchvision ResNet file (such as resnet50-19c8e375.pth) and freeze its statistics.

    Raises:
        InputError: the file does not hold this backbone's weights.
    """
    state = _weights(read(path), path)
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    _fill(model, state, path, f"torchvision's {model.name}")
    model.freeze_statistics()


@dataclass(frozen=True)
class Trained:
    """A trained classification network, ready for inference, and what its checkpoint says.

    Attributes:
        classifier: in evaluation mode.
        scn: the superpixel network it was trained with, or the one named; in evaluation mode.
        classes: foreground class names, or None where the checkpoint does not say.
        threshold: its best background threshold in training, or None.
    """

    classifier: Classifier
    scn: SuperpixelNet
    classes: tuple[str, ...] | None
    threshold: float | None


def open_trained(path: str | os.PathLike, scn_path: str | os.PathLike | None = None) -> Trained:
    """The networks in a checkpoint of a train_cls script, or in a published one with an SCN file.

    Published classifiers are ResNet-50s under their own names; they hold no superpixel network,
    so `scn_path` must name one.

    Raises:
        InputError: not such a checkpoint, or no superpixel network.
    """
    content = read(path)
    if content.get("kind") == "scn":
        raise InputError(f"{path}: a superpixel network; a classifier of train_cls_* is needed")
    weights = _weights(content, path)
    last = weights.get("classifier.weight", weights.get("classifier.0.weight"))
    if last is None or last.ndim != 4:
        raise InputError(f"{path}: holds no classification network (no classifier.weight)")
    try:
        backbone = build_backbone(content.get("backbone", "resnet50"))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    classifier = Classifier(backbone, len(last), dcr=content.get("dcr", True))
    _load_classifier_state(classifier, content, path)
    scn = SuperpixelNet()
    if scn_path is not None:
        load_scn(scn, scn_path)
    elif isinstance(content.get("scn"), Mapping):
        _fill(scn, content["scn"], path, "the superpixel network (SCN)")
    else:
        raise InputError(f"{path}: holds no superpixel network; name one with --scn")
    classes = content.get("classes")
    return Trained(
        classifier.eval(),
        scn.eval(),
        None if classes is None else tuple(map(str, classes)),
        content.get("threshold"),
    )
