"""The classification network under supervision: its two losses. docs/method.md, section 2."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.association import pool
from networks.classifier import Classifier, cam
from networks.crops import channels_first, inside
from networks.ipc import ipc_loss
from networks.normalisation import normalise
from networks.superpixel import CELL, SuperpixelNet
from utils.inference.folding import fold
from utils.runs import distributed
from utils.training.losses import Losses


@dataclass(frozen=True)
class Supervision:
    """What supervises the IPC loss.

    Attributes:
        name: of the supervision, kept in checkpoints.
        layers: what the loader reads for it besides image and labels.
        target: from the normalised images (B, 3, H, W) and the batch, what is to be reconstructed,
            (B, T, H, W). Where its channels sum to 0 it counts as padding, and directions are
            compared: of a single channel only the sign counts.
        evaluator: the script that evaluates what was trained so.
    """

    name: str
    layers: tuple[str, ...]
    target: Callable[[Tensor, dict[str, Tensor]], Tensor]
    evaluator: str


class SupervisedNetwork(nn.Module):
    """The frozen SCN and the classifier as one module, so that DataParallel splits all the work.

    Args:
        classifier: learns.
        scn: a frozen copy.
        beta: steps of affinity propagation.
        gamma: affinities below this are cut.
        keep: in place of gamma: the share of affinities that are kept; see `propagate`.
        amp: the classifier's convolutions run in bfloat16; association maps, affinity and losses
            stay in float32.
    """

    def __init__(
        self,
        classifier: Classifier,
        scn: SuperpixelNet,
        beta: int,
        gamma: float,
        keep: float | None = None,
        amp: bool = False,
    ) -> None:
        super().__init__()
        self.classifier, self.scn = classifier, scn
        self.beta, self.gamma, self.keep, self.amp = beta, gamma, keep, amp

    def train(self, mode: bool = True) -> "SupervisedNetwork":
        """Switch the classifier's mode; the SCN stays in evaluation mode."""
        super().train(mode)
        self.scn.eval()
        return self

    def forward(
        self, images: Tensor, target: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images (B, 3, H, W), what to reconstruct (B, T, H, W), boxes (B, 4).

        Returns:
            (logits (B, C, h, w), scores (B, C), target on the superpixel grid (B, T, h, w), zero
            in cells whose top-left pixel is padding).
        """
        with torch.no_grad():
            q = self.scn(images)
            pooled = pool(target, q) * inside(boxes, *images.shape[2:], step=CELL)
        # Entered here, not around the loop: DataParallel's threads do not inherit it.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            logits, scores = self.classifier(images, q, self.beta, self.gamma, self.keep)
        return logits, scores, pooled


def frozen_copy(scn: SuperpixelNet) -> SuperpixelNet:
    """The superpixel network as it serves training: folded, without gradients."""
    return fold(scn.eval()).requires_grad_(False)


@dataclass(frozen=True)
class ClassifierLoss:
    """The losses of a batch: classification, and lambda times IPC.

    Attributes:
        network: a SupervisedNetwork, perhaps split over devices.
        supervision: of the IPC loss.
        ipc_weight: lambda.
        patches: of the IPC loss, an image.
        ipc_threshold: from which a patch counts.
    """

    network: nn.Module
    supervision: Supervision
    ipc_weight: float
    patches: int
    ipc_threshold: float

    def __call__(self, batch: dict[str, Tensor]) -> Losses:
        """The scalars `loss`, `classification` and `ipc` of a batch on the device."""
        boxes, labels = batch["box"], batch["labels"]
        images = normalise(channels_first(batch["image"]))
        images = images * inside(boxes, *images.shape[2:])
        target = self.supervision.target(images, batch)
        logits, scores, goal = self.network(images, target, boxes)
        classification = F.multilabel_soft_margin_loss(scores[:, 1:], labels)
        fg_cam = cam(logits[:, 1:]) * labels[:, :, None, None]
        ipc = ipc_loss(fg_cam, goal, self.patches, self.ipc_threshold, distributed.all_reduce_sum)
        # Gradients and losses of several processes are averaged, the parts of this loss add up.
        ipc = ipc * distributed.world_size()
        total = classification + self.ipc_weight * ipc
        return {"loss": total, "classification": classification, "ipc": ipc}
