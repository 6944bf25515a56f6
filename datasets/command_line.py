"""What every command shares: a parser and numbers that are checked, notes, errors as one line."""

import argparse
import io
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from datasets.files import InputError


class _Parser(argparse.ArgumentParser):
    """A parser that answers a bad command line as everything else that is bad: in one line."""

    def error(self, message: str) -> NoReturn:
        """End with the message and status 2."""
        self.exit(2, f"error: {message}; --help lists the options\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, shows defaults where there are any, and short metavars."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told, default = "(default:" in (action.help or ""), action.default
        if told or default is False or default in (None, "", (), argparse.SUPPRESS):
            return action.help or ""
        # Several values as they are typed, not as Python writes them.
        several = isinstance(default, list | tuple)
        shown = " ".join(map(str, default)).replace("%", "%%") if several else "%(default)s"
        return f"{action.help or ''} (default: {shown})"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "NAME" if action.type is None else "N"


def new_parser(description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help shows defaults and keeps the description's lines.

    What it refuses ends in one line and exit status 2.

    Args:
        description: of the command.
        prog: how the command is called, if not by the name of its file.
    """
    return _Parser(
        prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False
    )


def number(
    kind: type, low: float | None = None, high: float | None = None, open_low: bool = False
) -> Callable[[str], float]:
    """An argparse type: a finite int or float from `low` to `high` (`open_low`: above `low`)."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        # `not <=` rather than `>`, so that NaN is refused too
        if not abs(value) <= float("1e30"):
            raise argparse.ArgumentTypeError(f"{text} must be a finite number")
        too_low = low is not None and (value <= low if open_low else value < low)
        if too_low or (high is not None and value > high):
            bounds = f"{'above' if open_low else 'at least'} {low}" if low is not None else ""
            limit = f"at most {high}" if high is not None else ""
            raise argparse.ArgumentTypeError(
                f"{text} must be {' and '.join(filter(None, (bounds, limit)))}"
            )
        return value

    return convert


def print_anything() -> None:
    """Let this process print any name: what a terminal's encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_notes(notes: Iterable[str]) -> None:
    """Print what the user should know, a line each."""
    for note in notes:
        print(f"note: {note}")


def run(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """The exit status of `command(args)`: bad input is one line on stderr and status 2."""
    print_anything()
    try:
        return command(args)
    except InputError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
