"""ResNets as trunks, at stride 16. docs/method.md, section 2. (At stride 8: dilated.py.)"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchvision import models

from networks.trunk import Backbone

WEIGHTS = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
}
"""ResNets by name, with torchvision's ImageNet weights for each (the V1 ones)."""


class ResNetStages(Backbone):
    """torchvision's ResNet without its head, in two halves; its stages as torchvision builds them.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        dilate: torchvision's `replace_stride_with_dilation`, for layer2, layer3 and layer4.

    Attributes:
        name: torchvision's name of the network.
        channels: (c4, c5), channels of the outputs of layer3 and layer4.

    Raises:
        ValueError: no such ResNet.
    """

    def __init__(self, name: str, dilate: Sequence[bool] = (False, False, False)) -> None:
        super().__init__()
        if name not in WEIGHTS:
            raise ValueError(f"no ResNet {name!r}; there are {', '.join(WEIGHTS)}")
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

    def imagenet_weights(self) -> dict[str, Tensor]:
        """torchvision's file, fetched or taken from torch.hub's cache.

        Raises:
            OSError: it could not be fetched; says where it is.
        """
        weights = WEIGHTS[self.name]
        try:
            # check_hash refuses a broken download; weights_only executes no pickle.
            return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
        except (OSError, RuntimeError) as error:
            raise OSError(f"{error}; they are at {weights.url}") from None

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's names are those here; its last layer, `fc`, is left out."""
        return {name: value for name, value in state.items() if not name.startswith("fc.")}


class ResNetBackbone(ResNetStages):
    """A ResNet at stride 16: its last stage undilated at stride 1."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for layer in self.layer4[0].modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
