"""Batches of crops as a loader makes them: their layout, and where photographs lie in them."""

import torch
from torch import Tensor


def channels_first(images: Tensor) -> Tensor:
    """Images as they are decoded, (B, H, W, D) -> (B, D, H, W); memory stays as it is.

    Channels last in memory is also what convolutions like best.
    """
    return images.permute(0, 3, 1, 2)


def inside(boxes: Tensor, height: int, width: int, step: int = 1) -> Tensor:
    """Where a photograph lies in its padded crop.

    Args:
        boxes: (B, 4) top, left, bottom, right of the photograph, pixels, ends exclusive.
        height: of the crop, pixels.
        width: of the crop, pixels.
        step: 1 for every pixel; a cell's side to ask for each cell's top-left pixel.

    Returns:
        (B, 1, ceil(H / step), ceil(W / step)) bool.
    """
    top, left, bottom, right = boxes.to(torch.int64).t()[..., None, None, None]
    rows = torch.arange(0, height, step, device=boxes.device).view(1, 1, -1, 1)
    columns = torch.arange(0, width, step, device=boxes.device).view(1, 1, 1, -1)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
