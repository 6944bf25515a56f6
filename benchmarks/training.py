"""How long is a training step of the classifier, beside its own convolutions?

    python -m benchmarks.training [--size full]

The floor is the frozen SCN's forward pass and the bare ResNet's forward and backward pass.
"""

import argparse
import copy

import torch
from torch import nn

from benchmarks.measure import compare, machine, peak_memory, table
from benchmarks.options import parse
from benchmarks.plain_pipeline import PlainClassifier, losses
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.normalisation import channels_first, normalise
from networks.superpixel import SuperpixelNet
from utils.runs.devices import parallel
from utils.training.classifier import SupervisedNetwork, Supervision, frozen_copy, objective


class Workload:
    """One batch and the three ways to take a step on it; nothing is updated.

    Args:
        batch: images.
        side: of the square crops, pixels.
        num_classes: C.
        backbone: name.
        beta: steps of affinity propagation.
        device: where.
    """

    def __init__(
        self,
        batch: int,
        side: int,
        num_classes: int = 21,
        backbone: str = "resnet50",
        beta: int = 8,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(0)
        self.beta, self.device = beta, torch.device(device)
        scn = SuperpixelNet().eval()
        ours = Classifier(build_backbone(backbone), num_classes)
        ours.backbone.freeze_statistics()
        self.plain = PlainClassifier(build_backbone(backbone), num_classes)
        self.plain.backbone.freeze_statistics()
        self.plain.load_state_dict(ours.state_dict())
        self.plain.to(self.device).train()
        self.plain_scn = copy.deepcopy(scn).to(self.device)
        network = SupervisedNetwork(ours, frozen_copy(scn), beta, 0.6)
        self.network = parallel(network, self.device).train()
        self.floor = parallel(build_backbone(backbone), self.device)
        self.floor.freeze_statistics()
        images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
        labels = torch.zeros(batch, num_classes - 1)
        labels[:, :2] = 1
        box = torch.tensor([[0, 0, side, side]] * batch)
        self.batch = {"image": images, "labels": labels, "box": box}
        self.batch = {k: v.to(self.device) for k, v in self.batch.items()}
        given = argparse.Namespace(patches=9, ipc_threshold=0.1, ipc_weight=0.3)
        supervision = Supervision("image", (), lambda images, _: images)
        self.objective = objective(self.network, supervision, given)

    def plain_step(self) -> None:
        """Forward and backward pass of the plain formulation."""
        images = normalise(channels_first(self.batch["image"])).contiguous()
        self.plain.zero_grad(set_to_none=True)
        loss = losses(self.plain, self.plain_scn, images, self.batch["labels"], self.beta)
        loss.backward()

    def our_step(self) -> None:
        """Forward and backward pass as utils.training.classifier trains."""
        self.network.zero_grad(set_to_none=True)
        self.objective(self.batch)["loss"].backward()

    def floor_step(self) -> None:
        """The frozen SCN forward, the ResNet forward and backward, and nothing else."""
        images = normalise(channels_first(self.batch["image"]))
        module = self.network.module if isinstance(self.network, nn.DataParallel) else self.network
        with torch.no_grad():
            module.scn(images)
        self.floor.zero_grad(set_to_none=True)
        self.floor.stage5(self.floor.stem_to_4(images)).mean().backward()


def measure_row(name: str, work: Workload, repeats: int) -> list[object]:
    """One row of the table."""
    steps = {"plain": work.plain_step, "ours": work.our_step, "floor": work.floor_step}
    times = compare(steps, repeats, warmup=1)
    memory = [peak_memory(step, work.device) / 1e6 for step in (work.plain_step, work.our_step)]
    medians = [1e3 * times.median(step) for step in steps]
    ratios = [str(times.ratio("ours", "floor")), str(times.ratio("plain", "ours"))]
    images = len(work.batch["image"]) / times.median("ours")
    return [name, *medians, *ratios, images, *memory]


def main() -> None:
    """Print the table."""
    given = parse(__doc__)
    full = given.size == "full"
    cases = [("batch 2, 480x480", {"batch": 2, "side": 480})]
    if given.device != "cpu":
        cases.append(("batch 16, 480x480", {"batch": 16, "side": 480}))
    if full:
        cases += [
            (f"batch 1, {side}x{side}", {"batch": 1, "side": side}) for side in (240, 336, 672)
        ]
        cases += [
            ("batch 1, 480x480", {"batch": 1, "side": 480}),
            ("batch 2, 480x480, 81 classes", {"batch": 2, "side": 480, "num_classes": 81}),
            ("batch 2, 480x480, beta 0", {"batch": 2, "side": 480, "beta": 0}),
        ]
    rows = [
        measure_row(name, Workload(**case, device=given.device), given.repeats)
        for name, case in cases
    ]
    header = [
        "training step", "plain ms", "ours ms", "floor ms", "ours / floor", "plain / ours",
        "images/s", "plain MB", "ours MB",
    ]  # fmt: skip
    print(machine())
    print(table("Training step of the classifier, ResNet-50", header, rows))


if __name__ == "__main__":
    main()
