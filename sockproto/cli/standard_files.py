"""
Standard input, output and error, which may be closed, full or read by nobody.

It imports nothing: `--help` needs it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["reserve_standard_files", "say"]

_STDERR = 2


def reserve_standard_files() -> None:
    """
    Keep a socket from becoming standard output because that was closed.

    A closed one is opened for reading, so that writing to it still fails.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - till the end


def say(text: str, end: str = "\n") -> None:
    """
    Say something on standard error; should nobody listen there, nobody is told.
    """
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except RuntimeError:
        pass  # a signal came while it was being written to
    except (OSError, ValueError):
        # What is still in its buffer would fail once more at the exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)
