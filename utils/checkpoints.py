"""Checkpoint files: our own, and the published ones under their own names.

Everything is read with `weights_only=True`: no code in a file is ever executed.
"""

import io
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.classes import DATA, MAX_CLASSES, check_classes
from datasets.files import InputError, read_bytes, write_bytes
from networks.backbone import ResNetBackbone, build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.pickles import COPY_AGAIN, check_pickle

SHIPPED = DATA / "scn_bsds500.pt"
"""The superpixel network that comes with the project; data/scn_bsds500.md describes it."""

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
    """Write a checkpoint, whole or not at all, and wait until the disk holds it.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getvalue(), durable=True)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, tensors on the CPU.

    Raises:
        InputError: missing, truncated, not a checkpoint, or one that asks for code to be run.
    """
    data = read_bytes(path)
    _check_before_reading(data, path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0][:200]
        if "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds more than weights and is refused ({_refused(error)}); "
                "save it again as a plain state dict"
            ) from None
        raise InputError(f"{path}: not a checkpoint, or damaged ({reason}); {COPY_AGAIN}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError(
            f"{path}: truncated, or not a checkpoint ({reason}); {COPY_AGAIN}"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything; it has executed nothing
        raise InputError(
            f"{path}: not a checkpoint ({type(error).__name__}); {COPY_AGAIN}"
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    if not all(_is_real(tensor, len(data)) for tensor in _tensors(content)):
        raise InputError(f"{path}: holds more numbers than its size allows, refused; {COPY_AGAIN}")
    return dict(content)


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """All tensors in nested dicts, lists and tuples (which a file can nest, but not in a ring)."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)


def _is_real(tensor: Tensor, file_size: int) -> bool:
    """Whether a file of so many bytes can hold the numbers of a tensor.

    PyTorch 2.6 believes a file that claims more, and reads what lies behind it in memory.
    """
    try:
        return tensor.untyped_storage().nbytes() <= file_size
    except (NotImplementedError, RuntimeError):  # sparse and other kinds: no weights of ours
        return tensor.layout != torch.strided


def _check_before_reading(data: bytes, path: str | os.PathLike) -> None:
    """Refuse what would exhaust memory or crash torch's reader.

    Raises:
        InputError: a zip bomb, or a pickle that check_pickle refuses.
    """
    if data[:4] == b"PK\3\4":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > len(data):  # torch stores without compression
                raise InputError(
                    f"{path}: a file of {len(data)} bytes that unpacks to {unpacked}; refused"
                )
            # torch's own look into the archive: other zip readers can be shown another pickle.
            reader = torch._C.PyTorchFileReader(io.BytesIO(data))
            pickles = [io.BytesIO(reader.get_record("data.pkl"))]
        except (RuntimeError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            reason = str(error).split("\n")[0][:200]
            raise InputError(
                f"{path}: truncated, or not a checkpoint ({reason}); {COPY_AGAIN}"
            ) from None
    else:
        # The old format: magic number, version, machine, content, and keys, then the weights.
        pickles = [io.BytesIO(data)] * 5
    for file in pickles:
        if file.tell() < len(data):
            check_pickle(file, path)


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
    # Names that are no text are left out unprinted: printing a tensor can take for ever.
    named = {name: value for name, value in content.items() if type(name) is str}
    state = {n.removeprefix("module."): v for n, v in named.items() if isinstance(v, Tensor)}
    if not state:
        held = ", ".join(name[:40] for name in list(named)[:10])
        raise InputError(f"{path}: holds no weights, only {held or 'nothing'}")
    return state


def fill(model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike, what: str) -> None:
    """Load `state`, read from `path`, into `model`, called `what` in messages.

    Raises:
        InputError: names or shapes do not fit; says what was expected and what is held.
    """
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    strange = [n for n in state if n not in wanted]
    if missing or strange:
        parts = [f"{path}: not the weights of {what} ({len(wanted)} names)"]
        if missing:
            parts.append(f"lacks {len(missing)}, such as {missing[0]}")
        if strange:
            parts.append(f"holds {len(strange)} others, such as {strange[0][:80]}")
        raise InputError("; ".join([*parts, "name a file of this network"]))
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise InputError(f"{path}: {name} is no plain tensor")
        if value.shape != wanted[name].shape:
            raise InputError(
                f"{path}: {name} is {tuple(value.shape)}, but {what} needs "
                f"{tuple(wanted[name].shape)}"
            )
    try:
        model.load_state_dict({**wanted, **state})
    except RuntimeError as error:  # a type that cannot be converted, or no data behind the tensor
        reason = str(error).split("\n")[-1].strip()[:200]
        raise InputError(f"{path}: not usable as the weights of {what} ({reason})") from None


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
    fill(model, state, path, "the superpixel network (SCN)")


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
    if last is not None and last.ndim and len(last) != model.num_classes:
        raise InputError(
            f"{path}: trained for {len(last)} classes with background, "
            f"but the data set has {model.num_classes}"
        )
    kind = "a plain CAM network" if model.dcr is None else "the classification network"
    name = getattr(model.backbone, "name", type(model.backbone).__name__)
    fill(model, state, path, f"{kind} with backbone {name}")


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
    fill(model, state, path, f"torchvision's {model.name}")
    model.freeze_statistics()


@dataclass(frozen=True)
class Trained:
    """A trained classification network, ready for inference, and what its checkpoint says.

    Attributes:
        classifier: in evaluation mode.
        scn: the superpixel network it was trained with, or the one named; in evaluation mode.
        classes: foreground class names, or None where the checkpoint does not say.
        threshold: its best background threshold in training, or None.
        shipped_scn: the superpixel network is the shipped one, for want of another.
    """

    classifier: Classifier
    scn: SuperpixelNet
    classes: tuple[str, ...] | None
    threshold: float | None
    shipped_scn: bool = False


def open_trained(path: str | os.PathLike, scn_path: str | os.PathLike | None = None) -> Trained:
    """The networks in a checkpoint of a train_cls script, or in a published one with an SCN file.

    Published classifiers are ResNet-50s under their own names; they hold no superpixel network:
    `scn_path` should name the one they were trained with, else it is the shipped one.

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
    # A tensor can claim a size without holding it; the network built for it would hold it.
    if not 2 <= len(last) <= MAX_CLASSES + 1:
        raise InputError(
            f"{path}: a classifier of {len(last)} classes; 2 to {MAX_CLASSES + 1} work"
        )
    name, dcr, classes, threshold = _described(content, path)
    try:
        backbone = build_backbone(name)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    classifier = Classifier(backbone, len(last), dcr=dcr)
    _load_classifier_state(classifier, content, path)
    scn = SuperpixelNet()
    holds_scn = isinstance(content.get("scn"), Mapping)
    if scn_path is None and holds_scn:
        fill(scn, _weights(content["scn"], path), path, "the superpixel network (SCN)")
    else:
        load_scn(scn, SHIPPED if scn_path is None else scn_path)
    shipped = scn_path is None and not holds_scn
    return Trained(classifier.eval(), scn.eval(), classes, threshold, shipped)


def _described(
    content: Mapping[str, Any], path: str | os.PathLike
) -> tuple[str, bool, tuple[str, ...] | None, float | None]:
    """What a checkpoint says of its network: backbone, DCR or not, classes and threshold.

    Raises:
        InputError: one of them is something else.
    """
    dcr, classes, threshold = (content.get(name) for name in ("dcr", "classes", "threshold"))
    backbone = content.get("backbone", "resnet50")
    if type(backbone) is not str:
        raise InputError(f"{path}: 'backbone' is no name")
    if dcr is not None and type(dcr) is not bool:
        raise InputError(f"{path}: 'dcr' is neither true nor false")
    if classes is not None:
        if not isinstance(classes, list | tuple) or not all(type(c) is str for c in classes):
            raise InputError(f"{path}: 'classes' is no list of names")
        classes = check_classes(classes, path)
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        raise InputError(f"{path}: 'threshold' is no number from 0 to 1")
    return backbone[:40], dcr is not False, classes, threshold
