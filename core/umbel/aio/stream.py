"""Awaitable verbs on byte streams, whose contracts are those of the blocking ones.

Where the transport can try without waiting (`StreamAttempts`), a call that can be done
at once awaits nothing, and one that can't sleeps on one future of the loop's. The
blocking code of other transports runs on a carrier (`AioHost.run`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, TypeAlias, final

from umbel.aio.handle import AsyncHandle
from umbel.aio.receiving import brecv, receive
from umbel.aio.sending import bsend, done
from umbel.deadline import FOREVER
from umbel.streams.connection import (
    find_connection,
)
from umbel.streams.receiving import DEFAULT_SIZE
from umbel.streams.stream import StreamHandle, descriptor_of
from umbel.values.address import Address

if TYPE_CHECKING:
    from typing_extensions import Buffer


@final
class AsyncStreamHandle(AsyncHandle):
    """Names a byte stream: the awaitable functions on byte streams, as methods.

    `async for chunk in stream` receives until the end of the stream.
    """

    __slots__ = ()

    def send(
        self, data: Buffer, deadline: int = FOREVER
    ) -> Coroutine[object, object, None]:
        """Send all of *data*, as `bsend`."""
        return bsend(self, data, deadline)

    def receive(
        self, max_bytes: int = DEFAULT_SIZE, deadline: int = FOREVER
    ) -> Coroutine[object, object, bytes]:
        """Receive what there is, as `receive`."""
        return receive(self, max_bytes, deadline)

    def receive_exactly(
        self, count: int, deadline: int = FOREVER
    ) -> Coroutine[object, object, bytes]:
        """Receive *count* bytes, as `brecv`."""
        return brecv(self, count, deadline)

    def done(self, deadline: int = FOREVER) -> Coroutine[object, object, None]:
        """End our direction, as `done`."""
        return done(self, deadline)

    def fileno(self) -> int:
        """Give the descriptor, as `umbel.StreamHandle.fileno`."""
        return descriptor_of(self)

    @property
    def address(self) -> Address:
        """Where it was connected, or accepted."""
        return find_connection(self).address

    if TYPE_CHECKING:

        def __aiter__(self) -> AsyncIterator[bytes]:
            """Give what comes until the end; `umbel.aio.chunks` has it."""


#: What the verbs take: they work on the one table, whichever handle names the stream.
AnyStream: TypeAlias = StreamHandle | AsyncStreamHandle


# The verbs themselves: a call around them would be a part of what each costs.
AsyncStreamHandle.send = bsend  # type: ignore[assignment, method-assign]
AsyncStreamHandle.receive = receive  # type: ignore[assignment, method-assign]
