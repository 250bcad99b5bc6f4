"""Types that signatures mention and no program needs to run: see `umbel.typing`."""

from __future__ import annotations

import sys
from array import array
from mmap import mmap
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import Buffer

    #: What received bytes can be put into. Others go through a memoryview.
    WritableBuffer: TypeAlias = (
        bytearray
        | memoryview[int]
        | memoryview[float]
        | array[int]
        | array[float]
        | mmap
    )
else:
    # Python 3.11 has no name for the protocol of buffers, and knows no array[int].
    WritableBuffer = bytearray | memoryview | array | mmap
    if sys.version_info >= (3, 12):
        from collections.abc import Buffer
    else:
        #: What can be sent: anything with the buffer protocol.
        Buffer = bytes | WritableBuffer


class HandleObject(Protocol):
    """What `hmake` can give a handle to."""

    def query(self, kind: type[T]) -> T | None:
        """Give what it can do as an object of class *kind*, None if it can't."""

    def close(self) -> None:
        """Free what it holds. A blocking call made in here raises Canceled."""


__all__ = ["Buffer", "HandleObject", "WritableBuffer"]
