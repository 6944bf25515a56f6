"""What happens after each epoch of the classifier: cams are scored and shown, weights saved."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from datasets.collection import Collection, evenly_spread, with_masks
from datasets.loading import Plan
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.inference.cams import InferenceSettings
from utils.inference.label_maps import USUAL_THRESHOLD, label_map
from utils.pictures.contact_sheet import labelled_sheet
from utils.runs import distributed
from utils.runs.data import open_if_there, own_list
from utils.runs.run import Run
from utils.runs.wording import counted
from utils.scores.cam_validation import Validation, classification_map, validate
from utils.training.classifier_options import ClassifierSettings
from utils.training.kept import PANELS, Kept
from utils.training.losses import in_words
from utils.training.supervision import Supervision

VALIDATION_THRESHOLDS = (0.15, 0.2, 0.3, 0.4)

EMPTY, ALL_OVER = 0.01, 0.9
"""A cam, whose maximum is 1 if it is not 0 everywhere, shows nothing if its mean is below the first
of these or above the second."""

COLLAPSED = 0.9
"""The share of such cams from which on it is said."""

IDLE = 0.98
"""A training has learnt nothing while its classification loss is above this part of the loss of
predicting every class as often as it occurs."""

BY_THEN = 300
"""Steps after the warm-up by which a training that goes well has begun to learn; a short one, also
from scratch, by half of its epochs."""


class ClassifierEpochs:
    """After each epoch: score the cams, save the last and the best checkpoint.

    Args:
        run: where checkpoints go.
        settings: of the training.
        plan: of its steps.
        supervision: of the training; its name is kept in checkpoints.
        networks: the classifier and the frozen copy of the SCN, on the device.
        scn_state: the SCN's weights, kept in checkpoints.
        photographs: the first of them are scored; without masks only the last checkpoint is kept,
            and a few photographs are shown without scores.
        held_back: photographs that are not trained on, for the mAP of the classification.

    Attributes:
        networks: see Args.
        looked_at: the photographs whose cams are scored, or shown alone where none has a mask.
        scored: whether they have masks.
        kept: the checkpoints.
    """

    def __init__(
        self,
        run: Run,
        settings: ClassifierSettings,
        plan: Plan,
        supervision: Supervision,
        networks: tuple[Classifier, SuperpixelNet],
        scn_state: dict[str, Tensor],
        photographs: Collection,
        held_back: Collection | None,
    ) -> None:
        self.run, self.settings, self.supervision = run, settings, supervision
        self.networks, self.scn_state = networks, scn_state
        self.held_back = held_back
        self.idle_loss = loss_of_frequencies([photographs.labels[i] for i in photographs.ids])
        self.idle_until = idle_until(plan, settings.learning.warmup)
        self.inference = InferenceSettings(
            (1.0,), False, settings.beta, settings.gamma, keep=settings.gamma_keep
        )
        masked, count = with_masks(photographs), settings.score_images
        few = evenly_spread(photographs.ids, min(PANELS, count))
        self.looked_at = photographs.subset(masked[:count] if masked else few)
        self.scored = bool(masked)
        self.kept = Kept(run, settings.resuming.resume)

    def after_epoch(self, epoch: int, losses: dict[str, float]) -> None:
        """Score, log and save."""
        distributed.broadcast_buffers(self.networks[0])
        line = f"epoch {epoch + 1}/{self.settings.schedule.epochs}: {in_words(losses)}"
        scores, means, masks = {}, [], None
        if self.looked_at.ids:
            found = self._validate()
            means = found.means
            self._show(found, epoch)
            if self.scored:
                line += (
                    f"; mIoU {100 * found.miou:.2f} at threshold {found.threshold:g}, "
                    f"classification mAP {100 * found.mean_ap:.2f}"
                )
                scores = {"score/miou": found.miou, "score/map": found.mean_ap}
                masks = {"miou": found.miou, "threshold": found.threshold}
        if self.held_back is not None:
            ap = classification_map(self.held_back, *self.networks, self.run.reader)
            of_val = counted(len(self.held_back.ids), "photograph")
            line += f"; mAP on {of_val} of val, not trained on, {100 * ap:.2f}"
            scores["score/map_held_back"] = ap
        self.run.scalars(scores, epoch)
        self.run.say(line)
        if epoch or self.settings.schedule.epochs == 1:  # a network that has begun may show nothing
            self.run.note(*collapsed(means))
        if epoch + 1 == self.idle_until:
            self.run.note(*stands_still(losses["classification"], self.idle_loss))
        if distributed.is_first():
            self.kept.save(self._checkpoint(epoch), masks)

    def say_which(self) -> None:
        """Say what the checkpoints are, and what to run next."""
        chosen_by = (
            f"best.pt has the best mIoU against the masks of {len(self.looked_at.ids)} training "
            "images: more than image-level labels."
        )
        options = own_list(self.settings.data)
        self.kept.say_which(chosen_by, self.supervision.evaluator, *options, take_best=True)

    def _validate(self) -> Validation:
        return validate(
            self.looked_at,
            *self.networks,
            self.inference,
            VALIDATION_THRESHOLDS,
            self.run.reader,
            show=evenly_spread(self.looked_at.ids, PANELS),
        )

    def _show(self, found: Validation, epoch: int) -> None:
        """Photo, superpixels, CAM, pseudo label and ground truth to tensorboardX."""
        if distributed.is_first():
            threshold = found.threshold if self.scored else USUAL_THRESHOLD
            title, classes = f"pseudo label ({threshold:g})", self.looked_at.classes
            sheet = labelled_sheet(
                found.shown,
                lambda one: label_map(one.classes, one.cams, threshold),
                title,
                classes,
            )
            self.run.picture("panels", sheet, epoch)

    def _checkpoint(self, epoch: int) -> dict:
        classifier = self.networks[0]
        return {
            "kind": "classifier",
            "backbone": self.settings.networks.backbone,
            "dcr": classifier.dcr is not None,
            "classes": list(self.looked_at.classes),
            "supervision": self.supervision.name,
            "epoch": epoch + 1,
            "miou": None,
            "threshold": None,
            "model": classifier.state_dict(),
            "scn": self.scn_state,
        }


def collapsed(means: Sequence[float]) -> list[str]:
    """A warning if the cams, of which these are the means, have collapsed, else nothing."""
    empty = sum(mean < EMPTY for mean in means)
    all_over = sum(mean > ALL_OVER for mean in means)
    if not means or empty + all_over < COLLAPSED * len(means):
        return []
    return [
        f"the cams have collapsed: of {len(means)}, {empty} are empty and {all_over} lie all over "
        "their photographs; docs/backbones.md#cams-that-collapse says what to do"
    ]


def loss_of_frequencies(labels: Sequence[np.ndarray]) -> float:
    """The multi-label soft margin loss of predicting every class as often as it occurs.

    Args:
        labels: (K,) 0 or 1 a photograph.

    Returns:
        The mean over classes of the entropy of their frequencies, in nats.
    """
    frequency = np.mean(labels, axis=0)
    both = np.stack([frequency, 1 - frequency])
    logarithm = np.log(both, where=both > 0, out=np.zeros_like(both))
    return float(-(both * logarithm).sum(0).mean())


def idle_until(plan: Plan, warmup: int) -> int:
    """The epochs after which it is looked at, once, whether a training stands still.

    Half of them, or as many as hold the warm-up and BY_THEN more steps where these are fewer: a
    long training should not run for half of its time before its user learns that it was in vain.
    """
    soon = math.ceil((warmup + BY_THEN) / plan.steps_per_epoch)
    return max(3, min(math.ceil(plan.epochs / 2), soon))


def stands_still(loss: float, idle: float) -> list[str]:
    """A warning if a classification loss stands still once it should fall, else nothing.

    Where every photograph has the same classes, `idle` is 0, and there is nothing to learn.
    """
    if loss < IDLE * idle or idle == 0:
        return []
    return [
        f"nothing has been learnt so far: the classification loss, {loss:.3g}, is about that of "
        f"predicting every class as often as it occurs, {idle:.3g}; "
        "docs/backbones.md#trainings-that-stand-still says what to do"
    ]


def photographs_held_back(run: Run, settings: ClassifierSettings) -> Collection | None:
    """Photographs with labels that are not trained on: the first of the data set's val split."""
    if settings.data.split == "val" or not settings.score_images:
        return None
    without = "no photographs are held back for the mAP of the classification"
    val = open_if_there(replace(settings.data, split="val"), run, without)
    if val is None:
        return None
    labelled = [identifier for identifier in val.ids if identifier in val.labels]
    few = replace(val.subset(labelled[: settings.score_images]), masks=None)  # which are not used
    return few if labelled else None
