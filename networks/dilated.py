"""ResNets at stride 8, the trunks of the segmentation network. docs/method.md, section 5.

They differ from a ResNet at stride 32 in no weight: where a stage's stride is taken out, the
convolutions after it look twice as far, and the values at the old positions stay what they were
(the a trous algorithm). Published ResNets come in two kinds:

- torchvision's: a stage's stride sits in the 3x3 convolution of its first block (ResNet-18 and 34:
  in the first of its two). This convolution itself does not look farther than in the stage before,
  so in the fourth stage the dilations are 2, 4, 4, where published DeepLabs say 4, 4, 4.
- the Caffe kind, of published DeepLabs: the stride sits in the first 1x1 convolution, so that all
  3x3 convolutions of the third stage have dilation 2, of the fourth 4; the stem's pooling keeps
  what is left at the border; images are BGR in 0..255 less the mean colour.
"""

from torch import Tensor, nn

from networks.backbone import build_backbone
from networks.normalisation import Renormalise
from networks.resnet import WEIGHTS, ResNetStages
from networks.trunk import Backbone

KINDS = ("torchvision", "caffe")
"""Of ResNets; other backbones count as of the first."""

STRIDES = (8, 16)
"""Of segmentation networks."""

CAFFE_MEAN = (104.008, 116.669, 122.675)
"""What the Caffe kind subtracts from its images: blue, green, red in 0..255."""


class DilatedResNet(ResNetStages):
    """A ResNet at stride 8, of either kind. It takes ImageNet-normalised RGB images.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        kind: torchvision or caffe.

    Raises:
        ValueError: no such ResNet, or no such kind.
    """

    def __init__(self, name: str, kind: str = "torchvision") -> None:
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r} of ResNet; there are {', '.join(KINDS)}")
        # torchvision does not dilate the two-convolution blocks of ResNet-18 and 34.
        by_torchvision = kind == "torchvision" and name not in ("resnet18", "resnet34")
        super().__init__(name, dilate=(False, by_torchvision, by_torchvision))
        self.kind = kind
        if kind == "caffe":
            self.maxpool.ceil_mode = True
            for stage in (self.layer2, self.layer3, self.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
            mean = [value / 255 for value in reversed(CAFFE_MEAN)]
            self.as_trained = Renormalise(mean, std=(1 / 255,) * 3)
        if not by_torchvision:
            _dilate(self.layer3, 2)
            _dilate(self.layer4, 4)

    def stem_to_4(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images (B, 3, H, W) -> x4 (B, c4, h, w).

        (h, w) = (H / 8, W / 8) rounded up; of the Caffe kind, one more where pooling keeps a rest.
        """
        if self.kind == "caffe":
            images = self.as_trained(images).flip(1)
        return super().stem_to_4(images)


def _dilate(stage: nn.Sequential, dilation: int) -> None:
    """Take out a stage's stride of 2; 3x3 convolutions after it get a dilation."""
    behind = False
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            if conv.kernel_size == (3, 3):
                reach = dilation if behind else dilation // 2
                conv.dilation = conv.padding = (reach, reach)
            behind = behind or conv.stride == (2, 2)
            conv.stride = (1, 1)


def strides_of(name: str, kind: str = "torchvision") -> tuple[int, ...]:
    """The strides at which `build_trunk` makes a backbone, the usual one first."""
    if name not in WEIGHTS:
        return (16,)
    return STRIDES if kind == "torchvision" else (8,)


def build_trunk(
    name: str, kind: str = "torchvision", weights: str = "none", stride: int | None = None
) -> Backbone:
    """A trunk for the segmentation network: a ResNet, or what the classifier takes.

    Args:
        name: of a backbone; see networks.backbone.
        kind: torchvision or caffe, of a ResNet.
        weights: `imagenet` fetches ImageNet weights as `build_backbone` does, for torchvision's
            kind; `none` is for training from scratch: batch statistics are learnt, residual
            branches start at zero. (For a file, see utils.checkpoints.load_trunk.)
        stride: 8, of ResNets only, or 16 for the classifier's trunk: several times faster on a
            CPU. None takes the first of `strides_of`.

    Raises:
        ValueError: no such backbone, kind, weights or stride.
        OSError: the ImageNet weights could not be fetched.
        ImportError: a package is missing that the backbone or its weights need.
    """
    if weights not in ("imagenet", "none"):
        raise ValueError(f"weights must be imagenet or none, got {weights!r}")
    if kind not in KINDS or (kind == "caffe" and name not in WEIGHTS):
        raise ValueError(f"no kind {kind!r} of {name}; ResNets have {', '.join(KINDS)}")
    if weights == "imagenet" and kind != "torchvision":
        raise ValueError("ImageNet weights are fetched for torchvision's kind; give caffe a file")
    strides = strides_of(name, kind)
    stride = strides[0] if stride is None else stride
    if stride not in strides:
        there = " and ".join(map(str, strides))
        raise ValueError(f"no stride {stride} of {name}, {kind} kind; there is {there}")
    if stride == 16:
        return build_backbone(name, weights)
    trunk = DilatedResNet(name, kind)
    if weights == "imagenet":
        trunk.load_imagenet()
    return trunk
