"""How long is a training step of the classifier, beside its own convolutions?

    python -m benchmarks.training [--size full] [--tables steps ways compiled]

The floor is the frozen SCN's forward pass and the bare ResNet's forward and backward pass.
"""

import copy
from functools import partial

import torch

from benchmarks.measure import Report
from benchmarks.plain_pipeline import PlainClassifier, losses
from benchmarks.steps import Way, parse_step_options, report_steps, step
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.crops import channels_first
from networks.normalisation import normalise
from networks.superpixel import SuperpixelNet
from utils.runs.devices import parallel
from utils.training.supervision import ClassifierLoss, SupervisedNetwork, Supervision, frozen_copy


class Workload:
    """One batch and the three ways to take a step on it; see benchmarks.steps.

    Args:
        way: how it is computed.
        batch: images.
        side: of the square crops, pixels.
        num_classes: C.
        backbone: name.
        beta: steps of affinity propagation.
        device: where.
    """

    def __init__(
        self,
        way: Way,
        batch: int,
        side: int,
        num_classes: int = 21,
        backbone: str = "resnet50",
        beta: int = 8,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(0)
        self.way, self.beta, self.device = way, beta, torch.device(device)
        scn = SuperpixelNet().eval()
        self.learner = Classifier(build_backbone(backbone), num_classes)
        self.learner.backbone.freeze_statistics()
        self.plain = PlainClassifier(build_backbone(backbone), num_classes)
        self.plain.backbone.freeze_statistics()
        self.plain.load_state_dict(self.learner.state_dict())
        self.plain.to(self.device).train()
        self.plain_scn = copy.deepcopy(scn).to(self.device)
        self.scn = parallel(frozen_copy(scn), self.device)
        network = SupervisedNetwork(self.learner, frozen_copy(scn), beta, 0.6, amp=way.amp)
        self.model = way.arranged(parallel(network, self.device).train())
        self.floor = parallel(build_backbone(backbone), self.device)
        self.floor.freeze_statistics()
        images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
        labels = torch.zeros(batch, num_classes - 1)
        labels[:, :2] = 1
        box = torch.tensor([[0, 0, side, side]] * batch)
        self.batch = {"image": images, "labels": labels, "box": box}
        self.batch = {k: v.to(self.device) for k, v in self.batch.items()}
        supervision = Supervision("image", (), lambda images, _: images, evaluator="")
        self.objective = ClassifierLoss(
            self.model, supervision, ipc_weight=0.3, patches=9, ipc_threshold=0.1
        )
        self.runs = {
            "plain": self.plain_step,
            "ours": partial(step, self),
            "floor": self.floor_step,
        }

    def plain_step(self) -> None:
        """Forward and backward pass of the plain formulation."""
        images = normalise(channels_first(self.batch["image"])).contiguous()
        self.plain.zero_grad(set_to_none=True)
        with self.way.autocast(self.device):
            loss = losses(self.plain, self.plain_scn, images, self.batch["labels"], self.beta)
        loss.backward()

    def floor_step(self) -> None:
        """The frozen SCN forward, the ResNet forward and backward, and nothing else."""
        images = normalise(channels_first(self.batch["image"]))
        with torch.no_grad():
            self.scn(images)
        self.floor.zero_grad(set_to_none=True)
        with self.way.autocast(self.device):
            out = self.floor.stage5(self.floor.stem_to_4(images)).mean()
        out.backward()


def main() -> None:
    """Print the tables."""
    given = parse_step_options(__doc__)
    sizes: dict[str, dict] = {"batch 2, 480x480": {"batch": 2, "side": 480}}
    if given.size == "tiny":
        sizes = {"batch 2, 64x64": {"batch": 2, "side": 64, "backbone": "resnet18"}}
    elif given.device != "cpu":
        sizes = {"batch 16, 480x480": {"batch": 16, "side": 480}}
    elif given.size == "full":
        for side in (240, 336, 672, 480):
            sizes[f"batch 1, {side}x{side}"] = {"batch": 1, "side": side}
        sizes["batch 2, 480x480, 81 classes"] = {"batch": 2, "side": 480, "num_classes": 81}
        sizes["batch 2, 480x480, beta 0"] = {"batch": 2, "side": 480, "beta": 0}
    cases = {name: partial(Workload, device=given.device, **size) for name, size in sizes.items()}
    report_steps(Report(given), given, "classifier", cases)


if __name__ == "__main__":
    main()
