"""Telling whoever runs the program that an observer can't do its work."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """Print *line* on standard error, if somebody is there to be told."""
    if sys.stderr is None:
        return  # print would turn to standard output
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # looking on is no reason to stop the program that is looked at
