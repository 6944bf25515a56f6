"""What every backbone is: a network in two parts, with statistics that can be frozen."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn


class Backbone(nn.Module):
    """Base of the backbones: subclasses define the attributes and the methods that raise here.

    `imagenet_weights` is for those that have published weights, `from_published` for those whose
    weights are published under other names.

    Attributes:
        name: under which `networks.backbone.build_backbone` makes it.
        channels: (c4, c5), channels of the outputs of the two parts.
        frozen_statistics: batch normalisation uses its stored statistics also in training, as
            pretrained weights need it; its scale and shift still learn.
    """

    name: str
    channels: tuple[int, int]
    frozen_statistics = False

    def stem_to_4(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) -> x4 (B, c4, h, w)."""
        raise NotImplementedError

    def stage5(self, x4: Tensor) -> Tensor:
        """x4 (B, c4, h, w) -> x5 (B, c5, h, w)."""
        raise NotImplementedError

    def halves(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The two parts for images that pass both: x4, and the function that makes x5 of it.

        This is how a backbone whose first part computes more than x4 passes the rest to `stage5`.
        """
        return self.stem_to_4(images), self.stage5

    def imagenet_weights(self) -> dict[str, Tensor]:
        """The ImageNet weights as they are published, names of their own.

        Raises:
            OSError: they could not be fetched; says where they are.
            ImportError: a package is missing; says which.
            ValueError: there are none.
        """
        raise ValueError(f"{self.name} has no published ImageNet weights; take none, or a file")

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights under their published names -> under those of this module, without the head.

        As they are, where a subclass does not say otherwise.
        """
        return dict(state)

    def load_imagenet(self) -> None:
        """Load the ImageNet weights and freeze the statistics; raises as `imagenet_weights`."""
        self.load_state_dict(self.from_published(self.imagenet_weights()))
        self.freeze_statistics()

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


def halves(backbone: nn.Module, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """x4 of images and the function from x4 to x5: `Backbone.halves`, of any backbone."""
    if isinstance(backbone, Backbone):
        return backbone.halves(images)
    return backbone.stem_to_4(images), backbone.stage5
