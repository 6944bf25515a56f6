"""Train the superpixel segmentation network (SCN), without any labels.

Step 3. The network learns to reconstruct colour (CIE-Lab) and position of every pixel from the
means of its superpixels, or, with `--objective clustering`, to assign every pixel as clustering by
colour and position would, which takes far fewer steps. docs/method.md, section 1.

    python train_scn.py --voc_root VOC2012
    python train_scn.py --images DIR        # all photographs of a folder
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from datasets.files import InputError
from datasets.folder import folder_collection
from datasets.loading import TrainingCrops
from networks.normalisation import channels_first, inside, normalise
from networks.superpixel import SuperpixelNet, clustering_loss, scn_loss
from utils import checkpoints
from utils.checkpoints import resuming
from utils.checkpoints.fingerprints import fingerprint
from utils.checkpoints.resuming import Saved, find, open_run
from utils.inference.superpixels import reconstruction, superpixels
from utils.pictures.drawing import with_boundaries
from utils.runs import devices, options
from utils.runs.distributed import is_first
from utils.runs.run import Run
from utils.runs.start import start
from utils.scores.superpixel_validation import validate_superpixels, with_masks
from utils.training.loop import Stage, batches_of, plan_of, train
from utils.training.losses import Losses, shown
from utils.training.optimisers import PolynomialDecay, trainable

TERMS = {"reconstruction": ("loss", "colour", "position"), "clustering": ("loss",)}
"""What each objective logs; `loss` is what is minimised."""


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


class Keeper:
    """After each epoch, in the first process: score and show the superpixels, keep the weights.

    Args:
        run: logs and the checkpoint go here.
        given: the options.
        scn: the network that learns.
        collection: photographs; those with masks are scored.
        crops: the first of the first epoch is shown.
        device: of the network.

    Raises:
        InputError: the first photograph cannot be read.
    """

    def __init__(
        self,
        run: Run,
        given: argparse.Namespace,
        scn: SuperpixelNet,
        collection: Collection,
        crops: TrainingCrops,
        device: torch.device,
    ) -> None:
        self.run, self.given, self.scn, self.device = run, given, scn, device
        self.masked = with_masks(collection, given.score_images)
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
        scores = validate_superpixels(self.masked, scn, self.device, self._left_out)
        self.run.scalars({f"score/{name}": value for name, value in scores.items()}, epoch)
        self.run.say(f"epoch {epoch + 1}/{self.given.epochs}: {shown({**losses, **scores})}")
        image = self.sample.permute(2, 0, 1).to(self.device)
        outlined = with_boundaries(self.sample.numpy(), superpixels(image, scn))
        pictures = np.hstack([outlined, reconstruction(image, scn)])
        self.run.picture("superpixels", pictures, epoch)
        checkpoint = {"kind": "scn", "epoch": epoch + 1, "model": scn.state_dict()}
        checkpoints.save(self.run.folder / "last.pt", checkpoint)

    def _left_out(self, message: str) -> None:
        if message not in self.told:
            self.told.add(message)
            self.run.say(f"note: not scored: {message}")


def train_superpixels(given: argparse.Namespace) -> None:
    """Train the superpixel network as the options say."""
    options.check_schedule(given)
    device = devices.choose(given.device)
    collection = folder_collection(given.images) if given.images else options.collection(given)
    devices.seed_everything(given.seed)
    made_from = {"photographs": fingerprint(collection)}
    saved = find(given)
    if saved is not None:
        saved.refuse_changes(given, made_from)
    with open_run(given, device, saved) as run:
        train_in(run, given, collection, device, made_from, saved)


def train_in(
    run: Run,
    given: argparse.Namespace,
    collection: Collection,
    device: torch.device,
    made_from: dict[str, str],
    saved: Saved | None = None,
) -> None:
    """Train on a collection; checkpoints and logs go to the run's folder."""
    scn = SuperpixelNet()
    loss = SuperpixelLoss(
        scn, given.position_weight, given.objective, given.chroma_weight, given.amp
    )
    network = devices.parallel_training(loss, device)
    plan = plan_of(len(collection.ids), given.batch, given.epochs)
    run.say(
        f"training on {plan.images} photographs of {collection.name} {collection.split}, "
        f"{plan.epochs} epochs of {plan.steps_per_epoch} steps, on {devices.describe(device)}; "
        f"writing to {run.folder}"
    )
    crops = TrainingCrops(
        collection, given.crop, given.long_side, given.seed, ("lab",), given.skip_bad
    )
    batches = batches_of(crops, plan, options.workers(given, device), device.type == "cuda")
    keeper = Keeper(run, given, scn, collection, crops, device)

    def objective(batch: dict[str, Tensor]) -> Losses:
        images = normalise(channels_first(batch["image"]))
        images = images * inside(batch["box"], *images.shape[2:])
        lab = channels_first(batch["lab"]).float() / 255
        terms = network(images, lab).sum(0) / len(images)
        return dict(zip(TERMS[given.objective], terms, strict=True))

    optimizer = torch.optim.Adam(trainable(scn), lr=given.lr, betas=(0.9, 0.999))
    decay = PolynomialDecay(optimizer, plan.steps, given.power)
    stage = Stage(
        network, scn, objective, optimizer, decay, keeper.after_epoch, made_from=made_from
    )
    train(run, plan, batches, stage, device, saved)
    checkpoint = run.folder / "last.pt"
    run.say(f"next: python train_cls_image.py --scn {checkpoint}   (or train_cls_sal.py)")


if __name__ == "__main__":
    parser = options.parser(__doc__)
    options.add_data_options(parser, split="train_aug")
    parser.add_argument(
        "--images", metavar="DIR", help="all photographs of this folder, in place of a data set"
    )
    options.add_run_options(parser, tag="scn")
    resuming.add_options(parser)
    group = options.add_schedule_options(parser, epochs=50, lr=5e-5, crop=512)
    group.add_argument(
        "--power",
        type=options.not_negative,
        default=0.0,
        help="of the polynomial decay of lr; 0 keeps it constant",
    )
    group.add_argument(
        "--position_weight",
        type=options.not_negative,
        default=0.003,
        help="m: weight of position against colour; higher makes superpixels more compact",
    )
    group.add_argument(
        "--objective",
        choices=tuple(TERMS),
        default="reconstruction",
        help="the paper's loss, or cross entropy against three rounds of clustering",
    )
    group.add_argument(
        "--chroma_weight",
        type=options.positive,
        default=1.0,
        help="weight of Lab's a and b against L, in 8-bit values; 2.55 is CIE's proportion",
    )
    group.add_argument("--amp", action="store_true", help="bfloat16 convolutions")
    group = parser.add_argument_group("scoring after each epoch (needs masks)")
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=50,
        help="so many photographs with a mask, evenly spread, 0 for none; logged as ASA, boundary "
        "recall and undersegmentation error. Masks have no part in the training",
    )
    start(train_superpixels, parser)
