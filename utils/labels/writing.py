"""What the evaluators' writers share: files, counts and refinement, behind the inference."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from datasets.collection import Collection
from datasets.files import write_bytes
from datasets.images import encode_jpeg
from utils.labels.background import BackgroundWriter
from utils.labels.crf_workers import CrfWorkers
from utils.labels.journal import Journal
from utils.pictures.drawing import overlay
from utils.runs import distributed
from utils.runs.run import Run


class PhotographWriter:
    """Writes the files of photographs and notes those that are done; a context manager.

    Args:
        folder: of the run.
        shapes: of a photograph's counts, by name; see Journal.
        overlays: labels are drawn on the photographs too, `overlays/<id>.jpg`.
        crf_workers: processes that refine labels by a dense CRF; 0 for none.
        marks: the counts whose places are kept for every photograph; see Journal.

    Attributes:
        journal: of what is done.
        writer: the threads that write.
        workers: the processes that refine, or None.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        overlays: bool,
        crf_workers: int,
        marks: Sequence[str] = (),
    ) -> None:
        self.folder, self.overlays = folder, overlays
        self.journal, self.writer = Journal(folder, shapes, marks), BackgroundWriter()
        self.workers = CrfWorkers(crf_workers) if crf_workers else None
        self._stack = ExitStack()

    def files(self, identifier: str) -> list[Path]:
        """All files of a photograph."""
        return [self._overlay(identifier)] if self.overlays else []

    def complete(self, identifier: str) -> bool:
        """Whether all files of a photograph are there."""
        return all(path.is_file() for path in self.files(identifier))

    def take_up(
        self,
        run: Run,
        photographs: Collection,
        again: Callable[[str], bool] = lambda identifier: False,
    ) -> tuple[set[str], Collection]:
        """The ids that are done, and this process's share of what is to be inferred.

        That is the photographs that are not done, and those for which `again` says so.
        """
        done = self.journal.finished(self.complete)
        if done:
            run.say(f"{len(done)} of {len(photographs.ids)} photographs are done; going on")
        # Decided by one process: while others still look, the first already writes.
        todo = distributed.broadcast([i for i in photographs.ids if i not in done or again(i)])
        return done, photographs.subset(distributed.share(todo))

    def draw(self, identifier: str, photograph: np.ndarray, labels: np.ndarray) -> None:
        """Draw labels (H, W) uint8 on a photograph (H, W, 3) uint8, where that is asked for."""
        if self.overlays:
            write_bytes(self._overlay(identifier), encode_jpeg(overlay(photograph, labels)))

    def _overlay(self, identifier: str) -> Path:
        return self.folder / "overlays" / f"{identifier}.jpg"

    def __enter__(self) -> "PhotographWriter":
        for part in (self.workers, self.journal, self.writer):
            if part is not None:
                self._stack.enter_context(part)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)
