"""Photographs that EXIF asks to be turned: used as stored, they may lie on their side."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datasets.collection import evenly_spread
from datasets.files import InputError
from datasets.images import is_turned

AS_STORED = (
    "pixels are used as stored; before masks are drawn, `mogrify -auto-orient` turns files for good"
)

TURNED = f"photographs that EXIF asks to be turned ({AS_STORED})"
"""The kind of finding of datasets.check."""

LOOKED_AT = 200
"""Photographs looked at before a run, evenly spread."""


def about_orientation(photographs: Sequence[Path]) -> tuple[str, ...]:
    """A note on those that EXIF asks to be turned, if there are any among those looked at.

    PNG files are passed over: they would have to be decoded, and cameras write none.
    """
    paths = [path for path in photographs if path.suffix.lower() != ".png"]
    looked_at = evenly_spread(paths, LOOKED_AT)
    turned = []
    for path in looked_at:
        with suppress(InputError):  # whoever reads the photograph says so
            turned += [path] if is_turned(path) else []
    if not turned:
        return ()
    some = " looked at" if len(looked_at) < len(photographs) else ""
    text = f"EXIF asks {len(turned)} of {len(looked_at)} photographs{some} to be turned"
    return (f"{text}, such as {turned[0]}: {AS_STORED}",)
