"""Train the superpixel segmentation network (SCN), without any labels.

Step 3. The network learns to reconstruct colour (CIE-Lab) and position of every pixel from the
means of its superpixels. METHOD section 1.

    python train_scn.py --voc_root VOC2012
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from datasets.files import InputError
from datasets.loading import TrainingCrops
from networks.normalisation import channels_first, inside, normalise
from networks.superpixel import SuperpixelNet, scn_loss
from utils import checkpoints, devices, options, resuming
from utils.distributed import is_first
from utils.optimisers import PolynomialDecay, trainable
from utils.pictures import superpixels, with_boundaries
from utils.resuming import Saved, find, fingerprint, open_run
from utils.run import Run, start
from utils.superpixel_validation import reconstruction, validate_superpixels, with_masks
from utils.training import Losses, Stage, batches_of, plan_of, shown, train


class SuperpixelLoss(nn.Module):
    """The network and its loss as one module, so that DataParallel splits both.

    Args:
        scn: learns.
        position_weight: m of the loss.
    """

    def __init__(self, scn: SuperpixelNet, position_weight: float) -> None:
        super().__init__()
        self.scn, self.position_weight = scn, position_weight

    def forward(self, images: Tensor, lab: Tensor) -> Tensor:
        """(B, 3, H, W) twice -> (1, 3): total loss, colour and position term, times B."""
        terms = scn_loss(self.scn(images), lab, self.position_weight)
        return torch.stack(terms)[None] * len(images)


def train_superpixels(given: argparse.Namespace) -> None:
    """Train the superpixel network as the options say."""
    options.check_schedule(given)
    device = devices.choose(given.device)
    collection = options.collection(given)
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
    network = devices.parallel_training(SuperpixelLoss(scn, given.position_weight), device)
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
    sample = crops[0, 0]
    if "error" in sample:
        raise InputError(sample["error"])

    def objective(batch: dict[str, Tensor]) -> Losses:
        images = normalise(channels_first(batch["image"]))
        images = images * inside(batch["box"], *images.shape[2:])
        lab = channels_first(batch["lab"]).float() / 255
        terms = network(images, lab).sum(0) / len(images)
        return dict(zip(("loss", "colour", "position"), terms, strict=True))

    masked = with_masks(collection, given.score_images)

    def after_epoch(epoch: int, losses: dict[str, float]) -> None:
        if not is_first():
            return
        scn.eval()
        scores = validate_superpixels(masked, scn, device)
        run.scalars({f"score/{name}": value for name, value in scores.items()}, epoch)
        run.say(f"epoch {epoch + 1}/{given.epochs}: {shown({**losses, **scores})}")
        image = sample["image"].permute(2, 0, 1).to(device)
        picture = with_boundaries(sample["image"].numpy(), superpixels(image, scn))
        run.picture("superpixels", np.hstack([picture, reconstruction(image, scn)]), epoch)
        checkpoint = {"kind": "scn", "epoch": epoch + 1, "model": scn.state_dict()}
        checkpoints.save(run.folder / "last.pt", checkpoint)

    optimizer = torch.optim.Adam(trainable(scn), lr=given.lr, betas=(0.9, 0.999))
    decay = PolynomialDecay(optimizer, plan.steps, given.power)
    stage = Stage(network, scn, objective, optimizer, decay, after_epoch, made_from=made_from)
    train(run, plan, batches, stage, device, saved)
    checkpoint = run.folder / "last.pt"
    run.say(f"next: python train_cls_image.py --scn {checkpoint}   (or train_cls_sal.py)")


if __name__ == "__main__":
    parser = options.parser(__doc__)
    options.add_data_options(parser, split="train_aug")
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
    group = parser.add_argument_group("scoring after each epoch (needs masks)")
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=50,
        help="so many photographs with a mask, evenly spread, 0 for none; logged as ASA, boundary "
        "recall and undersegmentation error. Masks have no part in the training",
    )
    start(train_superpixels, parser)
