"""What happens after every --score_every steps: the network is scored and shown, weights saved."""

from dataclasses import replace

from datasets.collection import Collection, evenly_spread, with_masks
from networks.deeplab import DeepLab
from utils.pictures.contact_sheet import segmentation_sheet
from utils.runs import distributed
from utils.runs.data import is_there, open_if_there
from utils.runs.run import Run
from utils.scores.mask_validation import validate_segmentation
from utils.training.kept import PANELS, Kept
from utils.training.losses import in_words
from utils.training.segmentation_options import SegmentationSettings


class SegmentationEpochs:
    """Scores the network on photographs it does not learn from; saves the last and the best.

    Args:
        run: where checkpoints go.
        settings: of the training.
        network: learns; on the device.
        classes: foreground class names, kept in checkpoints.
        scored: photographs with masks, or None.

    Attributes:
        kept: the checkpoints.
    """

    def __init__(
        self,
        run: Run,
        settings: SegmentationSettings,
        network: DeepLab,
        classes: tuple[str, ...],
        scored: Collection | None,
    ) -> None:
        self.run, self.settings, self.network = run, settings, network
        self.classes, self.scored = classes, scored
        self.kept = Kept(run, settings.resuming.resume)

    def after_epoch(self, epoch: int, losses: dict[str, float]) -> None:
        """Score, show, log and save."""
        distributed.broadcast_buffers(self.network)
        done = (epoch + 1) * self.settings.score_every
        line, miou = f"step {done}/{self.settings.steps}: {in_words(losses)}", None
        if self.scored is not None:
            miou = self._score(done)
            line += (
                f"; mIoU {100 * miou:.2f} on {len(self.scored.ids)} photographs of "
                f"{self.scored.name} {self.scored.split}"
            )
            self.run.scalars({"score/miou": miou}, done)
        self.run.say(line)
        if distributed.is_first():
            self.kept.save(self._checkpoint(done), None if miou is None else {"miou": miou})

    def _score(self, step: int) -> float:
        pictured = evenly_spread(self.scored.ids, PANELS)
        found = validate_segmentation(self.scored, self.network, self.run.reader, pictured)
        if distributed.is_first():
            self.run.picture("panels", segmentation_sheet(found.shown, self.classes), step)
        return found.miou

    def _checkpoint(self, step: int) -> dict:
        return {
            "kind": "segmentation",
            "backbone": self.settings.backbone,
            "trunk": getattr(self.network.trunk, "kind", "torchvision"),
            "stride": self.settings.stride,
            "classes": list(self.classes),
            "max_side": self.network.max_side,
            "step": step,
            "miou": None,
            "model": self.network.state_dict(),
        }

    def say_which(self) -> None:
        """Say what the checkpoints are, and what to run next."""
        count = 0 if self.scored is None else len(self.scored.ids)
        chosen_by = (
            f"best.pt has the best mIoU on {count} photographs of val, so its score on val is too "
            "high."
        )
        # The evaluator takes val, which data of one's own need not have.
        data = self.settings.data
        there = is_there(replace(data, split="val"))
        options = () if there else ("--split", data.split)
        self.kept.say_which(chosen_by, "evaluator_seg.py", *options, take_best=False)


def photographs_to_score(run: Run, settings: SegmentationSettings) -> Collection | None:
    """Photographs of val with masks, evenly spread; None if there are none, or val is learnt."""
    without = "nothing is scored while training"
    if not settings.score_images:
        return None
    if settings.data.split == "val":
        run.note(f"{without} (val is what the network learns)")
        return None
    val = open_if_there(replace(settings.data, split="val"), run, without)
    if val is None:
        return None
    masked = with_masks(val)
    if not masked:
        run.note(f"{without} ({val.name} val has no masks)")
        return None
    return val.subset(evenly_spread(masked, settings.score_images))
