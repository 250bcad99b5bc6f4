"""A stream whose next bytes were already received, for a call that was canceled.

A hub receives for coroutines that wait (`Watch.catch`), and a task may be canceled
before it goes on with the bytes. They are then put back in front of the stream, however
they are read next: by attempts, into buffers, with descriptors, or by the drain of an
orderly close.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, final

from umbel.transport import DescriptorPassing, Stream, StreamAttempts

T = TypeVar("T")


@final
class KeptStream:
    """A `Stream` that gives *kept* first, and otherwise behaves as *inner*."""

    __slots__ = ("__weakref__", "_inner", "kept")

    def __init__(self, inner: Stream, kept: bytes) -> None:
        self._inner = inner
        self.kept = kept

    def _take(self, max_bytes: int) -> bytes:
        data, self.kept = self.kept[:max_bytes], self.kept[max_bytes:]
        return data

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        data = self._take(len(buffer))
        if not data:
            return self._inner.receive_into(buffer, deadline)
        buffer[: len(data)] = data
        return len(data)

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """As `Stream.send`."""
        self._inner.send(buffers, deadline)

    def done(self, deadline: int) -> None:
        """As `Stream.done`."""
        self._inner.done(deadline)

    def abort(self) -> None:
        """As `Stream.abort`."""
        self._inner.abort()

    def query(self, kind: type[T]) -> T | None:
        """As `Stream.query`; also for the stream itself, by its own class."""
        inner = self._inner
        found: object = inner if isinstance(inner, kind) else inner.query(kind)
        if isinstance(found, StreamAttempts):
            found = self._attempt(found)
        elif isinstance(found, DescriptorPassing):
            found = self._pass(found)
        return found if isinstance(found, kind) else None

    def _attempt(self, inner: StreamAttempts) -> StreamAttempts:
        def receive(max_bytes: int) -> bytes | None:
            return self._take(max_bytes) or inner.receive(max_bytes)

        return StreamAttempts(receive, inner.send, inner.readiness)

    def _pass(self, inner: DescriptorPassing) -> DescriptorPassing:
        def receive(
            max_bytes: int, max_descriptors: int, deadline: int
        ) -> tuple[bytes, list[int]]:
            if self.kept:
                return self._take(max_bytes), []  # the receive had refused them
            return inner.receive(max_bytes, max_descriptors, deadline)

        return DescriptorPassing(inner.send, receive)
