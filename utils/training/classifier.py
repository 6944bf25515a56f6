"""Step 4, the recipe of the classification network. docs/method.md, section 2."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from datasets.collection import (
    Collection,
    about_classes,
    evenly_spread,
    missing_saliency,
    require_labels,
)
from datasets.files import InputError
from datasets.loading import TrainingCrops
from datasets.prepared import LAYOUTS
from datasets.saliency import coverage_of, look_at, suspicions
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import CELL, SuperpixelNet
from utils import checkpoints
from utils.checkpoints.beginning import Beginning
from utils.runs import devices, distributed, options
from utils.runs.data import open_split
from utils.runs.fingerprints import fingerprint, sizes
from utils.runs.run import Run
from utils.runs.wording import counted
from utils.training.classifier_epochs import ClassifierEpochs, photographs_held_back
from utils.training.classifier_options import ClassifierSettings, NetworkSettings
from utils.training.loop import Stage, batches_of, in_steps, plan_of, train
from utils.training.optimisers import classifier_groups, sgd
from utils.training.supervision import (
    ClassifierLoss,
    SupervisedNetwork,
    Supervision,
    frozen_copy,
)

SMALL_PATCH = 4
"""Superpixels a side: patches of the IPC loss under this are warned of."""

MANY_PASSES = 100
"""Passes over the photographs from which on the IPC loss by colour is warned of. On 118 photographs
22 gained and 193 lost; the paper's schedule has 12."""

LOOKED_AT = 200
"""Saliency maps read at the start, evenly spread: VOC's 10 582 would take 15 s and COCO's 2 min."""


def train_classifier(settings: ClassifierSettings, supervision: Supervision) -> None:
    """Train the classification network on a split; says what to run next."""
    device = devices.choose(settings.run.device)
    photographs = open_split(settings.data)
    require_labels(photographs)
    made_from = {"photographs": fingerprint(photographs)}
    if "saliency" in supervision.layers:
        require_saliency(photographs)
        maps = map(photographs.saliency_path, photographs.ids)
        made_from["saliency maps"] = sizes(maps)
    beginning = Beginning(settings.run, settings.resuming, made_from)
    devices.seed_everything(settings.run.seed)
    scn_file = superpixel_file(settings)
    with distributed.first_goes_ahead():  # it may fetch weights
        networks = build_networks(settings.networks, scn_file, photographs.num_classes)
    beginning.also_made_from({"--scn": fingerprint(networks[1].state_dict())})
    with beginning.open_run(device) as run:
        announce(run, settings, photographs, scn_file)
        if "saliency" in supervision.layers:
            about_saliency(run, photographs)
        else:
            about_passes(run, settings)
        kept = train_networks(run, beginning, settings, supervision, photographs, networks)
        kept.say_which()


def train_networks(
    run: Run,
    beginning: Beginning,
    settings: ClassifierSettings,
    supervision: Supervision,
    photographs: Collection,
    networks: tuple[Classifier, SuperpixelNet],
) -> ClassifierEpochs:
    """The recipe: network, crops, loss, optimiser, loop, and what is kept after an epoch."""
    classifier, scn = networks
    schedule = settings.schedule
    plan = plan_of(len(photographs.ids), schedule.batch, schedule.epochs)
    frozen = frozen_copy(scn)
    affinity = (settings.beta_train, settings.gamma, settings.gamma_keep)
    network = SupervisedNetwork(classifier, frozen, *affinity, settings.amp)
    network = devices.parallel_training(network, run.device)
    layers = ("labels", *supervision.layers)
    crops = TrainingCrops(
        photographs,
        schedule.crop,
        schedule.long_side,
        settings.run.seed,
        layers,
        settings.run.skip_bad,
    )
    loss = ClassifierLoss(
        network,
        supervision,
        settings.ipc_weight,
        settings.patches_a_side**2,
        settings.ipc_threshold,
    )
    groups = classifier_groups(classifier, settings.learning.lr, settings.learning.weight_decay)
    optimizer = sgd(groups, settings.learning.momentum, nesterov=True)
    kept = ClassifierEpochs(
        run,
        settings,
        plan,
        supervision,
        (classifier, frozen),
        scn.state_dict(),
        photographs,
        photographs_held_back(run, settings),
    )
    stage = Stage(network, classifier, loss, optimizer, kept.after_epoch, settings.learning)
    batches = batches_of(crops, plan, run.workers, run.device.type == "cuda")
    train(run, beginning, plan, batches, stage)
    return kept


def announce(
    run: Run,
    settings: ClassifierSettings,
    photographs: Collection,
    scn_file: Path,
) -> None:
    """Say what is trained on what, and what may be unwanted about it."""
    plan = plan_of(len(photographs.ids), settings.schedule.batch, settings.schedule.epochs)
    networks = settings.networks
    run.say(
        f"training on {counted(plan.images, 'photograph')} of {photographs.name} "
        f"{photographs.split}, {counted(len(photographs.classes), 'class', 'classes')}, "
        f"{in_steps(plan)}, on {devices.describe(run.device)}; {networks.backbone} from "
        f"{networks.backbone_weights}, superpixel network {scn_file}; writing to {run.folder}"
    )
    run.note(*photographs.notes, *about_classes([photographs]))
    if networks.scn is None:
        about_superpixels(run, scn_file, photographs)
    about_patches(run, settings)


def about_superpixels(run: Run, scn_file: Path, photographs: Collection) -> None:
    """Say of a superpixel network that nobody named if it is unfinished or of other photographs."""
    if scn_file == checkpoints.SHIPPED:
        return
    found: Mapping[str, object] = checkpoints.read(scn_file)
    trained_on, epoch, epochs = (found.get(name) for name in ("dataset", "epoch", "epochs"))
    if trained_on != photographs.name or epoch != epochs:
        run.note(
            f"{scn_file} was trained on {trained_on or 'an unknown data set'} and is in "
            f"epoch {epoch or '?'} of {epochs or '?'}; --scn FILE names another"
        )


def about_saliency(run: Run, photographs: Collection) -> None:
    """Say how many saliency maps there are, how much they cover, and what is odd about them."""
    looks, total = [], len(photographs.ids)
    for identifier in evenly_spread(photographs.ids, LOOKED_AT):
        with suppress(InputError):  # the loader says so when the photograph's turn comes
            looks.append(look_at(photographs.saliency_path(identifier)))
    of_these = f" (of {len(looks)} looked at)" if len(looks) < total else ""
    run.say(f"saliency maps: {total} of {total} photographs, {coverage_of(looks)}{of_these}")
    run.note(*suspicions(looks))


def about_patches(run: Run, settings: ClassifierSettings) -> None:
    """Say of a number of patches that was given if they are small."""
    side = settings.schedule.crop // CELL // settings.patches_a_side
    if settings.patches and settings.ipc_weight and side < SMALL_PATCH:
        run.note(
            f"--patches {settings.patches} cuts crops of {settings.schedule.crop} into "
            f"patches of {side} x {side} superpixels, too small to hold an object and its "
            "background (the paper's have 10 x 10); leave the number to --patch"
        )


def about_passes(run: Run, settings: ClassifierSettings) -> None:
    """Say of a training supervised by the image if it is so long that its IPC loss may do harm."""
    if settings.schedule.epochs >= MANY_PASSES and settings.ipc_weight:
        run.note(
            f"{settings.schedule.epochs} passes over the photographs: in so many the IPC loss has "
            "been seen to make cams worse; give fewer --epochs, or --ipc_weight 0 "
            "(docs/experiments.md#what-the-ipc-loss-asks-for)"
        )


def superpixel_file(settings: ClassifierSettings) -> Path:
    """The superpixel network's file: the one named, that of the run `scn`, or the shipped one."""
    trained = options.checkpoint_of(settings.run.experiments, "scn")
    named = settings.networks.scn
    path = named or (trained if trained.is_file() else checkpoints.SHIPPED)
    return options.existing_file(path, "--scn", "train one with train_scn.py, or name another")


def build_networks(
    networks: NetworkSettings, scn_file: Path, num_classes: int
) -> tuple[Classifier, SuperpixelNet]:
    """The classification network to be trained and the superpixel network.

    Raises:
        InputError: weights cannot be read or fetched.
    """
    scn = SuperpixelNet()
    checkpoints.load_scn(scn, scn_file)
    weights = networks.backbone_weights
    build = partial(build_backbone, networks.backbone)
    backbone = checkpoints.fetched(build, networks.backbone, weights)
    if weights not in ("imagenet", "none"):
        file = options.existing_file(weights, "--backbone_weights", "give imagenet, none or a file")
        checkpoints.load_backbone(backbone, file)
    return Classifier(backbone, num_classes, dcr=not networks.no_dcr), scn


def require_saliency(photographs: Collection) -> None:
    """Refuse to start with saliency maps missing; they are counted and listed.

    Raises:
        InputError: some are.
    """
    missing = missing_saliency(photographs)
    if missing:
        folder = photographs.saliency
        option = LAYOUTS[photographs.name].SALIENCY_OPTION
        where = f" in {folder}" if folder else f" (no folder of them is set; give {option})"
        listed = ", ".join(missing[:20]) + (", .." if len(missing) > 20 else "")
        raise InputError(
            f"{len(missing)} of {len(photographs.ids)} photographs have no saliency map"
            f"{where}: {listed}; add <id>.png for them, or train with train_cls_image.py"
        )
