"""The classification network: a backbone with DCR and AP. docs/method.md, section 2."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.affinity import propagate
from networks.cells import CELL, NEIGHBOURS
from networks.dcr import DCR
from networks.trunk import halves


class Classifier(nn.Module):
    """Images and their association maps to class activation logits and scores.

    Args:
        backbone: `channels = (c4, c5)`, `stem_to_4(images)`, `stage5(x4)`; see networks.backbone.
        num_classes: C, background included.
        dcr: False leaves a plain CAM network with the same interface, for comparison.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, dcr: bool = True) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background, so at least 2; got {num_classes}")
        self.num_classes = num_classes
        self.backbone = backbone
        self.dcr = DCR(backbone.channels) if dcr else None
        self.classifier = nn.Conv2d(backbone.channels[1], num_classes, 1, bias=False)

    def forward(
        self,
        images: Tensor,
        q: Tensor,
        beta: int = 0,
        gamma: float = 0.6,
        keep: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Class activation logits and classification scores.

        Args:
            images: ImageNet-normalised, (B, 3, H, W), H and W multiples of 16.
            q: their association maps (B, 9, H, W).
            beta: steps of affinity propagation on the logits; 0 leaves it out.
            gamma: affinities below this are cut.
            keep: in place of gamma: the share of affinities that are kept; see `propagate`.

        Returns:
            (logits (B, C, H/16, W/16), scores (B, C)), background first.

        Raises:
            ValueError: the shapes do not fit, or the backbone's stride is not 16.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(s % CELL for s in images.shape[2:]):
            raise ValueError(f"images must be (B, 3, 16 h, 16 w), got {tuple(images.shape)}")
        if q.shape != (len(images), NEIGHBOURS, *images.shape[2:]):
            raise ValueError(f"q {tuple(q.shape)} does not fit images {tuple(images.shape)}")
        x4, stage5 = halves(self.backbone, images)
        h, w = images.shape[2] // CELL, images.shape[3] // CELL
        if x4.shape[2:] != (h, w):
            raise ValueError(
                f"the backbone gives x4 {tuple(x4.shape)}, not at stride 16: {h} x {w}"
            )
        if self.dcr is None:
            activations = self.classifier(stage5(x4))
            logits = activations
        else:
            embedding = self.dcr.embed(q.to(self.classifier.weight.dtype))
            x4 = self.dcr.reconstruct4(x4, embedding)
            x5 = stage5(x4)
            logits, activations = self.dcr.reconstruct5(x5, embedding, self.classifier)
        # Never below float32, also under autocast: what follows is finer than bfloat16.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        scores = activations.to(dtype).mean((2, 3))
        return propagate(logits.to(dtype), x4, beta, gamma, keep), scores


def cam(logits: Tensor) -> Tensor:
    """Class activation maps, every class scaled to its own maximum.

    `relu(relu(logits) - 1e-5) / (max over positions of relu(logits) + 1e-5)`.

    Args:
        logits: of foreground classes, (B, K, h, w).

    Returns:
        (B, K, h, w) in 0..1.

    Raises:
        ValueError: not four dimensions.
    """
    if logits.ndim != 4:
        raise ValueError(f"logits must be (B, K, h, w), got {tuple(logits.shape)}")
    positive = F.relu(logits)
    return F.relu(positive - 1e-5) / (positive.amax((2, 3), keepdim=True) + 1e-5)
