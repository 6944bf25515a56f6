"""How long is a training step, and the inference, of DeepLab beside its bare passes?

    python -m benchmarks.segmentation [--size full] [--tables steps ways compiled]

The floor is trunk and head at the same three sizes, forward (and backward in training), on images
that are already resized: no maximum over the scales, no loss.
"""

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Report, compare, peak_memory
from benchmarks.steps import Way, parse_step_options, report_steps, step
from networks.crops import channels_first
from networks.deeplab import SCALES, DeepLab, bilinear, rescale
from networks.dilated import build_trunk
from networks.normalisation import normalise
from utils.inference.folding import fold
from utils.runs.devices import keep_freed_memory, parallel
from utils.training.segmentation import SummedLoss, mean_over_pixels


class Workload:
    """One batch and the two ways to take a step on it; see benchmarks.steps.

    Args:
        way: how it is computed.
        batch: images.
        side: of the square crops, pixels.
        backbone: name.
        device: where.
    """

    def __init__(
        self, way: Way, batch: int, side: int, backbone: str = "resnet101", device: str = "cpu"
    ) -> None:
        torch.manual_seed(0)
        self.way, self.device = way, torch.device(device)
        self.learner = DeepLab(build_trunk(backbone), 21)
        self.learner.trunk.freeze_statistics()
        loss = SummedLoss(self.learner, way.amp)
        self.model = way.arranged(parallel(loss, self.device).train())
        self.objective = mean_over_pixels(self.model, loss.names)
        pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
        labels = torch.randint(0, 21, (batch, side, side), dtype=torch.uint8)
        self.batch = {"image": pixels.to(self.device), "mask": labels.to(self.device)}
        self.runs = {"ours": partial(step, self), "floor": self.floor_step}
        images = normalise(channels_first(self.batch["image"]))
        self.scaled = [rescale(images, scale) for scale in SCALES]

    def floor_step(self) -> None:
        """Trunk and head at three sizes, forward and backward."""
        self.learner.zero_grad(set_to_none=True)
        with self.way.autocast(self.device):
            out = sum(self.learner.one_scale(images).mean() for images in self.scaled)
        out.backward()


class Photograph:
    """One photograph, and its inference.

    Args:
        size: (height, width), pixels.
        backbone: name.
        device: where.
    """

    def __init__(self, size: tuple[int, int], backbone: str, device: str) -> None:
        torch.manual_seed(0)
        network = fold(DeepLab(build_trunk(backbone), 21).eval())
        self.network, self.folded = network, parallel(network, torch.device(device))
        self.image = normalise(torch.randint(0, 256, (1, 3, *size), device=device))
        self.scaled = [rescale(self.image, scale) for scale in SCALES]

    @torch.no_grad()
    def ours(self) -> Tensor:
        """Probabilities at the photograph's size, batch normalisation folded."""
        return bilinear(self.folded(self.image), self.image.shape[2:]).softmax(1)

    @torch.no_grad()
    def floor(self) -> None:
        """The folded trunk and head at three sizes."""
        for images in self.scaled:
            self.network.one_scale(images)


def inference_rows(given: argparse.Namespace) -> Iterator[list[object]]:
    """The inference of a photograph."""
    tiny = given.size == "tiny"
    size, backbone = ((48, 64), "resnet18") if tiny else ((375, 500), "resnet101")
    work = Photograph(size, backbone, given.device)
    runs = {"ours": work.ours, "floor": work.floor}
    times = compare(runs, given.repeats, warmup=1)
    memory = [peak_memory(run, given.device) / 1e6 for run in runs.values()]
    spreads = [times.spread(run, 1e3) for run in runs]
    yield [f"{size[0]}x{size[1]}", *spreads, times.ratio("ours", "floor"), *memory]


def main() -> None:
    """Print the tables."""
    given = parse_step_options(__doc__)
    keep_freed_memory()
    sizes: dict[str, dict] = {"batch 2, 321x321": {"batch": 2, "side": 321}}
    if given.size == "tiny":
        sizes = {"batch 2, 65x65": {"batch": 2, "side": 65, "backbone": "resnet18"}}
    elif given.device != "cpu":
        sizes = {"batch 10, 321x321": {"batch": 10, "side": 321}}
    elif given.size == "full":
        sizes["batch 2, 321x321, ResNet-50"] = {"batch": 2, "side": 321, "backbone": "resnet50"}
    cases = {name: partial(Workload, device=given.device, **size) for name, size in sizes.items()}
    report = Report(given)
    report_steps(report, given, "segmentation network", cases)
    if "steps" in given.tables:
        header = ["photograph", "ours ms", "floor ms", "ours / floor", "ours MB", "floor MB"]
        report.add("Inference of DeepLab-V2", header, inference_rows(given))


if __name__ == "__main__":
    main()
