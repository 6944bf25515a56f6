"""Step 6, the recipe of the segmentation network. docs/method.md, section 5."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets.collection import Collection, evenly_spread, with_masks
from datasets.files import InputError
from datasets.images import IGNORE, first_colour, image_header, read_label_map
from datasets.loading import SegmentationCrops
from networks.crops import channels_first
from networks.deeplab import DeepLab, cross_entropy_sums
from networks.dilated import build_trunk
from networks.normalisation import normalise
from utils.checkpoints import built, fetched, load_trunk, trunk_kind
from utils.checkpoints.beginning import Beginning
from utils.runs import devices, distributed, options
from utils.runs.best_labels import best_labels, require_same_classes
from utils.runs.data import open_split
from utils.runs.fingerprints import fingerprint, sizes
from utils.runs.run import Run
from utils.runs.wording import counted, counted_ids
from utils.training.loop import Stage, batches_of, plan_of, train
from utils.training.losses import Losses
from utils.training.optimisers import segmentation_groups, sgd
from utils.training.segmentation_epochs import SegmentationEpochs, photographs_to_score
from utils.training.segmentation_options import MASKS, SegmentationSettings

DECAY_EVERY = 10
"""Steps between two decays of the learning rate."""

LARGE = 8
"""Photographs of so many crops a side are warned of; the largest of VOC and COCO have three."""

BLACK = (0, 0, 0)

LOOKED_AT = 200
"""Photographs and label maps read at the start, evenly spread."""

TRAINING_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Of a photograph's sides before it is cropped; one is drawn each time."""


def train_segmentation(settings: SegmentationSettings) -> None:
    """The recipe: photographs, labels, network, loss, optimiser, loop, what is kept."""
    device = devices.choose(settings.run.device)
    photographs = open_split(settings.data)
    labelled, labels = with_labels(settings, photographs)
    made_from = {
        "photographs": fingerprint(labelled),
        "labels": sizes(map(labelled.mask_path, labelled.ids)),
    }
    beginning = Beginning(settings.run, settings.resuming, made_from)
    devices.seed_everything(settings.run.seed)
    with distributed.first_goes_ahead():  # it may fetch weights
        network = build_network(settings, photographs.num_classes)
    with beginning.open_run(device) as run:
        epochs = settings.steps // settings.score_every
        plan = plan_of(len(labelled.ids), settings.batch, epochs, settings.score_every)
        run.say(
            f"training on {counted(plan.images, 'photograph')} of {labelled.name} "
            f"{labelled.split}, labels from {labels}, {plan.steps} steps of {plan.batch} crops, "
            f"scored every {plan.steps_per_epoch}, on {devices.describe(device)}; "
            f"{settings.backbone} from {settings.backbone_weights}; writing to {run.folder}"
        )
        say_what_is_missing(run, photographs, labelled)
        crops = SegmentationCrops(
            labelled,
            settings.crop,
            TRAINING_SCALES,
            settings.run.seed,
            settings.run.skip_bad,
        )
        loss = SummedLoss(network, settings.amp)
        model = devices.parallel_training(loss, device)
        groups = segmentation_groups(network, settings.learning.lr, settings.learning.weight_decay)
        optimizer = sgd(groups, settings.learning.momentum)
        network.max_side = max_side_of(labelled)
        if (network.max_side or 0) > LARGE * settings.crop:
            run.note(
                f"photographs have up to {network.max_side} pixels in training "
                f"({max(TRAINING_SCALES):g} times their size), and crops {settings.crop}; objects "
                "should fit into a crop: scale photographs and label maps down first"
            )
        scored = photographs_to_score(run, settings)
        kept = SegmentationEpochs(run, settings, network, labelled.classes, scored)
        objective = mean_over_pixels(model, loss.names)
        stage = Stage(
            model, network, objective, optimizer, kept.after_epoch, settings.learning, DECAY_EVERY
        )
        batches = batches_of(crops, plan, run.workers, device.type == "cuda")
        train(run, beginning, plan, batches, stage)
        kept.say_which()


class SummedLoss(nn.Module):
    """The network and the sums of its loss as one module, so that DataParallel splits both.

    Args:
        network: learns.
        amp: the convolutions run in bfloat16.

    Attributes:
        names: of the losses: the sum, those of every scale, that of the maximum.
    """

    def __init__(self, network: DeepLab, amp: bool = False) -> None:
        super().__init__()
        self.network, self.amp = network, amp
        each = [f"scale_{scale:g}" for scale in network.scales]
        self.names = ("loss", *each, "maximum") if len(each) > 1 else ("loss", *each)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), labels (B, H, W) -> (1, 2, n): sums and pixels."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            outputs = self.network(images)
        return cross_entropy_sums(outputs, labels)[None]


def mean_over_pixels(
    model: nn.Module, names: Sequence[str]
) -> Callable[[dict[str, Tensor]], Losses]:
    """The losses of a batch by name: the means over its labelled pixels.

    Args:
        model: a SummedLoss, perhaps split over devices or one of several processes.
        names: of its losses.
    """

    def losses(batch: dict[str, Tensor]) -> Losses:
        sums, counts = model(*inputs(batch)).sum(0)
        # Gradients and losses of several processes are averaged, the parts of this loss add up.
        each = sums / distributed.all_reduce_sum(counts).clamp(min=1) * distributed.world_size()
        return dict(zip(names, (each.sum(), *each), strict=True))

    return losses


def inputs(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What a SummedLoss takes of a batch: normalised images and labels."""
    return normalise(channels_first(batch["image"])), batch["mask"].long()


def with_labels(settings: SegmentationSettings, photographs: Collection) -> tuple[Collection, str]:
    """The photographs that have a label map, with that folder as their masks.

    Returns:
        (those photographs, where the labels come from in words).

    Raises:
        InputError: there are no label maps.
    """
    if settings.pseudo_labels == MASKS:
        folder, words = photographs.masks, "the masks (full supervision)"
        if folder is None:
            raise InputError(
                f"--pseudo_labels masks: {photographs.name} {photographs.split} has no masks"
            )
    elif settings.pseudo_labels is not None:
        folder = Path(settings.pseudo_labels)
        words = str(folder)
        if not folder.is_dir():
            raise InputError(f"--pseudo_labels {folder}: no such folder; make it with an evaluator")
        for parent in folder.resolve().parents[:2]:  # of masks, and of pseudo_labels/<threshold>
            require_same_classes(parent, photographs.classes)
    else:
        evaluation = Path(settings.labels_from)
        if len(evaluation.parts) == 1:  # a tag
            evaluation = Path(settings.run.experiments) / evaluation
        folder = best_labels(evaluation)
        require_same_classes(evaluation, photographs.classes)
        words = f"{folder} (the choice of {settings.labels_from})"
    labelled = replace(photographs, masks=folder)
    labelled = labelled.subset(with_masks(labelled))
    if not labelled.ids:
        raise InputError(
            f"{folder}: holds no label map <id>.png of {photographs.name} {photographs.split}"
            f"{those_inside(folder, photographs.ids[0])}; evaluate that split, or name another "
            "with --pseudo_labels"
        )
    return labelled, words


def those_inside(folder: Path, identifier: str) -> str:
    """A hint at label maps of a photograph that lie one or two folders deeper, if there are any."""
    found = [*folder.glob(f"*/{identifier}.png"), *folder.glob(f"*/*/{identifier}.png")]
    return f" (but {min(found).parent} does)" if found else ""


def max_side_of(photographs: Collection) -> int | None:
    """The longest side that photographs may have when they are scaled in training, in pixels.

    Of those looked at; None where none can be read.
    """
    sides = []
    for identifier in evenly_spread(photographs.ids, LOOKED_AT):
        with suppress(InputError):  # the loader says so when the photograph's turn comes
            sides += image_header(photographs.images[identifier])[1]
    return round(max(TRAINING_SCALES) * max(sides)) if sides else None


def about_label_maps(labelled: Collection) -> list[str]:
    """Notes on label maps that teach nothing, or something else than they seem to."""
    empty, odd = [], []
    looked_at = evenly_spread(labelled.ids, LOOKED_AT)
    for identifier in looked_at:
        path = labelled.mask_path(identifier)
        with suppress(InputError):  # the loader says so when the photograph's turn comes
            labels = read_label_map(path)
            if not ((labels > 0) & (labels < IGNORE)).any():
                empty.append(identifier)
            if first_colour(path) not in (None, BLACK):
                odd.append(identifier)
    notes = []
    if 2 * len(empty) > len(looked_at):
        notes.append(
            f"most label maps hold no object: {counted_ids(empty)} of {len(looked_at)} looked at"
        )
    if odd:
        notes.append(
            "index 0 is background, and its colour is not black; a paint program may have put the "
            f"palette into another order: {counted_ids(odd)} of {len(looked_at)} looked at"
        )
    return notes


def say_what_is_missing(run: Run, photographs: Collection, labelled: Collection) -> None:
    """Say how many photographs are left out for want of a label map, and what else to know."""
    run.note(*photographs.notes, *about_label_maps(labelled))
    there = set(labelled.ids)
    missing = [identifier for identifier in photographs.ids if identifier not in there]
    if missing:
        run.note(
            f"{len(missing)} of {len(photographs.ids)} photographs have no label map, such as "
            f"{missing[0]}: trained without them"
        )


def build_network(settings: SegmentationSettings, num_classes: int) -> DeepLab:
    """The network to be trained, from ImageNet weights, a file, or from scratch.

    Raises:
        InputError: the weights cannot be read or fetched.
    """
    weights, backbone = settings.backbone_weights, settings.backbone

    def build(source: str, kind: str = "torchvision") -> DeepLab:
        trunk = build_trunk(backbone, kind, source, settings.stride)
        return DeepLab(trunk, num_classes)

    if weights in ("imagenet", "none"):
        return fetched(build, backbone, weights)
    file = options.existing_file(weights, "--backbone_weights", "give imagenet, none or a file")
    network = built(partial(build, "none", trunk_kind(file)), file)
    load_trunk(network, file)
    return network
