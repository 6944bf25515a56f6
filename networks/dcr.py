"""DCR, dynamic convolutional reconstruction: pixel-to-superpixel affinity embedded in features.

docs/method.md, section 2. From the association map and a stage's own features, a 3x3 kernel is made
for every position; features (and the class activation logits) are reassembled with it.
What it brings alone was measured: docs/results.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.cells import NEIGHBOURS
from networks.reassembly import reassemble

WIDTH = 128
"""Channels of the embedded association map and of a reduced stage."""

SLOPE = 0.1
"""Slope of every LeakyReLU for negative inputs."""

CENTRE_BIAS = 3.0
"""Kernels start between a mean and the identity: this logit for the position itself, about 0 for
its neighbours (a weight of about 0.7). From PyTorch's defaults they would start as a 3x3 mean,
which blurs features and cams until the kernels have learnt better; at 5 (a weight of 0.95) the
softmax is saturated, and they hardly learn. The method does not say how they start."""

OPEN = 1.0
"""Gates start open: this is added to the weights of their second convolution, whose inputs are not
negative. They then start at 0.9 to 0.99 with EfficientNet-Lite0's ImageNet features, at about 0.7
(level 4) and 0.95 (level 5) in a ResNet-18 from scratch. From PyTorch's defaults they would start
at one half, which the pretrained layers after them, with stored statistics of batch normalisation,
do not bear."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, norm: bool = False) -> nn.Module:
    """Convolution (biased unless normalised), optional batch normalisation, LeakyReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=not norm)
    ]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE))


class AssociationEmbedding(nn.Sequential):
    """Embed the association map on the superpixel grid: (B, 9, H, W) -> (B, 128, H/16, W/16)."""

    def __init__(self) -> None:
        super().__init__(
            _conv(NEIGHBOURS, 32, 4, stride=4, norm=True),
            _conv(32, WIDTH, 4, stride=4, norm=True),
            _conv(WIDTH, WIDTH, 3),
        )


class KernelPredictor(nn.Module):
    """One 3x3 kernel a position from a stage's features and the embedded association map.

    Args:
        channels: of the stage.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = _conv(channels, WIDTH, 1, norm=True)
        self.kernels = nn.Sequential(
            _conv(2 * WIDTH, 2 * WIDTH, 3), _conv(2 * WIDTH, NEIGHBOURS, 1)
        )
        last = self.kernels[-1][0]
        with torch.no_grad():
            last.bias.zero_()
            last.bias[NEIGHBOURS // 2] = CENTRE_BIAS

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """(B, c, h, w) and (B, 128, h, w) -> kernels (B, 9, h, w) that sum to 1.

        The features are detached: kernels do not shape the backbone.
        """
        reduced = self.reduce(features.detach())
        logits = self.kernels(torch.cat([reduced, embedding], dim=1))
        return F.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)


class ChannelGate(nn.Module):
    """A gate in 0..1 for every channel, from the channels' means.

    Args:
        channels: of the stage; the hidden width is a sixteenth of it, but 1 at least.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, channels, 1, bias=False)
        with torch.no_grad():
            self.excite.weight.add_(OPEN)

    def forward(self, features: Tensor) -> Tensor:
        """(B, c, h, w) -> gates (B, c, 1, 1)."""
        means = features.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class DCR(nn.Module):
    """The layers that DCR adds to a backbone, for level 4 (layer3) and level 5 (layer4).

    Args:
        channels: (c4, c5) of the backbone.
    """

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        c4, c5 = channels
        self.embed = AssociationEmbedding()
        self.kernels4, self.kernels5 = KernelPredictor(c4), KernelPredictor(c5)
        self.gate4, self.gate5 = ChannelGate(c4), ChannelGate(c5)

    def reconstruct4(self, x4: Tensor, embedding: Tensor) -> Tensor:
        """`x4 <- reassemble(x4 * g4, k4)`: (B, c4, h, w) and (B, 128, h, w) -> (B, c4, h, w)."""
        kernels = self.kernels4(x4, embedding)
        return reassemble(x4 * self.gate4(x4), kernels)

    def reconstruct5(
        self, x5: Tensor, embedding: Tensor, classifier: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """`x5 <- x5 * g5`, classified, and the class activation logits reassembled with k5.

        Args:
            x5: (B, c5, h, w).
            embedding: of the association map, (B, 128, h, w).
            classifier: (B, c5, h, w) -> activations (B, C, h, w).

        Returns:
            (logits, activations), both (B, C, h, w).
        """
        kernels = self.kernels5(x5, embedding)
        activations = classifier(x5 * self.gate5(x5.detach()))
        return reassemble(activations, kernels), activations
