"""Telling whoever runs the program."""

from __future__ import annotations

import sys


def say(text: object) -> None:
    """Print *text* on standard error, if somebody is there to be told.

    For an observer that can't do its work, which is no reason to stop the program.

    Args:
        text: one line, or several.

    Source:
        own.
    """
    if sys.stderr is None:
        return  # print would turn to standard output
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # nobody reads it, or it is closed: no reason to end the program
