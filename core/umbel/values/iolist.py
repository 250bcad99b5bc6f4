"""What may be sent, and where received bytes may go.

Sending takes anything with the buffer protocol, of any item size, and copies nothing
but several small buffers into one. Receiving takes writable buffers, and `Skip(count)`
for bytes that are not wanted, which is what a null pointer means in libdill. What fills
small ones is received at once, and copied there.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, final

from umbel.errors import system_error

if TYPE_CHECKING:
    from umbel.values.protocols import Buffer, WritableBuffer

    #: What `brecvl` takes: a buffer to fill, or bytes to skip.
    Target: TypeAlias = "WritableBuffer | Skip"

#: Bytes up to which to copy them from several buffers into one, or from one to where
#: they are wanted, costs less than to have the kernel gather or scatter them.
JOINED_SIZE: Final = 16384

#: What a first read asks for, small enough for Python's own allocator. Each read that
#: is filled makes the next one larger, up to what is wanted: large buffers for small
#: requests make glibc trim and fault its heap at each, and are cleared byte by byte.
FIRST_SIZE: Final = 448


@final
class Skip:
    """Stands for a buffer of *count* bytes that are received and thrown away.

    Args:
        count: 0 or more bytes.

    Raises:
        OSError: EINVAL, *count* is negative.
        TypeError: *count* is not an int.
    """

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count: int = check_count(count, "the count of a Skip")

    def __repr__(self) -> str:
        return f"Skip({self.count})"


def check_count(count: object, name: str, least: int = 0) -> int:
    """Make sure that *count* is an int (TypeError) of *least* or more (EINVAL)."""
    if not isinstance(count, int):
        message = f"{name} is an int, not {count!r}"
        raise TypeError(message)
    if count < least:
        message = f"{name} is {count}: give {least} or more"
        raise system_error(errno.EINVAL, message)
    return count


def outbound_view(data: Buffer) -> memoryview:
    """View any buffer as flat bytes. BufferError: not contiguous."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if not view.c_contiguous:
        message = "the buffer is not contiguous: send bytes(buffer), or its parts"
        raise BufferError(message)
    return view.cast("B")


def outbound_views(buffers: Sequence[Buffer]) -> list[memoryview]:
    """View each buffer of a list as flat bytes; an empty list is EINVAL."""
    if isinstance(buffers, (bytes, bytearray, memoryview, str)):
        message = "a list of buffers is wanted here; bsend sends a single one"
        raise TypeError(message)
    views = [outbound_view(data) for data in buffers]
    if not views:
        message = "the list of buffers is empty: name one buffer or more"
        raise system_error(errno.EINVAL, message)
    return views


def total_size(views: Sequence[memoryview | Skip]) -> int:
    """Count the bytes of all *views*."""
    size = 0
    for view in views:
        size += view.count if isinstance(view, Skip) else view.nbytes
    return size


def scatter(data: bytes, targets: Sequence[memoryview | Skip]) -> None:
    """Copy *data*, of their size, to where *targets* want it."""
    start = 0
    for target in targets:
        if isinstance(target, Skip):
            start += target.count
        else:
            end = start + target.nbytes
            target[:] = data[start:end]
            start = end


def inbound_view(target: Target) -> memoryview | Skip:
    """View a writable buffer as flat bytes; TypeError if it can't be written."""
    if isinstance(target, Skip):
        return target
    view = memoryview(target)
    if view.readonly:
        message = "the buffer is read-only: receive into a bytearray"
        raise TypeError(message)
    return outbound_view(view)


def inbound_views(targets: Sequence[Target]) -> list[memoryview | Skip]:
    """View each target of a list; an empty list is EINVAL."""
    if isinstance(targets, (bytes, bytearray, memoryview, Skip)):
        message = "a list of targets is wanted here; brecv fills a single one"
        raise TypeError(message)
    views = [inbound_view(target) for target in targets]
    if not views:
        message = "the list of targets is empty: name one buffer or more"
        raise system_error(errno.EINVAL, message)
    return views
