"""Digests of what a run is made from, to notice when it changes."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from datasets.collection import Collection


def fingerprint(value: Collection | Mapping[str, Tensor]) -> str:
    """A digest of a collection's ids, labels and sizes of photographs, or of weights."""
    digest = hashlib.sha256()
    if isinstance(value, Collection):
        for identifier in value.ids:
            digest.update(identifier.encode() + b"\n")
            if identifier in value.labels:
                digest.update(value.labels[identifier].tobytes())
        digest.update(sizes(value.images[identifier] for identifier in value.ids).encode())
    else:
        for name, tensor in sorted(value.items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sizes(paths: Iterable[Path]) -> str:
    """A digest of the sizes of files; reading them all would take too long."""
    found = [path.stat().st_size if path.is_file() else 0 for path in paths]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
