"""The one normalisation of images, the same in every stage: ImageNet's mean and deviation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """8-bit RGB (.., 3, H, W) -> float32, `(x / 255 - mean) / std`, on the images' device."""
    mean, std = _channels(IMAGENET_MEAN, images.device), _channels(IMAGENET_STD, images.device)
    return (images.float() - 255 * mean) / (255 * std)


def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1). Filled on the device: copying from the host would make a GPU's queue wait."""
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])


class Renormalise(nn.Module):
    """ImageNet-normalised images as a network takes them that was trained with another one.

    Args:
        mean: what that network subtracts from R, G and B in 0..1.
        std: what it divides by.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = torch.tensor(mean), torch.tensor(std)
        scale, shift = torch.tensor(IMAGENET_STD) / std, (torch.tensor(IMAGENET_MEAN) - mean) / std
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """ImageNet-normalised (B, 3, H, W) -> normalised with `mean` and `std`."""
        return images * self.scale + self.shift
