"""Which photographs this process still has to infer."""

from collections.abc import Callable
from collections.abc import Collection as Ids

from datasets.collection import Collection
from utils.runs import distributed
from utils.runs.run import Run


def share_out(
    run: Run,
    photographs: Collection,
    done: Ids[str],
    again: Callable[[str], bool] = lambda identifier: False,
) -> Collection:
    """This process's share of the photographs that are not done, or are wanted `again`."""
    # Decided by one process: while others still look, the first already writes.
    todo = distributed.broadcast([i for i in photographs.ids if i not in done or again(i)])
    if done:
        run.say(f"{len(done)} of {len(photographs.ids)} photographs are done; going on")
    return photographs.subset(distributed.share(todo))
