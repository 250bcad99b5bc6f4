"""Standard input, output and error: which are there, and that none is lost."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import umbel

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_ADVICE: Final = {
    STDIN: "standard input is {}: give it what is to be sent, or </dev/null",
    STDOUT: "standard output is {}: give it a file, or >/dev/null",
}
#: How a descriptor is open to no use, and what it is then.
_WRONG_WAY: Final = {
    STDIN: (os.O_WRONLY, "not for reading, as under nohup"),
    STDOUT: (os.O_RDONLY, "not for writing"),
    STDERR: (os.O_RDONLY, "not for writing"),
}


def fill_gaps() -> dict[int, str]:
    """Put /dev/null in the place of each that is of no use; tell what those were.

    Else a socket of ours would get the number of one that is closed, and then what is
    meant for it; and one that is open the wrong way would fail amid an exchange.
    """
    useless = {}
    for fd, (wrong, what) in _WRONG_WAY.items():
        try:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != wrong:
                continue
            useless[fd] = what
            os.close(fd)
        except OSError:
            useless[fd] = "closed"
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if STDERR in useless:
        sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115 - to the end
    return useless


def require_useful(wanted: Collection[int], useless: Mapping[int, str]) -> None:
    """EBADF if one of those that are *wanted* is *useless*."""
    for fd in wanted:
        if fd in useless:
            raise umbel.BadHandleError(_ADVICE[fd].format(useless[fd]))


@contextmanager
def all_written() -> Iterator[None]:
    """Write out what was printed, and raise what keeps it from being written."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # why it ends comes first, as after SIGHUP
            _write_out()
        raise
    _write_out()


def _write_out() -> None:
    try:
        print(end="", flush=True)
    except OSError:
        # Python would try again as it exits, and tell of it in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        raise
