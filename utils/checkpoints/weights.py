"""Checkpoint files: our own, and the published ones under their own names.

Everything is read with `weights_only=True`: no code in a file is ever executed.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from datasets.files import InputError
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from networks.trunk import Backbone
from utils.checkpoints.files import read

Built = TypeVar("Built")
Network = TypeVar("Network", bound=nn.Module)

SMALL_ENOUGH = 10**8
"""Weights that a network may have whatever the file that names it holds: 0.4 GB."""

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


def weights_in(content: Mapping[str, Any], path: str | os.PathLike) -> dict[str, Tensor]:
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


def refuse_training_state(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Refuse what --resume takes where a network is to be read.

    Raises:
        InputError: the content is a training state's.
    """
    if content.get("kind") == "training":
        raise InputError(
            f"{path}: a training state, which only --resume takes; name the last.pt beside it"
        )


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
            raise InputError(f"{path}: {name} is not a plain tensor")
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
    refuse_training_state(content, path)
    state = weights_in(content, path)
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
    refuse_training_state(content, path)
    fill_classifier(model, content, path)


def fill_classifier(model: Classifier, content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Give a classifier the weights in a checkpoint's content, under our names or published ones.

    Raises:
        InputError: they are another network's, or of another number of classes.
    """
    state = weights_in(content, path)
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


def built(build: Callable[[], Built], named_by: str | os.PathLike) -> Built:
    """A network that a file or an option names, or what is known of it.

    Args:
        build: makes it.
        named_by: the file or the option, for messages.

    Raises:
        InputError: there is no such network, or it needs a package that is missing.
    """
    try:
        return build()
    except (ValueError, ImportError) as error:
        raise InputError(f"{named_by}: {error}") from None


def built_from_file(build: Callable[[], Network], path: str | os.PathLike) -> Network:
    """A network that a file names, unless it is large and its weights cannot be in the file.

    A few bytes can name a network of billions of weights; building it would fill the memory.

    Raises:
        InputError: see `built`; or it has more weights than the file has bytes, and many.
    """
    with torch.device("meta"):
        sketch = built(build, path)
    weights, size = sum(p.numel() for p in sketch.parameters()), os.path.getsize(path)
    if weights > max(size, SMALL_ENOUGH):
        raise InputError(
            f"{path}: names a network of {weights} weights, but has {size} bytes; "
            "name a whole file of this network"
        )
    return built(build, path)


def fetched(build: Callable[[str], Network], backbone: str, weights: str) -> Network:
    """A network whose weights are fetched, or that is trained from scratch.

    Args:
        build: makes it with `imagenet` or `none` weights.
        backbone: its name.
        weights: `imagenet`; all else gives `none`.

    Raises:
        InputError: there is no such network, or the weights cannot be fetched; says what to do.
    """
    source = "imagenet" if weights == "imagenet" else "none"
    try:
        return built(lambda: build(source), f"--backbone {backbone}")
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"--backbone_weights imagenet: the weights cannot be fetched ({error}); get them on "
            "another machine and give --backbone_weights FILE, or train from scratch with "
            "--backbone_weights none"
        ) from None


def load_backbone(model: Backbone, path: str | os.PathLike) -> None:
    """Load a backbone's published file (such as resnet50-19c8e375.pth) and freeze its statistics.

    Raises:
        InputError: the file does not hold this backbone's weights.
    """
    fill_published(model, weights_in(read(path), path), path)
    model.freeze_statistics()


def fill_published(model: Backbone, state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Load weights under their published names into a backbone.

    Raises:
        InputError: they are not this backbone's.
    """
    fill(model, model.from_published(state), path, model.name)
