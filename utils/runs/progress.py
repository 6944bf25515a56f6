"""Progress bars of a run: the first of several processes has them."""

from collections.abc import Iterable

from tqdm import tqdm

from datasets.progress import progress_bar
from utils.runs import distributed


def progress(
    items: Iterable, title: str, unit: str, total: int | None = None, done: int = 0
) -> tqdm:
    """`datasets.progress.progress_bar`, in the first process only."""
    return progress_bar(items, title, unit, total, done, quiet=not distributed.is_first())
