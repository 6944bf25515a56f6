"""Colours of label maps."""

from functools import cache

import numpy as np


@cache
def voc_palette() -> np.ndarray:
    """PASCAL VOC's colours for label indices 0..255: (256, 3) uint8, read-only.

    The colour of an index interleaves its bits over the high bits of red, green and blue, as in
    the VOC development kit.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    # Bit 3 i + c of the index is bit 7 - i of channel c.
    of_channels = np.pad(bits, ((0, 0), (0, 1))).reshape(256, 3, 3).swapaxes(1, 2)
    palette = np.packbits(of_channels, axis=2)[..., 0]
    palette.setflags(write=False)  # everybody gets the same array
    return palette
