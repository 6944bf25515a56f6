"""The segmentation network, DeepLab, and its loss. docs/method.md, section 5.

A dilated ResNet and a head that looks at several distances. The image is seen at several scales,
and every pixel keeps the highest logits.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.trunk import halves

RATES = (6, 12, 18, 24)
"""How far ASPP's convolutions look, positions."""

SCALES = (1, 0.5, 0.75)
"""The image's sizes; the first is that of the result."""

IGNORED = 255
"""The label that does not count."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab-V2: the sum of four dilated 3x3 convolutions.

    Args:
        channels: of the features.
        num_classes: C, background included.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in RATES
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, c5, h, w) -> logits (B, C, h, w)."""
        return sum(branch(features) for branch in self.branches)


class DeepLab(nn.Module):
    """ImageNet-normalised images of any size to class logits.

    Args:
        trunk: `channels = (c4, c5)`, `stem_to_4(images)`, `stage5(x4)`: networks.dilated at stride
            8, or what networks.classifier takes too, then at stride 16.
        num_classes: C, background included.
        scales: at which the image is seen, the first (the size of the result) being 1.

    Attributes:
        max_side: the longest side of photographs in training as they were scaled, pixels, where it
            is known: larger objects than those of such photographs are new to the network.

    Raises:
        ValueError: fewer than 2 classes, or scales that do not begin with 1.
    """

    def __init__(
        self,
        trunk: nn.Module,
        num_classes: int,
        scales: Sequence[float] = SCALES,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background, so at least 2; got {num_classes}")
        if not scales or scales[0] != 1 or min(scales) <= 0:
            raise ValueError(f"scales must begin with 1 and be positive, got {tuple(scales)}")
        self.num_classes = num_classes
        self.scales = tuple(scales)
        self.trunk = trunk
        self.head = ASPP(trunk.channels[1], num_classes)
        self.max_side: int | None = None

    def one_scale(self, images: Tensor) -> Tensor:
        """Logits (B, C, h, w) of images (B, 3, H, W), seen at their own size only."""
        x4, stage5 = halves(self.trunk, images)
        logits = self.head(stage5(x4))
        # Losses, resizing and the maximum are never computed below float32, also under autocast.
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The logits of images (B, 3, H, W), ImageNet-normalised, at the trunk's stride.

        Returns:
            In evaluation mode (B, C, h, w), the pixel-wise maximum over the scales, of the size
            that the trunk makes of (H, W): for ResNets H / 8 or H / 16, rounded up. In training
            mode the logits of every scale at its own size, and their maximum: four maps. With one
            scale there is nothing to be maximised: one map.

        Raises:
            ValueError: the images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.numel():
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        each = [self.one_scale(rescale(images, scale)) for scale in self.scales]
        maximum = each[0]
        for logits in each[1:]:
            maximum = torch.maximum(maximum, bilinear(logits, maximum.shape[2:]))
        if not self.training:
            return maximum
        return (*each, maximum) if len(each) > 1 else (maximum,)


def rescale(images: Tensor, scale: float) -> Tensor:
    """(B, D, H, W) at a scale, sides rounded down; a side of which nothing would be left is kept.

    Pixels lie `1 / scale` apart whatever the rounding, as in the published network: at 0.5, an
    image of 97 rows becomes one of 48 whose pixels are two rows apart.
    """
    if scale == 1:
        return images
    factors = tuple(scale if side * scale >= 1 else 1.0 for side in images.shape[2:])
    return F.interpolate(images, scale_factor=factors, mode="bilinear", align_corners=False)


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, D, h, w) -> (B, D, *size), bilinear."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def cross_entropy_sums(outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """The sums of which the cross entropies of several maps of logits are made, map by map.

    What parts of a batch give adds up to what the whole gives, wherever the parts are.

    Args:
        outputs: of a DeepLab in training mode, n maps of logits (B, C, h, w).
        labels: class indices (B, H, W); 255 does not count. Resized by nearest neighbour, pixel
            centres aligned.

    Returns:
        (2, n): cross entropies summed over the pixels that count, and the numbers of these pixels.

    Raises:
        ValueError: the shapes do not fit.
    """
    found = []
    for logits in outputs:
        if labels.ndim != 3 or logits.ndim != 4 or len(labels) != len(logits):
            shapes = f"labels {tuple(labels.shape)} do not fit logits {tuple(logits.shape)}"
            raise ValueError(shapes)
        resized = F.interpolate(
            labels[:, None].float(), size=logits.shape[2:], mode="nearest-exact"
        )
        target = resized[:, 0].long()
        summed = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
        found.append(torch.stack([summed, (target != IGNORED).sum().to(summed.dtype)]))
    return torch.stack(found, 1)


def segmentation_loss(outputs: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, ...]:
    """The sum of the cross entropies of several maps of logits, each at its own size.

    Args:
        outputs, labels: as `cross_entropy_sums` takes them.

    Returns:
        (total, one scalar for each map). A map is averaged over its counting pixels; one without
        any contributes 0.

    Raises:
        ValueError: the shapes do not fit.
    """
    sums, counts = cross_entropy_sums(outputs, labels)
    terms = sums / counts.clamp(min=1)
    return terms.sum(), *terms
