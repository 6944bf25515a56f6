"""tensorboardX event files that a full disk does not turn into a run that hangs.

tensorboardX writes in a thread. An error there would end the thread, and with it, some events
later, the run, which would wait for it for ever. So its files are opened here, and remember the
first error for the run to raise.
"""

import importlib.util
import os
from pathlib import Path

from datasets.files import InputError

_SCHEME = "msa"


class _EventFile:
    """A file for writing that keeps its first error instead of raising it."""

    def __init__(self, path: str) -> None:
        self._file, self.error = open(path, "wb"), None  # noqa: SIM115

    def write(self, data: bytes) -> None:
        self._try(self._file.write, data)

    def flush(self) -> None:
        self._try(self._file.flush)

    def close(self) -> None:
        self._try(self._file.close)

    def _try(self, call: object, *arguments: object) -> None:
        try:
            call(*arguments)
        except OSError as error:
            self.error = self.error or error


class _Factory:
    """Opens event files for tensorboardX, which knows it by the scheme of its paths."""

    def __init__(self) -> None:
        self.opened: list[_EventFile] = []

    def open(self, path: str) -> _EventFile:
        self.opened.append(_EventFile(path.removeprefix(f"{_SCHEME}:")))
        return self.opened[-1]

    def directory_check(self, path: str) -> None:
        os.makedirs(path.removeprefix(f"{_SCHEME}:"), exist_ok=True)


class Events:
    """The event files of one run.

    Args:
        folder: where they go.
        purge_step: a viewer hides what earlier files in the folder say from this step on.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.record_writer import register_writer_factory

        self.folder, self._factory = folder, _Factory()
        register_writer_factory(_SCHEME, self._factory)
        try:
            self.writer = SummaryWriter(f"{_SCHEME}:{folder}", purge_step=purge_step)
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror}") from error

    def check(self) -> None:
        """Raise the error of an earlier write.

        Raises:
            InputError: naming the folder.
        """
        for file in self._factory.opened:
            if file.error is not None:
                raise InputError(
                    f"cannot write events into {self.folder}: {file.error.strerror}; "
                    "make room and start again, a training with --resume"
                )

    def close(self) -> None:
        """Write what waits, and close the files."""
        self.writer.close()


def open_events(folder: Path, purge_step: int | None = None) -> Events | None:
    """The event files of a run; None where tensorboardX is not installed.

    Raises:
        InputError: the folder cannot be written.
    """
    there = importlib.util.find_spec("tensorboardX") is not None
    return Events(folder, purge_step) if there else None
