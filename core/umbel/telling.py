"""Telling whoever runs the program."""

from __future__ import annotations

import sys


def say(text: object) -> None:
    """Print *text* on standard error, if somebody is there to be told."""
    if sys.stderr is None:
        return  # print would turn to standard output
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # nobody reads it, or it is closed: no reason to end the program
