"""Telling whoever runs the program."""

from __future__ import annotations

import sys


def say(text: object) -> None:
    """Print *text* on standard error, if somebody is there to be told.

    For what must not stop the program, such as an observer that can't do its work.

    Args:
        text: one line, or several.

    Source:
        own.
    """
    if sys.stderr is None:
        return  # print would turn to standard output
    try:
        try:
            print(text, file=sys.stderr, flush=True)
        except RuntimeError:
            # In a signal's handler, amid a write of the program's own: past its buffer.
            number, errors = sys.stderr.fileno(), "backslashreplace"
            with open(number, "w", errors=errors, closefd=False) as direct:
                print(text, file=direct)
    except (OSError, ValueError):
        pass  # nobody reads it, or it is closed: no reason to end the program
