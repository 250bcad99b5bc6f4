"""A stream whose next bytes were already received, for a call that was canceled.

A hub receives for coroutines that wait (`Watch.catch`), and a task may be canceled
before it goes on with the bytes. They are then put back in front of the stream, however
they are read next: by attempts, into buffers, with descriptors, or by the drain of an
orderly close.
"""

from __future__ import annotations

from typing import final

from umbel.proxy import StreamProxy
from umbel.transport import DescriptorPassing, Fileno, Stream, StreamAttempts, Transfer


@final
class KeptStream(StreamProxy):
    """A `Stream` that gives *kept* first, and otherwise behaves as *inner*."""

    __slots__ = ("kept",)

    def __init__(self, inner: Stream, kept: bytes) -> None:
        super().__init__(inner)
        self.kept = kept

    def _take(self, max_bytes: int) -> bytes:
        data, self.kept = self.kept[:max_bytes], self.kept[max_bytes:]
        return data

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        data = self._take(len(buffer))
        if not data:
            return self.inner.receive_into(buffer, deadline)
        buffer[: len(data)] = data
        return len(data)

    def attempts(self, found: StreamAttempts) -> StreamAttempts:
        """Receive what was kept first."""

        def receive(max_bytes: int) -> bytes | None:
            return self._take(max_bytes) or found.receive(max_bytes)

        return StreamAttempts(receive, found.send, found.readiness)

    def descriptor_passing(self, found: DescriptorPassing) -> DescriptorPassing:
        """Receive what was kept first."""

        def receive(
            max_bytes: int, max_descriptors: int, deadline: int
        ) -> tuple[bytes, list[int]]:
            if self.kept:
                return self._take(max_bytes), []  # the receive had refused them
            return found.receive(max_bytes, max_descriptors, deadline)

        return DescriptorPassing(found.send, receive)

    def transfer(self, found: Transfer) -> Transfer:
        """Who moves a stream takes what was kept along, see `umbel.passing`."""
        return found

    def fileno(self, found: Fileno) -> Fileno:
        """Who needs nothing kept asks for it, as `as_socket` does."""
        return found
