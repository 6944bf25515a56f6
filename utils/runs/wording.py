"""What is said of photographs: how many, and where they come from."""

from datasets.collection import Collection


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 photograph`, `2 photographs`; `many` where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def source_of(photographs: Collection, images: str | None) -> str:
    """The folder or photograph that --images names, else the data set and the split."""
    return images or f"{photographs.name} {photographs.split}"
