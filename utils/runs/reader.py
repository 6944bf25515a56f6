"""How photographs are read for inference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from datasets.collection import Collection
from datasets.loading import Photographs, photograph_loader
from utils.runs.progress import progress


@dataclass(frozen=True)
class Reader:
    """Reads photographs for inference.

    Attributes:
        device: where they go next.
        workers: processes that read.
        bad: told why a photograph, or its mask, cannot be read and is left out; may raise.
    """

    device: torch.device
    workers: int
    bad: Callable[[str], None]

    def read(self, collection: Collection, title: str) -> Iterator[dict[str, Any]]:
        """The items of `Photographs` in order, under a progress bar."""
        pin = self.device.type == "cuda"
        loader = photograph_loader(Photographs(collection), self.workers, pin)
        for item in progress(loader, title, "image"):
            if "error" in item:
                self.bad(item["error"])
            else:
                yield item
