"""Training the classification network; what the two train_cls scripts share.

docs/method.md, section 2.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.collection import (
    Collection,
    evenly_spread,
    missing_masks,
    missing_saliency,
    require_labels,
)
from datasets.files import InputError
from datasets.loading import TrainingCrops
from networks.association import pool
from networks.backbone import WEIGHTS, build_backbone
from networks.classifier import Classifier, cam
from networks.ipc import ipc_loss
from networks.normalisation import channels_first, inside, normalise
from networks.superpixel import CELL, SuperpixelNet
from utils import checkpoints
from utils.checkpoints import resuming
from utils.checkpoints.fingerprints import fingerprint, sizes
from utils.inference.collection_cams import Inferred, Settings, infer_collection, labels_at
from utils.inference.folding import fold
from utils.inference.label_maps import USUAL_THRESHOLD
from utils.pictures.contact_sheet import labelled_sheet
from utils.runs import devices, distributed, options
from utils.runs.run import Run
from utils.scores.validation import Validation, classification_map, validate
from utils.training.loop import Stage, batches_of, plan_of, train
from utils.training.losses import Losses, shown
from utils.training.optimisers import PolynomialDecay, classifier_groups, nesterov

VALIDATION_THRESHOLDS = (0.15, 0.2, 0.3, 0.4)

PANELS = 4
"""Photographs that tensorboardX shows after every epoch."""

SMALL_PATCH = 4
"""Superpixels a side: patches of the IPC loss under this are warned of."""


@dataclass(frozen=True)
class Supervision:
    """What supervises the IPC loss.

    Attributes:
        name: of the supervision, kept in checkpoints.
        layers: what the loader reads for it besides image and labels.
        target: from the normalised images (B, 3, H, W) and the batch, what is to be reconstructed,
            (B, T, H, W).
    """

    name: str
    layers: tuple[str, ...]
    target: Callable[[Tensor, dict[str, Tensor]], Tensor]


def add_options(
    parser: argparse.ArgumentParser,
    tag: str,
    patches: int,
    threshold: float,
    power: float,
    beta_train: int,
) -> None:
    """The options of a train_cls script; the arguments are what differs between the two."""
    options.add_data_options(parser, split="train_aug")
    options.add_run_options(parser, tag)
    resuming.add_options(parser)
    group = options.add_schedule_options(parser, epochs=12, lr=0.1, crop=480)
    group.add_argument("--momentum", type=options.fraction, default=4e-5, help="Nesterov momentum")
    group.add_argument(
        "--power", type=options.not_negative, default=power, help="of the polynomial decay of lr"
    )
    group.add_argument(
        "--weight_decay", type=options.not_negative, default=4e-5, help="of weights, not biases"
    )
    group.add_argument("--clip", type=options.positive, default=1.0, help="gradient norm limit")
    group.add_argument(
        "--amp", action="store_true", help="bfloat16 convolutions: less memory, faster on new GPUs"
    )
    group.add_argument(
        "--accumulate",
        type=options.count,
        default=1,
        help="take a batch in so many parts, one after the other: less memory. Batch statistics "
        "and the IPC loss's sums are then those of a part",
    )
    add_network_options(parser)
    group = parser.add_argument_group("IPC loss")
    group.add_argument("--ipc_weight", type=options.not_negative, default=0.3, help="lambda")
    group.add_argument(
        "--patches",
        type=options.count,
        default=patches,
        help="per image, a square number; fewer for small crops (1 for 112 pixels)",
    )
    group.add_argument(
        "--ipc_threshold",
        type=options.fraction,
        default=threshold,
        help="a patch counts if background and foreground both exceed this somewhere",
    )
    options.add_affinity_options(parser, beta=8, beta_train=beta_train)
    group = parser.add_argument_group("scoring after each epoch (needs masks)")
    group.add_argument(
        "--score_images",
        type=options.natural,
        default=600,
        help="first images of the split with a mask to score, and first of val for the mAP of "
        "the classification, 0 for none; fewer on a CPU",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which networks are trained, and from what."""
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--scn",
        metavar="FILE",
        help="superpixel network (default: that of the run scn, else data/scn_bsds500.pt)",
    )
    group.add_argument("--backbone", choices=options.BACKBONES, default="resnet50")
    group.add_argument(
        "--backbone_weights",
        default="imagenet",
        metavar="imagenet|none|FILE",
        help="torchvision's ImageNet weights, training from scratch, or a file of weights",
    )
    group.add_argument("--no_dcr", action="store_true", help="plain CAM network, for comparison")


class SupervisedNetwork(nn.Module):
    """The frozen SCN and the classifier as one module, so that DataParallel splits all the work.

    Args:
        classifier: learns.
        scn: a frozen copy.
        beta: steps of affinity propagation.
        gamma: affinities below this are cut.
        amp: the classifier's convolutions run in bfloat16; association maps, affinity and losses
            stay in float32.
    """

    def __init__(
        self,
        classifier: Classifier,
        scn: SuperpixelNet,
        beta: int,
        gamma: float,
        amp: bool = False,
    ) -> None:
        super().__init__()
        self.classifier, self.scn = classifier, scn
        self.beta, self.gamma, self.amp = beta, gamma, amp

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
            logits, scores = self.classifier(images, q, self.beta, self.gamma)
        return logits, scores, pooled


def scn_path(given: argparse.Namespace) -> Path:
    """The superpixel network's file: the one given, that of the run `scn`, or the shipped one."""
    trained = options.checkpoint_of(given, "scn")
    return Path(given.scn) if given.scn else trained if trained.is_file() else checkpoints.SHIPPED


def build_networks(given: argparse.Namespace, num_classes: int) -> tuple[Classifier, SuperpixelNet]:
    """The classification network to be trained and the superpixel network."""
    scn = SuperpixelNet()
    path = options.existing_file(
        scn_path(given), "--scn", "train one with train_scn.py, or name a published one"
    )
    checkpoints.load_scn(scn, path)
    weights = given.backbone_weights
    try:
        backbone = build_backbone(given.backbone, "imagenet" if weights == "imagenet" else "none")
    except (URLError, OSError, RuntimeError) as error:
        url = WEIGHTS[given.backbone].url
        raise InputError(
            f"--backbone_weights imagenet: the weights cannot be fetched ({error}); get {url} "
            f"on another machine and give --backbone_weights {url.rsplit('/', 1)[-1]}, or train "
            "from scratch with --backbone_weights none"
        ) from None
    if weights not in ("imagenet", "none"):
        checkpoints.load_backbone(
            backbone,
            options.existing_file(weights, "--backbone_weights", "give imagenet, none or a file"),
        )
    return Classifier(backbone, num_classes, dcr=not given.no_dcr), scn


def frozen_copy(scn: SuperpixelNet) -> SuperpixelNet:
    """The superpixel network as it serves training: folded, without gradients."""
    return fold(scn.eval()).requires_grad_(False)


def objective(
    network: nn.Module, supervision: Supervision, given: argparse.Namespace
) -> Callable[[dict[str, Tensor]], Losses]:
    """The losses of a batch: classification, and lambda times IPC."""

    def losses(batch: dict[str, Tensor]) -> Losses:
        boxes, labels = batch["box"], batch["labels"]
        images = normalise(channels_first(batch["image"]))
        images = images * inside(boxes, *images.shape[2:])
        target = supervision.target(images, batch)
        logits, scores, goal = network(images, target, boxes)
        classification = F.multilabel_soft_margin_loss(scores[:, 1:], labels)
        fg_cam = cam(logits[:, 1:]) * labels[:, :, None, None]
        ipc = ipc_loss(fg_cam, goal, given.patches, given.ipc_threshold, distributed.total)
        # Gradients and losses of several processes are averaged, the parts of this loss add up.
        ipc = ipc * distributed.processes()
        total = classification + given.ipc_weight * ipc
        return {"loss": total, "classification": classification, "ipc": ipc}

    return losses


class Keeper:
    """After each epoch: score the cams, keep the last and the best checkpoint.

    Args:
        given: the options.
        run: where checkpoints go.
        networks: the classifier and the frozen copy of the SCN, on the device.
        scn_state: the SCN's weights, kept in checkpoints.
        supervision: kept in checkpoints.
        collection: photographs to score; without masks only the last checkpoint is kept, and a
            few photographs are shown without scores.
        device: what to score on.
        held_back: photographs that are not trained on, for the mAP of the classification.
    """

    def __init__(
        self,
        given: argparse.Namespace,
        run: Run,
        networks: tuple[Classifier, SuperpixelNet],
        scn_state: dict[str, Tensor],
        supervision: Supervision,
        collection: Collection,
        device: torch.device,
        held_back: Collection | None = None,
    ) -> None:
        self.given, self.run, self.networks, self.device = given, run, networks, device
        self.scn_state, self.supervision = scn_state, supervision
        unmasked = set(missing_masks(collection))
        masked = [identifier for identifier in collection.ids if identifier not in unmasked]
        self.collection = collection.subset(masked[: given.score_images])
        pictured = 0 if masked or not given.score_images else PANELS
        self.pictured = collection.subset(evenly_spread(collection.ids, pictured))
        self.held_back = held_back
        self.scores = len(self.collection.ids) > 0
        self.best = best_so_far(run.folder / "best.pt") if given.resume is not None else -1.0

    def after_epoch(self, epoch: int, losses: dict[str, float]) -> None:
        """Score, log and save."""
        distributed.same_buffers(self.networks[0])
        found = self._validate() if self.scores else None
        if found is None and self.pictured.ids:
            self._show(self._infer(), USUAL_THRESHOLD, epoch)
        line, scores = f"epoch {epoch + 1}/{self.given.epochs}: {shown(losses)}", {}
        if found is not None:
            line += (
                f"; mIoU {100 * found.miou:.2f} at threshold {found.threshold:g}, "
                f"classification mAP {100 * found.mean_ap:.2f}"
            )
            scores = {"score/miou": found.miou, "score/map": found.mean_ap}
            self._show(found.shown, found.threshold, epoch)
        if self.held_back is not None:
            ap = classification_map(self.held_back, *self.networks, *self._reading())
            line += f"; on photographs held back {100 * ap:.2f}"
            scores["score/map_held_back"] = ap
        self.run.scalars(scores, epoch)
        self.run.say(line)
        if not distributed.is_first():
            return
        # Without what was found with masks: the last checkpoint is the one that uses none.
        checkpoints.save(self.run.folder / "last.pt", self._checkpoint(epoch))
        if found is not None and found.miou > self.best:
            self.best = found.miou
            checkpoints.save(self.run.folder / "best.pt", self._checkpoint(epoch, found))

    def _validate(self) -> Validation:
        return validate(
            self.collection,
            *self.networks,
            self._settings(),
            VALIDATION_THRESHOLDS,
            *self._reading(),
            show=evenly_spread(self.collection.ids, PANELS),
        )

    def _infer(self) -> list[Inferred]:
        """The photographs that are shown where nothing can be scored; by the first process."""
        if not distributed.is_first():
            return []
        self.networks[0].eval()
        device, workers, bad = self._reading()
        networks = (*self.networks, self._settings())
        return list(infer_collection(self.pictured, *networks, device, workers, "pictures", bad))

    def _settings(self) -> Settings:
        return Settings((1.0,), False, self.given.beta, self.given.gamma)

    def _reading(self) -> tuple[torch.device, int, Callable[[str], None]]:
        return self.device, options.workers(self.given, self.device), self.run.bad

    def _show(self, shown: Sequence[Inferred], threshold: float, epoch: int) -> None:
        """Photo, superpixels, CAM, pseudo label and ground truth to tensorboardX."""
        if distributed.is_first():
            title, classes = f"pseudo label ({threshold:g})", self.collection.classes
            sheet = labelled_sheet(shown, self.networks[1], labels_at(threshold), title, classes)
            self.run.picture("panels", sheet, epoch)

    def _checkpoint(self, epoch: int, found: Validation | None = None) -> dict:
        classifier = self.networks[0]
        return {
            "kind": "classifier",
            "backbone": self.given.backbone,
            "dcr": classifier.dcr is not None,
            "classes": list(self.collection.classes),
            "supervision": self.supervision.name,
            "epoch": epoch + 1,
            "miou": None if found is None else found.miou,
            "threshold": None if found is None else found.threshold,
            "model": classifier.state_dict(),
            "scn": self.scn_state,
        }


def held_back(run: Run, given: argparse.Namespace) -> Collection | None:
    """Photographs with labels that are not trained on: the first of the data set's val split."""
    if given.split == "val" or not given.score_images:
        return None
    val = None
    try:
        val = options.collection(given, "val")
    except InputError as error:  # data of one's own need not have such a split
        run.say(f"note: no photographs are held back for the mAP of the classification ({error})")
    if distributed.maximum(int(val is None))[0]:
        return None
    labelled = [identifier for identifier in val.ids if identifier in val.labels]
    return val.subset(labelled[: given.score_images]) if labelled else None


def best_so_far(path: Path) -> float:
    """The mIoU of the best checkpoint that a run has kept, -1 if there is none."""
    found = checkpoints.read(path).get("miou") if path.is_file() else None
    return float(found) if isinstance(found, int | float) else -1.0


def check_saliency(collection: Collection) -> None:
    """Refuse to start with saliency maps missing; they are counted and listed.

    Raises:
        InputError: some are.
    """
    missing = missing_saliency(collection)
    if missing:
        where = (
            collection.saliency or "no folder (give --voc_sal_root, --coco_sal_root, --sal_root)"
        )
        listed = ", ".join(missing[:20]) + (", .." if len(missing) > 20 else "")
        raise InputError(
            f"{len(missing)} of {len(collection.ids)} photographs have no saliency map in {where}: "
            f"{listed}; add <id>.png for them, or train with train_cls_image.py"
        )


def check_options(given: argparse.Namespace) -> None:
    """Refuse options that cannot go together.

    Raises:
        InputError: naming the option.
    """
    options.check_schedule(given)
    side = math.isqrt(given.patches)
    if side * side != given.patches:
        raise InputError(f"--patches {given.patches}: must be a square number, such as 1, 4 or 9")
    if given.crop // CELL < 2 * side:
        raise InputError(
            f"--crop {given.crop}: too small for --patches {given.patches}; a patch of one "
            f"superpixel has nothing to contrast, so take --crop {2 * side * CELL} or more, or "
            "fewer patches"
        )


def train_classifier(given: argparse.Namespace, supervision: Supervision, evaluator: str) -> None:
    """Train the classification network; `evaluator` is the script to run next."""
    check_options(given)
    device = devices.choose(given.device)
    collection = options.collection(given)
    require_labels(collection)
    if "saliency" in supervision.layers:
        check_saliency(collection)
    devices.seed_everything(given.seed)
    with distributed.first_goes_ahead():  # it may fetch weights
        networks = build_networks(given, collection.num_classes)
    made_from = {
        "photographs": fingerprint(collection),
        "--scn": fingerprint(networks[1].state_dict()),
    }
    if "saliency" in supervision.layers:
        paths = map(collection.saliency_path, collection.ids)
        made_from["saliency maps"] = sizes(paths)
    saved = resuming.find(given)
    if saved is not None:
        saved.refuse_changes(given, made_from)
    with resuming.open_run(given, device, saved) as run:
        keeper = train_in(run, given, supervision, collection, networks, device, made_from, saved)
        if keeper.best > -1:
            run.say(
                f"best.pt is the epoch with the best mIoU against the masks of "
                f"{len(keeper.collection.ids)} training images: more than image-level labels. "
                "last.pt uses none."
            )
        kept = run.folder / ("best.pt" if keeper.best > -1 else "last.pt")
        run.say(f"next: python {evaluator} --checkpoint {kept}")


def train_in(
    run: Run,
    given: argparse.Namespace,
    supervision: Supervision,
    collection: Collection,
    networks: tuple[Classifier, SuperpixelNet],
    device: torch.device,
    made_from: Mapping[str, str] | None = None,
    saved: resuming.Saved | None = None,
) -> Keeper:
    """Train on a collection, perhaps from a state that was kept; all goes to the run's folder."""
    classifier, scn = networks
    frozen = frozen_copy(scn)
    network = devices.parallel_training(
        SupervisedNetwork(classifier, frozen, given.beta_train, given.gamma, given.amp), device
    )
    plan = plan_of(len(collection.ids), given.batch, given.epochs)
    run.say(
        f"training on {plan.images} photographs of {collection.name} {collection.split}, "
        f"{len(collection.classes)} classes, {plan.epochs} epochs of {plan.steps_per_epoch} "
        f"steps, on {devices.describe(device)}; {given.backbone} from {given.backbone_weights}, "
        f"SCN {scn_path(given)}; writing to {run.folder}"
    )
    side = given.crop // CELL // math.isqrt(given.patches)
    if given.ipc_weight and side < SMALL_PATCH:
        run.say(
            f"note: --patches {given.patches} cuts crops of {given.crop} into patches of {side} x "
            f"{side} superpixels, too small to hold an object and its background (the paper's have "
            "10 x 10); give fewer patches or larger crops"
        )
    layers = ("labels", *supervision.layers)
    crops = TrainingCrops(
        collection, given.crop, given.long_side, given.seed, layers, given.skip_bad
    )
    optimizer = nesterov(
        classifier_groups(classifier, given.lr, given.weight_decay), given.momentum
    )
    keeper = Keeper(
        given,
        run,
        (classifier, frozen),
        scn.state_dict(),
        supervision,
        collection,
        device,
        held_back(run, given),
    )
    stage = Stage(
        model=network,
        learner=classifier,
        objective=objective(network, supervision, given),
        optimizer=optimizer,
        decay=PolynomialDecay(optimizer, plan.steps, given.power),
        after_epoch=keeper.after_epoch,
        clip=given.clip,
        accumulate=given.accumulate,
        made_from=made_from or {},
    )
    workers = options.workers(given, device)
    train(run, plan, batches_of(crops, plan, workers, device.type == "cuda"), stage, device, saved)
    return keeper
