"""Whether a run that goes on is told what it was told at first."""

import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from datasets import roots

HARMLESS = frozenset(
    {
        *("experiments", "tag", "overwrite", "resume", "force", "checkpoint_minutes", "debug"),
        *("device", "workers", "skip_bad", "scn", "labels_file"),
        *(name for names in roots.OPTIONS.values() for name in names),
        "head",  # of earlier versions; weights of another head do not fit
    }
)
"""Options that do not alter a result. What files hold counts instead of their names: see
utils.runs.fingerprints."""


def changed_options(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    harmless: Set[str],
) -> list[str]:
    """What differs from a run that was started before, in words.

    Args:
        before: its `script`, `options` and `fingerprints`.
        now: the options of now.
        fingerprints: those of now.
        harmless: options that may differ.
    """
    changes = []
    if before["script"] != Path(sys.argv[0]).name:
        changes.append(f"it is of {before['script']}")
    then = before["options"]
    for name in sorted({*then, *now} - harmless):
        if then.get(name) != now.get(name):
            changes.append(f"--{name} was {then.get(name)}, is {now.get(name)}")
    for name, value in fingerprints.items():
        if before["fingerprints"].get(name) != value:
            what = "photographs, or their image-level labels" if name == "photographs" else name
            changes.append(f"{what}: the content differs")
    return changes
