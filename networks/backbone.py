"""ResNets as trunks, at stride 16. docs/method.md, section 2. (At stride 8: dilated.py.)

Anything with the same three members can take the place of `ResNetBackbone`:
`channels = (c4, c5)`, `stem_to_4(images) -> x4` and `stage5(x4) -> x5`, both at stride 16.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision import models

WEIGHTS = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
}
"""Backbones by name, with torchvision's ImageNet weights for each (the V1 ones)."""


class Backbone(nn.Module):
    """What backbones share: statistics of batch normalisation that can be frozen."""

    frozen_statistics = False

    def train(self, mode: bool = True) -> "Backbone":
        """Switch modes; frozen statistics stay as they are in both."""
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def freeze_statistics(self) -> None:
        """Keep the stored statistics of batch normalisation from now on, also in training."""
        self.frozen_statistics = True
        self.train(self.training)


class ResNetStages(Backbone):
    """torchvision's ResNet without its head, in two halves; its stages as torchvision builds them.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        dilate: torchvision's `replace_stride_with_dilation`, for layer2, layer3 and layer4.

    Attributes:
        name: torchvision's name of the network.
        channels: (c4, c5), channels of the outputs of layer3 and layer4.
        frozen_statistics: batch normalisation uses its stored statistics also in training, as
            pretrained weights need it; its scale and shift still learn.

    Raises:
        ValueError: no such ResNet.
    """

    def __init__(self, name: str, dilate: Sequence[bool] = (False, False, False)) -> None:
        super().__init__()
        if name not in WEIGHTS:
            raise ValueError(f"no backbone {name!r}; there are {', '.join(WEIGHTS)}")
        self.name = name
        # From scratch, residual branches that start at zero make deep networks trainable.
        resnet = getattr(models, name)(
            weights=None, zero_init_residual=True, replace_stride_with_dilation=dilate
        )
        self.conv1, self.bn1, self.relu = resnet.conv1, resnet.bn1, resnet.relu
        self.maxpool = resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        c5 = resnet.fc.in_features
        self.channels = (c5 // 2, c5)

    def stem_to_4(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> x4 (B, c4, h, w), the output of layer3."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer3(self.layer2(self.layer1(x)))

    def stage5(self, x4: Tensor) -> Tensor:
        """x4 (B, c4, h, w) -> x5 (B, c5, h, w), the output of layer4."""
        return self.layer4(x4)

    def load_imagenet(self) -> None:
        """Fetch torchvision's ImageNet weights (or take them from torch.hub's cache).

        Raises:
            OSError: they could not be fetched.
        """
        # check_hash refuses a broken download; weights_only executes no pickle.
        state = WEIGHTS[self.name].get_state_dict(progress=True, check_hash=True, weights_only=True)
        self.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
        self.freeze_statistics()


class ResNetBackbone(ResNetStages):
    """A ResNet at stride 16: its last stage undilated at stride 1."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for layer in self.layer4[0].modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)


def build_backbone(name: str, weights: str = "none") -> ResNetBackbone:
    """A ResNet at stride 16.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        weights: `imagenet` fetches torchvision's file (or takes it from torch.hub's cache);
            `none` is for training from scratch: batch statistics are learnt, residual branches
            start at zero. (For a file, see utils.checkpoints.load_backbone.)

    Raises:
        ValueError: no such backbone or kind of weights.
        OSError: the ImageNet weights could not be fetched.
    """
    backbone = ResNetBackbone(name)
    if weights == "imagenet":
        backbone.load_imagenet()
    elif weights != "none":
        raise ValueError(f"weights must be imagenet or none, got {weights!r}")
    return backbone
