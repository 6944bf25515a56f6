"""How long is a training step, and the inference, of DeepLab beside its bare passes?

    python -m benchmarks.segmentation [--size full]

The floor is trunk and head at the same three sizes, forward (and backward in training), on images
that are already resized: no maximum over the scales, no loss.
"""

import torch
from torch import Tensor, nn

from benchmarks.measure import compare, machine, peak_memory, table
from benchmarks.options import parse
from networks.deeplab import SCALES, DeepLab, bilinear, rescale, segmentation_loss
from networks.dilated import build_trunk
from networks.normalisation import channels_first, normalise
from utils.inference.folding import fold
from utils.runs.devices import keep_freed_memory, parallel


class Workload:
    """One batch, and a training step and the inference on it; nothing is updated.

    Args:
        batch: images.
        size: their (height, width), pixels.
        backbone: name.
        device: where.
    """

    def __init__(
        self, batch: int, size: tuple[int, int], backbone: str = "resnet101", device: str = "cpu"
    ) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        network = DeepLab(build_trunk(backbone), 21)
        network.trunk.freeze_statistics()
        self.folded = parallel(fold(network.eval()), self.device)
        self.network = parallel(network, self.device).train()
        self.bare, self.bare_folded = bare(self.network), bare(self.folded)
        pixels = torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, device=self.device)
        self.labels = torch.randint(0, 21, (batch, *size), dtype=torch.uint8, device=self.device)
        self.images = normalise(channels_first(pixels))
        self.scaled = [rescale(self.images, scale) for scale in SCALES]

    def our_step(self) -> None:
        """Forward and backward pass of the loss at three scales."""
        self.network.zero_grad(set_to_none=True)
        segmentation_loss(self.network(self.images), self.labels)[0].backward()

    def floor_step(self) -> None:
        """Trunk and head at three sizes, forward and backward."""
        self.network.zero_grad(set_to_none=True)
        sum(self.bare.one_scale(images).mean() for images in self.scaled).backward()

    @torch.no_grad()
    def our_inference(self) -> Tensor:
        """Probabilities at the images' size, batch normalisation folded."""
        return bilinear(self.folded(self.images), self.images.shape[2:]).softmax(1)

    @torch.no_grad()
    def floor_inference(self) -> None:
        """The folded trunk and head at three sizes."""
        for images in self.scaled:
            self.bare_folded.one_scale(images)


def bare(network: nn.Module) -> nn.Module:
    """The network itself, on one GPU."""
    return network.module if isinstance(network, nn.DataParallel) else network


def main() -> None:
    """Print the table."""
    given = parse(__doc__)
    keep_freed_memory()
    cases = [("2 crops of 321x321", "step", {"batch": 2, "size": (321, 321)})]
    cases.append(("a photograph, 375x500", "inference", {"batch": 1, "size": (375, 500)}))
    if given.size == "full":
        cases.append(("2 crops, ResNet-50", "step", {**cases[0][2], "backbone": "resnet50"}))
    rows = []
    for name, what, case in cases:
        work = Workload(**case, device=given.device)
        runs = {"ours": getattr(work, f"our_{what}"), "floor": getattr(work, f"floor_{what}")}
        times = compare(runs, given.repeats, warmup=1)
        memory = [peak_memory(run, work.device) / 1e6 for run in runs.values()]
        seconds = [times.median(run) for run in runs]
        rows.append([f"{what}, {name}", *seconds, str(times.ratio("ours", "floor")), *memory])
    header = ["DeepLab-V2", "ours s", "floor s", "ours / floor", "ours MB", "floor MB"]
    print(machine())
    print(table("Segmentation, ResNet-101 at three scales", header, rows))


if __name__ == "__main__":
    main()
