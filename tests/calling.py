"""Calling the scripts as a user would, but in this process."""

import runpy
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def call(script, arguments, **places):
    """Run a script in this process, as `python script arguments` would."""
    argv = [script, *(part.format(**places) for part in arguments.split())]
    before, sys.argv = sys.argv, argv
    try:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    finally:
        sys.argv = before
