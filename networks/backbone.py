"""The backbones by name. docs/backbones.md has the table.

Anything with the same three members can take their place in `Classifier` and `DeepLab`:
`channels = (c4, c5)`, `stem_to_4(images) -> x4` and `stage5(x4) -> x5`, both at stride 16.
"""

from collections.abc import Callable
from functools import partial

from networks import efficientnet
from networks.efficientnet import EfficientNetLite0
from networks.resnet import WEIGHTS, ResNetBackbone
from networks.timm_backbones import PREFIX, build_timm
from networks.trunk import Backbone

BACKBONES: dict[str, Callable[[], Backbone]] = {
    **{name: partial(ResNetBackbone, name) for name in WEIGHTS},
    efficientnet.NAME: EfficientNetLite0,
}
"""Makes a backbone at stride 16, with random weights."""

NAMES = f"{', '.join(BACKBONES)}, {PREFIX}NAME"
"""What backbones can be called; NAME is one of timm's."""


def is_backbone(name: str) -> bool:
    """Whether a name can be one of a backbone; what timm has shows when it is built."""
    return name in BACKBONES or name.startswith(PREFIX)


def build_backbone(name: str, weights: str = "none") -> Backbone:
    """A backbone at stride 16.

    Args:
        name: resnet18, resnet34, resnet50, resnet101, efficientnet_lite0 or `timm:NAME`.
        weights: `imagenet` fetches ImageNet weights (torchvision's file, or takes it from
            torch.hub's cache; of efficientnet_lite0 from a package; timm's own, which are not
            always ImageNet's); `none` is for training from scratch: batch statistics are learnt,
            residual branches of ResNets start at zero. (For a file, see
            utils.checkpoints.load_backbone.)

    Raises:
        ValueError: no such backbone or kind of weights.
        OSError: the ImageNet weights could not be fetched.
        ImportError: it, or its weights, come from a package that is missing.
    """
    if weights not in ("imagenet", "none"):
        raise ValueError(f"weights must be imagenet or none, got {weights!r}")
    if not is_backbone(name):
        raise ValueError(f"no backbone {name!r}; there are {NAMES}")
    backbone = build_timm(name) if name.startswith(PREFIX) else BACKBONES[name]()
    if weights == "imagenet":
        backbone.load_imagenet()
    return backbone
