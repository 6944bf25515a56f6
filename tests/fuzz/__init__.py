"""Fuzzing: every reader of user files is given damaged and hostile files.

    python -m tests.fuzz --mutations 10000 --seed 0

Whatever a file holds, a reader returns or raises the project's InputError. Anything else fails:
another exception, a crash of the process, more than 20 seconds, more than 2 GiB of memory, code
that was run, or a file written outside the output folder.
"""
