"""Superpixels of photographs."""

from itertools import chain

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from networks.association import hard_labels, pool, upsample
from networks.normalisation import normalise
from utils.inference.cams import resize, round_up


@torch.no_grad()
def superpixels(image: Tensor, scn: nn.Module) -> np.ndarray:
    """Superpixel ids (H, W) int32 of an 8-bit photograph (3, H, W), whatever device it is on."""
    return at_size(superpixel_ids(image, scn).cpu(), image.shape[1:])


@torch.no_grad()
def superpixel_ids(image: Tensor, scn: nn.Module) -> Tensor:
    """`superpixels` where the network is, at the size it sees: multiples of a cell's side."""
    full = (round_up(image.shape[1]), round_up(image.shape[2]))
    images = normalise(_beside(scn, image))[None]
    return hard_labels(scn(resize(images, full)))[0]


def at_size(ids: Tensor, size: tuple[int, int]) -> np.ndarray:
    """`superpixel_ids`, on the CPU, at the size (H, W) of the photograph: (H, W) int32."""
    ids = ids.numpy().astype(np.int32)
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


@torch.no_grad()
def reconstruction(image: Tensor, scn: nn.Module) -> np.ndarray:
    """An 8-bit image (3, H, W), sides multiples of 16, from the mean colours of its superpixels.

    Returns:
        (H, W, 3) uint8.
    """
    image = _beside(scn, image)
    q = scn(normalise(image)[None])
    means = upsample(pool(image[None].to(q.dtype), q), q)[0]
    return means.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def _beside(scn: nn.Module, image: Tensor) -> Tensor:
    """An image on the network's device, copied without waiting for it."""
    tensors = chain(scn.parameters(), scn.buffers())
    device = next(tensors, image).device  # of what has neither, the image's
    return image.to(device, non_blocking=True)
