"""What can be told of bytes by their place, and of this process by its descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

#: More than a transport may buffer, and all that is sipped at meanwhile.
MOST_NOISE: Final = 64 << 20


def pattern(size: int) -> bytes:
    """Make *size* bytes in which every position can be told from its neighbours."""
    import array

    return array.array("I", range(size // 4 + 1)).tobytes()[:size]


def noise(size: int) -> memoryview:
    """Give *size* bytes, at most `MOST_NOISE`, that nothing can make fewer of.

    What must find no room would find it in a transport that compresses.
    """
    return memoryview(_noise())[:size]


@cache
def _noise() -> bytes:
    return os.urandom(MOST_NOISE)


def open_descriptors() -> set[int]:
    """List the descriptors of this process."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # that of the listing itself
        found.add(int(name))
    return found


#: What to go back to, while `few_descriptors` is in force.
_limits: Final[list[tuple[int, int]]] = []


@contextmanager
def few_descriptors(room: int) -> Iterator[None]:
    """Leave this process only *room* descriptors to open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    _limits.append(before)
    # So that few have to be taken, though much of the process may be open.
    top = max(open_descriptors()) + 8 + room
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(top, before[0]), before[1]))
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(room):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        allow_descriptors()


def allow_descriptors() -> None:
    """End what `few_descriptors` began, also if a behaviour hangs in the midst."""
    while _limits:
        resource.setrlimit(resource.RLIMIT_NOFILE, _limits.pop())
