"""How long is a training step of the superpixel network, beside its own convolutions?

    python -m benchmarks.scn_training [--tables steps ways compiled]

The floor is the network's forward and backward pass with the plainest of losses.
"""

import copy
from functools import partial

import torch

from benchmarks.measure import Report
from benchmarks.steps import Way, parse_step_options, report_steps, step
from networks import reference
from networks.superpixel import SuperpixelNet
from utils.runs.devices import parallel
from utils.training.superpixel_options import TERMS
from utils.training.superpixels import SuperpixelLoss, inputs, mean_over_images


class Workload:
    """One batch and the three ways to take a step on it; see benchmarks.steps.

    Args:
        way: how it is computed.
        batch: images.
        side: of the square crops, pixels.
        device: where.
    """

    def __init__(self, way: Way, batch: int, side: int, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.way, self.device = way, torch.device(device)
        self.learner = SuperpixelNet()
        self.plain = copy.deepcopy(self.learner).to(self.device).train()
        self.floor = parallel(copy.deepcopy(self.learner), self.device).train()
        loss = SuperpixelLoss(self.learner, position_weight=0.003, amp=way.amp)
        self.model = way.arranged(parallel(loss, self.device).train())
        self.objective = mean_over_images(self.model, TERMS["reconstruction"])
        shape = (batch, side, side, 3)
        self.batch = {
            name: torch.randint(0, 256, shape, dtype=torch.uint8).to(self.device)
            for name in ("image", "lab")
        }
        self.batch["box"] = torch.tensor([[0, 0, side, side]] * batch, device=self.device)
        self.runs = {
            "plain": self.plain_step,
            "ours": partial(step, self),
            "floor": self.floor_step,
        }

    def plain_step(self) -> None:
        """Forward and backward pass of the plain formulation."""
        images, lab = inputs(self.batch)
        self.plain.zero_grad(set_to_none=True)
        with self.way.autocast(self.device):
            q = self.plain(images.contiguous())
        reference.scn_loss(q, lab.contiguous())[0].backward()

    def floor_step(self) -> None:
        """The network's forward and backward pass, and nothing else."""
        images, _ = inputs(self.batch)
        self.floor.zero_grad(set_to_none=True)
        with self.way.autocast(self.device):
            q = self.floor(images)
        q.square().mean().backward()


def main() -> None:
    """Print the tables."""
    given = parse_step_options(__doc__)
    batch, side = (2, 256) if given.device == "cpu" else (16, 512)
    if given.size == "tiny":
        batch, side = 2, 64
    make = partial(Workload, batch=batch, side=side, device=given.device)
    report_steps(
        Report(given), given, "superpixel network", {f"batch {batch}, {side}x{side}": make}
    )


if __name__ == "__main__":
    main()
