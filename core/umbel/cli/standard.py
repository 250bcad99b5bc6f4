"""Standard input, output and error: which are there, and that none is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import umbel

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_ADVICE: Final = {
    STDIN: "standard input is closed: give it what is to be sent, or </dev/null",
    STDOUT: "standard output is closed: give it a file, or >/dev/null",
}


def fill_gaps() -> set[int]:
    """Open /dev/null in the place of each that is closed; tell which those are.

    Else a socket of ours would get its number, and then what is meant for it.
    """
    closed = set()
    for fd in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if STDERR in closed:
        sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115 - to the end
    return closed


def require_open(wanted: Collection[int], closed: Collection[int]) -> None:
    """EBADF if one of those that are *wanted* is *closed*."""
    for fd in wanted:
        if fd in closed:
            raise umbel.BadHandleError(_ADVICE[fd])


@contextmanager
def all_written() -> Iterator[None]:
    """Write out what was printed, and raise what keeps it from being written."""
    try:
        yield
    finally:
        try:
            print(end="", flush=True)
        except OSError:
            # Python would try again as it exits, and tell of it in its own words.
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
            raise


def say(line: str) -> None:
    """Print *line* on standard error, if somebody is there to be told."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass  # the exit status says it
