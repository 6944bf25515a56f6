"""Bilinear upsampling of cams as plain CAM does it, in the place of a superpixel network."""

import torch
from torch import Tensor, nn

from networks.superpixel import CELL


class Bilinear(nn.Module):
    """Association maps with which upsampling is bilinear, whatever the images show.

    In the place of the superpixel network it turns networks.association.upsample into torch's
    bilinear interpolation (align_corners=False): inference without superpixels, for comparison.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 16 -> association maps (B, 9, H, W)."""
        rows, columns = (_weights(length).to(images) for length in images.shape[2:])
        q = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)
        return q.expand(len(images), -1, -1, -1)


def _weights(length: int) -> Tensor:
    """Along one side: the weights of the cell before, of the own and of the next (3, length)."""
    offset = (torch.arange(length) % CELL + 0.5) / CELL - 0.5  # from the own cell's centre
    before, after = (-offset).clamp(min=0), offset.clamp(min=0)
    # There is no cell beyond the border: its weight goes to the one at the border.
    before[:CELL] = 0
    after[-CELL:] = 0
    return torch.stack([before, 1 - before - after, after])
