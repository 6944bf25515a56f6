"""What is said of photographs: how many, and where they come from."""

from collections.abc import Sequence

from datasets.collection import Collection


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 photograph`, `2 photographs`; `many` where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def counted_ids(ids: Sequence[str]) -> str:
    """`1 photograph (a)`, `3 photographs (a, ..)`."""
    return f"{counted(len(ids), 'photograph')} ({ids[0]}{', ..' if len(ids) > 1 else ''})"


def source_of(photographs: Collection, images: str | None) -> str:
    """The folder or photograph that --images names, else the data set and the split."""
    return images or f"{photographs.name} {photographs.split}"
