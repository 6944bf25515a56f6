"""The superpixel segmentation network (SCN). docs/method.md, section 1.

The architecture is SpixelFCN (Yang et al., CVPR 2020); layers are named as in its published
checkpoints, so that these load by name. Its losses are those of superpixel_loss.py, and can be
imported from here too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.cells import CELL, NEIGHBOURS
from networks.normalisation import IMAGENET_MEAN, IMAGENET_STD
from networks.superpixel_loss import clustering_loss, scn_loss

__all__ = ["BSDS_MEAN", "CELL", "SLOPE", "SuperpixelNet", "clustering_loss", "scn_loss"]

SLOPE = 0.1
"""Slope of every LeakyReLU for negative inputs."""

BSDS_MEAN = (0.411, 0.432, 0.45)
"""What the published BSDS500 checkpoint subtracts from images in 0..1; its deviation is 1."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE),
    )


def _deconv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)
    )


def _predict(inputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, NEIGHBOURS, 3, padding=1)


class SuperpixelNet(nn.Module):
    """SCN: ImageNet-normalised images (B, 3, H, W) -> association map (B, 9, H, W).

    H and W must be multiples of 16. `pred_mask1..3` belong to the published checkpoints; no
    forward pass uses them, so they do not learn.

    The buffers `input_scale` and `input_shift` (3,) convert the ImageNet-normalised input to what
    the weights were trained on; they are 1 and 0 except for weights made with another
    normalisation (see `expect_bsds_normalisation`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv0a, self.conv0b = _conv(3, 16), _conv(16, 16)
        self.conv1a, self.conv1b = _conv(16, 32, 2), _conv(32, 32)
        self.conv2a, self.conv2b = _conv(32, 64, 2), _conv(64, 64)
        self.conv3a, self.conv3b = _conv(64, 128, 2), _conv(128, 128)
        self.conv4a, self.conv4b = _conv(128, 256, 2), _conv(256, 256)
        self.deconv3, self.conv3_1 = _deconv(256, 128), _conv(256, 128)
        self.pred_mask3 = _predict(128)
        self.deconv2, self.conv2_1 = _deconv(128, 64), _conv(128, 64)
        self.pred_mask2 = _predict(64)
        self.deconv1, self.conv1_1 = _deconv(64, 32), _conv(64, 32)
        self.pred_mask1 = _predict(32)
        self.deconv0, self.conv0_1 = _deconv(32, 16), _conv(32, 16)
        self.pred_mask0 = _predict(16)
        self.register_buffer("input_scale", torch.ones(3))
        self.register_buffer("input_shift", torch.zeros(3))
        for unused in (self.pred_mask1, self.pred_mask2, self.pred_mask3):
            unused.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def expect_bsds_normalisation(self) -> None:
        """Feed the layers `x / 255 - (0.411, 0.432, 0.45)`, as the BSDS500 checkpoint expects."""
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.input_scale.copy_(std)
        self.input_shift.copy_(mean - torch.tensor(BSDS_MEAN))

    def forward(self, images: Tensor) -> Tensor:
        """Association map (B, 9, H, W) of ImageNet-normalised images (B, 3, H, W).

        Raises:
            ValueError: not three channels, or a side that is no multiple of 16.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        if images.shape[2] % CELL or images.shape[3] % CELL:
            raise ValueError(f"sides must be multiples of {CELL}, got {tuple(images.shape[2:])}")
        images = images * self.input_scale.view(3, 1, 1) + self.input_shift.view(3, 1, 1)
        out0 = self.conv0b(self.conv0a(images))
        out1 = self.conv1b(self.conv1a(out0))
        out2 = self.conv2b(self.conv2a(out1))
        out3 = self.conv3b(self.conv3a(out2))
        out4 = self.conv4b(self.conv4a(out3))
        up3 = self.conv3_1(torch.cat([out3, self.deconv3(out4)], dim=1))
        up2 = self.conv2_1(torch.cat([out2, self.deconv2(up3)], dim=1))
        up1 = self.conv1_1(torch.cat([out1, self.deconv1(up2)], dim=1))
        up0 = self.conv0_1(torch.cat([out0, self.deconv0(up1)], dim=1))
        logits = self.pred_mask0(up0)
        # An association map is at least float32, also under autocast.
        return F.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
