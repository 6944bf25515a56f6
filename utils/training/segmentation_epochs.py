"""What happens after every --score_every steps: the network is scored and shown, weights saved."""

from dataclasses import replace

import torch

from datasets.collection import Collection, evenly_spread, missing_masks
from datasets.files import InputError
from networks.deeplab import DeepLab
from utils import checkpoints
from utils.pictures.contact_sheet import segmentation_sheet
from utils.runs import distributed
from utils.runs.data import open_split
from utils.runs.run import Run
from utils.scores.segmentation import validate_segmentation
from utils.training.classifier_epochs import PANELS, best_so_far
from utils.training.losses import shown
from utils.training.segmentation_options import SegmentationSettings


class SegmentationEpochs:
    """Scores the network on photographs it does not learn from; saves the last and the best.

    Args:
        run: where checkpoints go.
        settings: of the training.
        network: learns; on the device.
        classes: foreground class names, kept in checkpoints.
        scored: photographs with masks, or None.
        device: of the network.

    Attributes:
        best: the best mIoU so far, -1 if nothing is scored.
    """

    def __init__(
        self,
        run: Run,
        settings: SegmentationSettings,
        network: DeepLab,
        classes: tuple[str, ...],
        scored: Collection | None,
        device: torch.device,
    ) -> None:
        self.run, self.settings, self.network = run, settings, network
        self.classes, self.scored, self.device = classes, scored, device
        resumed = settings.resuming.resume is not None
        self.best = best_so_far(run.folder / "best.pt") if resumed else -1.0

    def after_epoch(self, epoch: int, losses: dict[str, float]) -> None:
        """Score, show, log and save."""
        distributed.same_buffers(self.network)
        done = (epoch + 1) * self.settings.score_every
        line, miou = f"step {done}/{self.settings.steps}: {shown(losses)}", None
        if self.scored is not None:
            miou = self._score(done)
            line += (
                f"; mIoU {100 * miou:.2f} on {len(self.scored.ids)} photographs of "
                f"{self.scored.name} {self.scored.split}"
            )
            self.run.scalars({"score/miou": miou}, done)
        self.run.say(line)
        if not distributed.is_first():
            return
        # Without what was found with masks: the last checkpoint is the one that uses none.
        checkpoints.save(self.run.folder / "last.pt", self._checkpoint(done))
        if miou is not None and miou > self.best:
            self.best = miou
            checkpoints.save(self.run.folder / "best.pt", self._checkpoint(done, miou))

    def _score(self, step: int) -> float:
        readers = self.settings.run.readers(self.device)
        pictured = evenly_spread(self.scored.ids, PANELS)
        found = validate_segmentation(
            self.scored, self.network, self.device, readers, self.run.bad, pictured
        )
        if distributed.is_first():
            self.run.picture("panels", segmentation_sheet(found.shown, self.classes), step)
        return found.miou

    def _checkpoint(self, step: int, miou: float | None = None) -> dict:
        return {
            "kind": "segmentation",
            "backbone": self.settings.backbone,
            "trunk": getattr(self.network.trunk, "kind", "torchvision"),
            "head": self.settings.head,
            "stride": self.settings.stride,
            "classes": list(self.classes),
            "step": step,
            "miou": miou,
            "model": self.network.state_dict(),
        }

    def say_which(self) -> None:
        """Say what the checkpoints are, and what to run next."""
        if self.best > -1:
            self.run.say(
                f"best.pt is the step with the best mIoU against the masks of "
                f"{len(self.scored.ids)} photographs of {self.scored.split}: chosen with masks. "
                "last.pt uses none."
            )
        kept = self.run.folder / ("best.pt" if self.best > -1 else "last.pt")
        self.run.say(f"next: python evaluator_seg.py --checkpoint {kept}")


def photographs_to_score(run: Run, settings: SegmentationSettings) -> Collection | None:
    """Photographs with masks of the split that is scored, evenly spread; None if there are none."""
    if not settings.score_images:
        return None
    split, found = settings.score_split, None
    try:
        found = open_split(replace(settings.data, split=split))
    except InputError as error:  # data of one's own need not have such a split
        run.say(f"note: nothing is scored while training ({error})")
    if distributed.maximum(int(found is None))[0]:
        return None
    unmasked = set(missing_masks(found))
    masked = [identifier for identifier in found.ids if identifier not in unmasked]
    if not masked:
        run.say(f"note: {found.name} {split} has no masks: nothing is scored while training")
        return None
    return found.subset(evenly_spread(masked, settings.score_images))
