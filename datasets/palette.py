"""Colours of label maps."""

import numpy as np


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colours for label indices 0..255: (256, 3) uint8.

    The colour of an index interleaves its bits over the high bits of red, green and blue, as in
    the VOC development kit.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette
