"""Networks of timm as backbones: `timm:NAME`, cut in two at stride 16. docs/backbones.md.

Convolutional networks are cut before their last stage, as timm's feature interface names it; plain
vision transformers before the last quarter of their blocks. timm is optional, and imported when a
network of it is asked for.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.normalisation import Renormalise
from networks.trunk import Backbone

PREFIX = "timm:"
"""What the names of these backbones begin with."""

STRIDE = 16

CONVOLUTIONAL = (
    *("convnext", "cspnet", "efficientnet", "hardcorenas", "inception_next", "mobilenetv3"),
    *("nfnet", "regnet", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "sknet"),
)
"""Families (timm's modules) of stages in a row, the last of which can keep stride 16."""

TRANSFORMERS = ("deit", "eva", "vision_transformer")
"""Families whose blocks keep one row of tokens: DeiT, DINOv2, DINOv3, CLIP's, SigLIP's, EVA."""

SECOND_PART = 4
"""One in so many blocks of a transformer is in its second part; of ResNet-50's it is 3 in 16."""


def family_of(name: str) -> str:
    """The family of the backbone `timm:NAME`: timm's module that defines it, such as `convnext`.

    Raises:
        ValueError: timm has no such network, or no such weights of it as NAME has after a dot, or
            its family cannot be cut in two at stride 16.
        ImportError: timm is missing.
    """
    models, bare = _timm().models, name.removeprefix(PREFIX)
    if not models.is_model(bare):
        raise ValueError(f"timm has no network {bare[:80]!r}; timm.list_models() names them")
    try:
        models.get_pretrained_cfg(bare)
    except RuntimeError:  # of what follows a dot
        raise ValueError(
            f"timm has no weights {bare[:80]!r}; timm.list_pretrained() names them"
        ) from None
    family = models.model_entrypoint(bare).__module__.rpartition(".")[2]
    if family == "_registry":  # an old name, which timm maps to the new one
        raise ValueError(f"timm has renamed {bare!r}; timm.list_models() names what there is")
    if family not in (*CONVOLUTIONAL, *TRANSFORMERS):
        raise _refused(f"the family {family}")
    return family


def build_timm(name: str) -> Backbone:
    """The backbone `timm:NAME`, with random weights.

    Raises:
        ValueError: there is no such network, or it cannot be cut in two at stride 16.
        ImportError: timm is missing.
    """
    return Tokens(name) if family_of(name) in TRANSFORMERS else Stages(name)


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError:
        raise ImportError(
            f"{PREFIX}NAME needs the optional package timm; pip install timm"
        ) from None
    return timm


def _made(name: str, **options: object) -> nn.Module:
    """timm's network, with random weights.

    Raises:
        ValueError: it has no such options.
    """
    try:
        return _timm().create_model(name.removeprefix(PREFIX), **options)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise _refused(f"{name} ({str(error)[:100]})") from None


def _refused(what: str) -> ValueError:
    families = ", ".join(sorted((*CONVOLUTIONAL, *TRANSFORMERS)))
    return ValueError(
        f"{what} cannot be cut in two at stride {STRIDE}; of these families of timm, networks can: "
        f"{families}"
    )


class TimmBackbone(Backbone):
    """What the backbones of timm have in common.

    Args:
        name: `timm:NAME`.
        side: of the square of pixels that becomes a position.
        config: timm's `pretrained_cfg`, of which mean and deviation of the images are taken.
    """

    def __init__(self, name: str, side: int, config: Mapping[str, object]) -> None:
        super().__init__()
        self.name, self.side = name, side
        self.source = config.get("hf_hub_id") or config.get("url")
        self.as_trained = Renormalise(config["mean"], config["std"])

    def prepared(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) as the network takes them.

        Resized, where that is needed, to (B, 3, side h, side w), where (h, w) = (H / 16, W / 16)
        rounded up.
        """
        # Not -(-length // STRIDE): integer division in ONNX files rounds towards zero.
        size = [self.side * ((length + STRIDE - 1) // STRIDE) for length in images.shape[2:]]
        images = self.as_trained(images)
        if size == list(images.shape[2:]):
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def own_name(self, published: str) -> str:
        """What a parameter or buffer of timm's network is called here."""
        raise NotImplementedError

    def imagenet_weights(self) -> dict[str, Tensor]:
        """timm's own pretrained weights, fetched or taken from its cache.

        Raises:
            OSError: they could not be fetched, or there are none.
        """
        bare = self.name.removeprefix(PREFIX)
        try:
            return _timm().create_model(bare, pretrained=True).state_dict()
        except Exception as error:  # of timm, of the hub's client, or of what that one uses
            reason = str(error).split("\n")[0][:200]
            where = f"; they are at {self.source}" if self.source else ""
            raise OSError(f"{reason}{where}") from None

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """timm's names, or the authors' where timm reads their files -> those here.

        What belongs to neither part, such as the head, is left out.
        """
        with torch.device("meta"):
            network = _made(self.name)
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            with suppress(Exception):  # not such a file: whoever loads it says what it lacks
                state = convert(dict(state), network)
        wanted = self.state_dict().keys()
        renamed = {self.own_name(name): value for name, value in state.items()}
        return {name: value for name, value in renamed.items() if name in wanted}


class Stages(TimmBackbone):
    """A convolutional network, cut before its last stage.

    That stage keeps stride 16, by timm's rules: dilation in place of the stride.

    Raises:
        ValueError: its stages are not in a row, or do not keep stride 16.
    """

    def __init__(self, name: str) -> None:
        network = _made(name, features_only=True, output_stride=STRIDE)
        super().__init__(name, STRIDE, network.pretrained_cfg)
        info = network.feature_info
        ends = [_flat(end) for end in info.module_name()[-2:]]
        steps = OrderedDict(_steps(network, info.module_name()))
        if info.reduction()[-2:] != [STRIDE, STRIDE] or not steps.keys() >= set(ends):
            raise _refused(name)
        self.channels = tuple(info.channels()[-2:])
        cut, end = (list(steps).index(name) + 1 for name in ends)
        items = list(steps.items())
        self.first = nn.Sequential(OrderedDict(items[:cut]))
        self.second = nn.Sequential(OrderedDict(items[cut:end]))

    def stem_to_4(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) -> x4 (B, c4, H / 16, W / 16), rounded up."""
        return self.first(self.prepared(images))

    def stage5(self, x4: Tensor) -> Tensor:
        """x4 (B, c4, h, w) -> x5 (B, c5, h, w)."""
        return self.second(x4)

    def own_name(self, published: str) -> str:
        """`stages.3.blocks.0.norm.weight` -> `second.stages_3.blocks.0.norm.weight`."""
        for name in (published, _flat(published)):
            for part in ("first", "second"):
                if name.partition(".")[0] in dict(getattr(self, part).named_children()):
                    return f"{part}.{name}"
        return published


def _flat(name: str) -> str:
    """`stages.3.blocks` -> `stages_3.blocks`: a step's name of a module in a row of modules."""
    return name.replace(".", "_", 1)


def _steps(network: nn.Module, ends: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """The modules that timm's feature network runs one after the other, with their flat names."""
    for name, child in network.named_children():
        if any(end.startswith(f"{name}.") for end in ends):
            yield from ((f"{name}_{number}", step) for number, step in child.named_children())
        else:
            yield name, child


class Tokens(TimmBackbone):
    """A plain vision transformer, cut before the last quarter of its blocks.

    A position is a patch: images are resized so that there are H / 16 x W / 16 of them, position
    embeddings by timm to that grid. x4 is the tokens of the patches, laid out as a map. The others
    (of the class, registers) go from part to part beside it; see `halves`. The final norm is in the
    second part.

    Raises:
        ValueError: it does not embed its patches in the plain way.
    """

    def __init__(self, name: str) -> None:
        network = _made(name, num_classes=0, dynamic_img_size=True)
        sides = set(getattr(network.patch_embed, "patch_size", ()))
        if len(sides) != 1 or not hasattr(network, "forward_intermediates"):
            raise _refused(name)
        super().__init__(name, sides.pop(), network.pretrained_cfg)
        network.attn_pool = None
        self.network = network
        self.channels = (network.embed_dim, network.embed_dim)
        self.cut = len(network.blocks) - max(1, len(network.blocks) // SECOND_PART)

    def halves(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x4, and `stage5` with the tokens that stand beside it: together what timm computes."""
        x4, beside = self._first(images)
        return x4, partial(self.stage5, beside=beside)

    def stem_to_4(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) -> x4 (B, c4, H / 16, W / 16), rounded up."""
        return self._first(images)[0]

    def stage5(self, x4: Tensor, beside: Tensor | None = None) -> Tensor:
        """x4 (B, c4, h, w) -> x5 (B, c5, h, w).

        Args:
            x4: of the first part, or what takes its place.
            beside: the tokens that are no patches (B, n, c4); if not given, the mean of x4 stands
                in for each.
        """
        network, (height, width) = self.network, x4.shape[2:]
        if beside is None:
            beside = x4.mean((2, 3))[:, None].expand(-1, network.num_prefix_tokens, -1)
        tokens = torch.cat([beside, x4.flatten(2).transpose(1, 2)], dim=1)
        rope = getattr(network, "rope", None)  # rotary position embedding, of EVA and DINOv3
        angles = None if rope is None else rope.get_embed(shape=(height, width))
        for number, block in enumerate(network.blocks[self.cut :], self.cut):
            if angles is None:
                tokens = block(tokens)
            else:
                tokens = block(tokens, rope=angles[number] if network.rope_mixed else angles)
        tokens = network.fc_norm(network.norm(tokens))  # networks have one of the two
        patches = tokens[:, network.num_prefix_tokens :]
        return patches.transpose(1, 2).unflatten(2, (height, width))

    def own_name(self, published: str) -> str:
        """`blocks.0.norm1.weight` -> `network.blocks.0.norm1.weight`."""
        return f"network.{published}"

    def _first(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """x4 (B, c4, h, w) and the tokens beside it (B, n, c4)."""
        others = self.network.num_prefix_tokens
        (found,) = self.network.forward_intermediates(
            self.prepared(images),
            indices=[self.cut - 1],
            return_prefix_tokens=others > 0,
            stop_early=True,
            intermediates_only=True,
        )
        return found if others else (found, found.new_zeros(len(found), 0, found.shape[1]))
