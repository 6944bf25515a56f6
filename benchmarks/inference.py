"""How long is the inference of one photograph, beside the bare forward passes?

    python -m benchmarks.inference [--size full]

The floor is the folded SCN, ResNet, DCR's convolutions and AP's products at the same sizes, a
photograph and its mirror image together, channels last.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import plain_pipeline
from benchmarks.measure import Report, compare
from benchmarks.options import parse
from benchmarks.plain_pipeline import PlainClassifier
from networks.affinity import propagate
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.inference.cams import SCALES, infer, views
from utils.inference.folding import fold
from utils.runs.devices import keep_freed_memory, parallel


class Workload:
    """One photograph and three ways to run it.

    Args:
        size: (height, width), pixels.
        num_classes: C.
        backbone: name.
        device: where.
    """

    def __init__(
        self,
        size: tuple[int, int],
        num_classes: int = 21,
        backbone: str = "resnet50",
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(0)
        target = torch.device(device)
        scn = SuperpixelNet().eval()
        ours = Classifier(build_backbone(backbone), num_classes).eval()
        ours.classifier.weight.data.abs_()  # random classes, but cams that are not all zero
        self.plain = PlainClassifier(build_backbone(backbone), num_classes).eval()
        self.plain.load_state_dict(ours.state_dict())
        self.plain.to(target)
        self.plain_scn = scn.to(target)
        self.ours, self.scn = parallel(fold(ours), target), parallel(fold(scn), target)
        self.image = torch.randn(3, *size).to(target)  # the same on every device
        self.labels = torch.zeros(num_classes - 1, device=target)
        self.labels[[1, 5]] = 1  # a photograph of VOC shows 1.5 classes

    def run_plain(self) -> Tensor:
        """The plain formulation."""
        return plain_pipeline.infer(self.image, self.labels, self.plain, self.plain_scn)

    def run_ours(self) -> Tensor:
        """utils.cams.infer on folded networks."""
        return infer(self.image, self.labels, self.ours, self.scn)

    @torch.no_grad()
    def run_floor(self) -> None:
        """The convolutions and AP's products alone."""
        for scale in SCALES:
            for_scn, images = views(self.image[None], scale, flip=True)
            q = self.scn(for_scn)
            x4 = self.ours.backbone.stem_to_4(images)
            embedding = self.ours.dcr.embed(q)
            self.ours.dcr.kernels4(x4, embedding)
            x5 = self.ours.backbone.stage5(x4)
            self.ours.dcr.kernels5(x5, embedding)
            propagate(self.ours.classifier(x5), x4)


def rows(given: argparse.Namespace) -> Iterator[list[object]]:
    """A row for every size of a photograph."""
    cases: dict[str, dict] = {"375x500, 21 classes": {"size": (375, 500)}}
    if given.size == "tiny":
        cases = {"47x63, 21 classes": {"size": (47, 63), "backbone": "resnet18"}}
    if given.size == "full":
        for h, w in ((188, 250), (265, 354), (530, 707)):
            cases[f"{h}x{w}, 21 classes"] = {"size": (h, w)}
        cases["375x500, 81 classes"] = {"size": (375, 500), "num_classes": 81}
    for name, case in cases.items():
        work = Workload(**case, device=given.device)
        difference = (work.run_plain() - work.run_ours()).abs().max().item()
        runs = {"plain": work.run_plain, "ours": work.run_ours, "floor": work.run_floor}
        times = compare(runs, given.repeats, warmup=1)
        ratios = times.ratio("ours", "floor"), times.ratio("plain", "ours")
        yield [name, *map(times.spread, runs), *ratios, f"{difference:.1e}"]


def main() -> None:
    """Print the table."""
    given = parse(__doc__)
    keep_freed_memory()
    header = ["inference", "plain s", "ours s", "floor s", "ours / floor", "plain / ours"]
    title = "Inference of one photograph, 4 scales mirrored"
    Report(given).add(title, [*header, "max |a - b|"], rows(given))


if __name__ == "__main__":
    main()
