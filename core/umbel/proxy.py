"""A stream in front of another, for plugins that see or change what it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from umbel.transport import (
    DescriptorPassing,
    Fileno,
    Stream,
    StreamAttempts,
    Transfer,
    UnreadBytes,
)

T = TypeVar("T")


class StreamProxy:
    """A `Stream` that does what the one behind it does; override what is to differ.

    All bytes pass by `send` and `receive_into`: capabilities that would move them
    otherwise are withheld, unless `attempts`, `descriptor_passing`, `transfer` or
    `fileno` is overridden. All others are those of the stream behind.

    Args:
        inner: the stream behind, which the proxy owns.
    """

    __slots__ = ("__weakref__", "inner")

    inner: Stream

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
        """As `Stream.query`; also gives a proxy, or the stream behind, by its class."""
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
        elif isinstance(found, Fileno):
            found = self.fileno(found)
        elif isinstance(found, UnreadBytes):
            found = self.unread_bytes(found)
        return found if isinstance(found, kind) else None

    def attempts(self, found: StreamAttempts) -> StreamAttempts | None:
        """Give what tries in the place of *found*; None: core calls the methods."""
        return None

    def descriptor_passing(self, found: DescriptorPassing) -> DescriptorPassing | None:
        """Give what passes descriptors in the place of *found*; None: nothing does."""
        return None

    def transfer(self, found: Transfer) -> Transfer | None:
        """Give what moves the stream to another process; None: it can't be moved.

        By *found* the other process would get the stream behind.
        """
        return None

    def fileno(self, found: Fileno) -> Fileno | None:
        """Give the descriptor to wait for, and for `as_socket`; None: there is none.

        By *found* somebody could move bytes without the proxy.
        """
        return None

    def unread_bytes(self, found: UnreadBytes) -> UnreadBytes | None:
        """Give what tells whether the peer has read everything; None: nothing does."""
        return found
