"""A look at a checkpoint's pickle before torch reads it.

torch's `weights_only` reader runs no code, but Python hashes and prints what a pickle built: a
tuple nested deep enough overflows the C stack and ends the process, and one that holds itself
twice, forty levels deep, keeps it busy for ever, as does a refused name of 100 kB, in which torch
searches for what to advise. None of them is in a file that torch wrote.
"""

import os
import pickletools
from typing import IO, Any

from datasets.files import InputError

COPY_AGAIN = "copy it again, or name another file"
"""What to do about a file that is damaged or something else."""

MAX_TUPLES = 10_000
"""No tuple of weights holds more tuples than this, counted wherever they occur in it."""

MAX_NAME = 200
"""No function or class has a longer name with its module."""

NAME, MARK, OTHER = -1, -2, 0
"""Entries of the stack that are no tuples; a tuple's entry is the number of tuples in it."""


def check_pickle(file: IO[bytes], path: str | os.PathLike) -> None:
    """Go through one pickle, from where `file` stands to behind its end, without building it.

    Args:
        file: open for reading.
        path: what it belongs to, for messages.

    Raises:
        InputError: it is damaged, nests tuples absurdly, calls what is not a name, or has
            endless names.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    try:
        for opcode, argument, _ in pickletools.genops(file):
            _step(opcode, argument, stack, memo)
    except _AbsurdError as error:
        raise InputError(f"{path}: {error}; no checkpoint has that, refused") from None
    except Exception as error:  # a damaged pickle can make genops raise anything
        reason = str(error).split("\n")[0][:200]
        raise InputError(f"{path}: not a checkpoint, or damaged ({reason}); {COPY_AGAIN}") from None


class _AbsurdError(Exception):
    """Something that only a hostile pickle holds."""


def _step(
    opcode: pickletools.OpcodeInfo,
    argument: Any,
    stack: list[int],
    memo: dict[int, int],
) -> None:
    name = opcode.name
    if name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(MARK)
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        if len(argument or "") > MAX_NAME:
            raise _AbsurdError(f"a name in it is longer than {MAX_NAME} characters")
        _pop(stack, opcode)
        stack.append(NAME)
    else:
        items = _pop(stack, opcode)
        if name in ("REDUCE", "NEWOBJ") and items[0] != NAME:
            raise _AbsurdError("it calls something that is not a name")
        if "TUPLE" in name:
            stack.append(1 + sum(item for item in items if item > OTHER))
            if stack[-1] > MAX_TUPLES:
                raise _AbsurdError(f"a tuple in it holds more than {MAX_TUPLES} others")
        else:
            stack.extend(OTHER for _ in opcode.stack_after)


def _pop(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take what an instruction takes from the stack, its mark left out."""
    count = len(opcode.stack_before)
    if pickletools.stackslice in opcode.stack_before:
        count -= 2
        start = len(stack) - 1 - stack[::-1].index(MARK)
        sliced = stack[start + 1 :]
        del stack[start:]
    else:
        sliced = []
    if len(stack) < count:
        raise ValueError("stack underflow")
    items = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return items + sliced
