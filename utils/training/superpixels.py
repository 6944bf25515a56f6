"""Step 3, the recipe of the superpixel network. docs/method.md, section 1."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection, evenly_spread, with_masks
from datasets.files import InputError
from datasets.folder import folder_collection
from datasets.loading import TrainingCrops
from networks.crops import channels_first, inside
from networks.normalisation import normalise
from networks.superpixel import SuperpixelNet, clustering_loss, scn_loss
from utils import checkpoints
from utils.checkpoints.beginning import Beginning
from utils.inference.superpixels import reconstruction, superpixels
from utils.pictures.drawing import with_boundaries
from utils.runs import devices
from utils.runs.data import open_split, own_list
from utils.runs.distributed import is_first
from utils.runs.fingerprints import fingerprint
from utils.runs.run import Run
from utils.runs.wording import counted, source_of
from utils.scores.superpixel_validation import validate_superpixels
from utils.training.loop import Stage, batches_of, in_steps, plan_of, train
from utils.training.losses import Losses, in_words
from utils.training.optimisers import trainable
from utils.training.superpixel_options import TERMS, SuperpixelSettings


def train_superpixels(settings: SuperpixelSettings) -> None:
    """The recipe: photographs, network, loss, optimiser, loop, and what is kept after an epoch."""
    device = devices.choose(settings.run.device)
    folder, schedule = settings.images, settings.schedule
    photographs = folder_collection(folder) if folder else open_split(settings.data)
    devices.seed_everything(settings.run.seed)
    made_from = {"photographs": fingerprint(photographs)}
    beginning = Beginning(settings.run, settings.resuming, made_from)
    with beginning.open_run(device) as run:
        scn = SuperpixelNet()
        loss = SuperpixelLoss(
            scn,
            settings.position_weight,
            settings.objective,
            settings.chroma_weight,
            settings.amp,
        )
        network = devices.parallel_training(loss, device)
        plan = plan_of(len(photographs.ids), schedule.batch, schedule.epochs)
        run.say(
            f"training on {counted(plan.images, 'photograph')} of "
            f"{source_of(photographs, folder)}, {in_steps(plan)}, on {devices.describe(device)}; "
            f"writing to {run.folder}"
        )
        run.note(*photographs.notes)
        crops = TrainingCrops(
            photographs,
            schedule.crop,
            schedule.long_side,
            settings.run.seed,
            ("lab",),
            settings.run.skip_bad,
        )
        optimizer = torch.optim.Adam(trainable(scn), lr=settings.learning.lr, betas=(0.9, 0.999))
        kept = SuperpixelEpochs(run, settings, scn, photographs, crops)
        objective = mean_over_images(network, TERMS[settings.objective])
        stage = Stage(network, scn, objective, optimizer, kept.after_epoch, settings.learning)
        batches = batches_of(crops, plan, run.workers, device.type == "cuda")
        train(run, beginning, plan, batches, stage)
        scn_file = run.folder / "last.pt"
        run.say_next("train_cls_image.py", "--scn", scn_file, *own_list(settings.data))


class SuperpixelLoss(nn.Module):
    """The network and its loss as one module, so that DataParallel splits both.

    Args:
        scn: learns.
        position_weight: m of the loss.
        objective: one of TERMS.
        chroma_weight: Lab's a and b count so many times.
        amp: the convolutions run in bfloat16.
    """

    def __init__(
        self,
        scn: SuperpixelNet,
        position_weight: float,
        objective: str = "reconstruction",
        chroma_weight: float = 1.0,
        amp: bool = False,
    ) -> None:
        super().__init__()
        self.scn, self.position_weight, self.objective = scn, position_weight, objective
        self.chroma_weight, self.amp = chroma_weight, amp

    def forward(self, images: Tensor, lab: Tensor) -> Tensor:
        """(B, 3, H, W) twice -> (1, n): the objective's TERMS, times B."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            q = self.scn(images)
        lab = torch.cat([lab[:, :1], lab[:, 1:] * self.chroma_weight], dim=1)
        if self.objective == "clustering":
            terms = (clustering_loss(q, lab, self.position_weight),)
        else:
            terms = scn_loss(q, lab, self.position_weight)
        return torch.stack(terms)[None] * len(images)


def mean_over_images(
    model: nn.Module, names: Sequence[str]
) -> Callable[[dict[str, Tensor]], Losses]:
    """The losses of a batch by name: the means over its images.

    Args:
        model: a SuperpixelLoss, perhaps split over devices.
        names: of its losses.
    """

    def losses(batch: dict[str, Tensor]) -> Losses:
        values = model(*inputs(batch)).sum(0) / len(batch["image"])
        return dict(zip(names, values, strict=True))

    return losses


def inputs(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What a SuperpixelLoss takes of a batch: normalised images, and their CIE-Lab in 0..1."""
    images = normalise(channels_first(batch["image"]))
    images = images * inside(batch["box"], *images.shape[2:])
    return images, channels_first(batch["lab"]).float() / 255


class SuperpixelEpochs:
    """After each epoch, in the first process: score and show the superpixels, save the weights.

    Args:
        run: logs and the checkpoint go here.
        settings: of the training.
        scn: the network that learns.
        photographs: those with masks are scored.
        crops: the first of the first epoch is shown.

    Raises:
        InputError: the first photograph cannot be read.
    """

    def __init__(
        self,
        run: Run,
        settings: SuperpixelSettings,
        scn: SuperpixelNet,
        photographs: Collection,
        crops: TrainingCrops,
    ) -> None:
        self.run, self.scn = run, scn
        self.epochs, self.dataset = settings.schedule.epochs, photographs.name
        masked = evenly_spread(with_masks(photographs), settings.score_images)
        self.masked = photographs.subset(masked)
        sample = crops[0, 0]
        if "error" in sample:
            raise InputError(sample["error"])
        self.sample = sample["image"]
        self.told: set[str] = set()

    def after_epoch(self, epoch: int, losses: dict[str, float]) -> None:
        """Score, show, log and save."""
        if not is_first():
            return
        scn = self.scn.eval()
        scores = validate_superpixels(self.masked, scn, self._left_out)
        self.run.scalars({f"score/{name}": value for name, value in scores.items()}, epoch)
        self.run.say(f"epoch {epoch + 1}/{self.epochs}: {in_words({**losses, **scores})}")
        image = self.sample.permute(2, 0, 1)
        outlined = with_boundaries(self.sample.numpy(), superpixels(image, scn))
        pictures = np.hstack([outlined, reconstruction(image, scn)])
        self.run.picture("superpixels", pictures, epoch)
        about = {"dataset": self.dataset, "epoch": epoch + 1, "epochs": self.epochs}
        checkpoint = {"kind": "scn", **about, "model": scn.state_dict()}
        checkpoints.save(self.run.folder / "last.pt", checkpoint)

    def _left_out(self, message: str) -> None:
        if message not in self.told:
            self.told.add(message)
            self.run.note(f"not scored: {message}")
