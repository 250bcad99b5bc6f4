"""A stream that stands in front of another, for observers that see or change bytes.

Capabilities that can move bytes are wrapped or withheld, so that each byte passes here;
all others are those of the stream behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from umbel.spi import (
    DescriptorPassing,
    Stream,
    StreamAttempts,
    Transfer,
    UnreadBytes,
)

T = TypeVar("T")


class StreamProxy:
    """A `Stream` that passes everything on to *inner*, which it owns."""

    __slots__ = ("__weakref__", "inner")

    def __init__(self, inner: Stream) -> None:
        self.inner = inner

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """As `Stream.send`."""
        self.inner.send(buffers, deadline)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        return self.inner.receive_into(buffer, deadline)

    def done(self, deadline: int) -> None:
        """As `Stream.done`."""
        self.inner.done(deadline)

    def abort(self) -> None:
        """As `Stream.abort`."""
        self.inner.abort()

    def query(self, kind: type[T]) -> T | None:
        """As `Stream.query`; also for a proxy, or what is behind it, by its class."""
        if isinstance(self, kind):
            return self
        if isinstance(self.inner, kind):
            return self.inner
        found: object = self.inner.query(kind)
        if isinstance(found, StreamAttempts):
            found = self.attempts(found)
        elif isinstance(found, DescriptorPassing):
            found = self.descriptor_passing(found)
        elif isinstance(found, Transfer):
            found = self.transfer(found)
        elif isinstance(found, UnreadBytes):
            found = self.unread_bytes(found)
        return found if isinstance(found, kind) else None

    # Withheld unless a kind of proxy knows better: core then uses `send` and
    # `receive_into`, which see the bytes.

    def attempts(self, found: StreamAttempts) -> StreamAttempts | None:
        """Give what stands in front of the inner stream's own."""
        return None

    def descriptor_passing(self, found: DescriptorPassing) -> DescriptorPassing | None:
        """Give what stands in front of the inner stream's own."""
        return None

    def transfer(self, found: Transfer) -> Transfer | None:
        """Give what stands in front of the inner stream's own."""
        return found

    def unread_bytes(self, found: UnreadBytes) -> UnreadBytes | None:
        """Give what stands in front of the inner stream's own."""
        return found
