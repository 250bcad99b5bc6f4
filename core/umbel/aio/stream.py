"""Awaitable verbs on byte streams; their contracts are those of `umbel.stream`.

Where the transport can try without waiting (`StreamAttempts`), a call that can be done
at once awaits nothing, and one that can't sleeps on one future of the loop's. Any other
transport's blocking code runs on a carrier (`AioHost.run`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast, final, overload

import umbel.stream as blocking
from umbel._kernel.hosting import Guest
from umbel.address import Address
from umbel.aio.handle import AsyncHandle
from umbel.aio.host import AioHost
from umbel.aio.hosts import enter, run_blocking
from umbel.connection import (
    PIECE,
    InboundUse,
    OutboundUse,
    find_connection,
)
from umbel.deadline import FOREVER
from umbel.errors import BadHandleError, BusyError
from umbel.iolist import Skip, check_count, outbound_view
from umbel.stream import DEFAULT_SIZE, StreamHandle, descriptor_of, refuse_size
from umbel.transport import StreamAttempts

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from umbel.iolist import Inbound, WritableBuffer


@final
class AsyncStreamHandle(AsyncHandle):
    """Names a byte stream. Its methods are the awaitable functions of the same name."""

    async def send(self, data: Buffer, deadline: int = FOREVER) -> None:
        """Send all of *data*, as `bsend`."""
        await bsend(self, data, deadline)

    async def receive(
        self, max_bytes: int = DEFAULT_SIZE, deadline: int = FOREVER
    ) -> bytes:
        """Receive what there is, as `receive`."""
        return await receive(self, max_bytes, deadline)

    async def receive_exactly(self, count: int, deadline: int = FOREVER) -> bytes:
        """Receive *count* bytes, as `brecv`."""
        return await brecv(self, count, deadline)

    async def done(self, deadline: int = FOREVER) -> None:
        """End our direction, as `done`."""
        await done(self, deadline)

    def fileno(self) -> int:
        """Give the descriptor, which stays umbel's; ENOTSUP if there is none."""
        return descriptor_of(self)

    @property
    def address(self) -> Address:
        """Where it was connected, or accepted."""
        return find_connection(self).address

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await receive(self):
            yield chunk


#: What the verbs take: they work on the one table, whichever handle names the stream.
AnyStream: TypeAlias = StreamHandle | AsyncStreamHandle


async def receive(
    handle: AnyStream, max_bytes: int = DEFAULT_SIZE, deadline: int = FOREVER
) -> bytes:
    """Receive what there is, as `umbel.receive`. A canceled one loses nothing."""
    host = enter()
    hub = host.hub
    hub.budget -= 1
    if hub.budget < 0 or host.checks_each_call:
        await host.pause()
    connection = find_connection(handle)
    if type(max_bytes) is not int or max_bytes <= 0:
        refuse_size(max_bytes)
    attempts = connection.attempts
    if attempts is None:
        return await host.run(
            partial(blocking.receive, _same(handle), max_bytes, deadline)
        )
    if connection.receiver is not None:
        raise BusyError
    connection.receiver = me = Guest(hub)
    try:
        if connection.inbound_error is not None:
            return connection.refuse_receive()
        data = None
        while data is None:
            if attempts.readiness.is_drained:
                await host.wait_in(me, attempts.readiness, deadline)
            data = attempts.receive(max_bytes)
        if data:
            connection.bytes_in += len(data)
        else:
            connection.note_end()
        return data
    except ConnectionResetError:
        connection.break_inbound()
        raise
    finally:
        if connection.inbound_error is BadHandleError:
            connection.leave(me)
        else:
            connection.receiver = None


async def bsend(handle: AnyStream, data: Buffer, deadline: int = FOREVER) -> None:
    """Send all of *data*, as `umbel.bsend`. A canceled one breaks that direction."""
    host = enter()
    hub = host.hub
    hub.budget -= 1
    if hub.budget < 0 or host.checks_each_call:
        await host.pause()
    connection = find_connection(handle)
    attempts = connection.attempts
    if attempts is None:
        await host.run(partial(blocking.bsend, _same(handle), data, deadline))
        return
    flat = data if type(data) is bytes else outbound_view(data)
    me = Guest(hub)
    with OutboundUse(me, connection):
        sent = attempts.send(flat)
        if sent < len(flat):
            await _send_later(host, me, attempts, memoryview(flat), sent, deadline)
    connection.bytes_out += len(flat)


async def _send_later(
    host: AioHost,
    me: Guest,
    attempts: StreamAttempts,
    view: memoryview,
    sent: int,
    deadline: int,
) -> None:
    try:
        while sent < len(view):
            await host.wait_out(me, attempts.readiness, deadline)
            sent += attempts.send(view[sent:])
    except BaseException as error:
        # The loop's own cancellation carries it too.
        error.bytes_done = sent  # type: ignore[attr-defined]  # of UmbelError
        raise


@overload
async def brecv(handle: AnyStream, target: int, deadline: int = FOREVER) -> bytes: ...


@overload
async def brecv(
    handle: AnyStream, target: WritableBuffer | Skip, deadline: int = FOREVER
) -> None: ...


async def brecv(
    handle: AnyStream, target: int | WritableBuffer | Skip, deadline: int = FOREVER
) -> bytes | None:
    """Receive exactly as many bytes as asked for, as `umbel.brecv`."""
    if not isinstance(target, int):
        await run_blocking(blocking.brecv, _same(handle), target, deadline)
        return None
    host = enter()
    hub = host.hub
    hub.budget -= 1
    if hub.budget < 0 or host.checks_each_call:
        await host.pause()
    connection = find_connection(handle)
    check_count(target, "the count")
    attempts = connection.attempts
    if attempts is None:
        return await host.run(partial(blocking.brecv, _same(handle), target, deadline))
    if not target:
        return b""
    me = Guest(hub)
    with InboundUse(me, connection) as inbound:
        pieces: list[bytes] = []
        while inbound.done < target:
            size = min(target - inbound.done, PIECE)
            if attempts.readiness.is_drained:
                await host.wait_in(me, attempts.readiness, deadline)
            data = attempts.receive(size)
            if data is None:
                continue
            inbound.require(len(data))
            pieces.append(data)
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]


async def brecvl(
    handle: AnyStream, targets: Sequence[Inbound], deadline: int = FOREVER
) -> None:
    """Fill several buffers, as `umbel.brecvl`."""
    await run_blocking(blocking.brecvl, _same(handle), targets, deadline)


async def bsendl(
    handle: AnyStream, buffers: Sequence[Buffer], deadline: int = FOREVER
) -> None:
    """Send all of several buffers, as `umbel.bsendl`."""
    await run_blocking(blocking.bsendl, _same(handle), buffers, deadline)


async def done(handle: AnyStream, deadline: int = FOREVER) -> None:
    """End our direction, as `umbel.done`."""
    await run_blocking(blocking.done, _same(handle), deadline)


async def flush(handle: AnyStream, deadline: int = FOREVER) -> None:
    """Wait until the peer has read everything that we sent, as `umbel.flush`."""
    await run_blocking(blocking.flush, _same(handle), deadline)


def _same(handle: AnyStream) -> StreamHandle:
    # The blocking verbs' types keep others from calling them with an async handle.
    return cast("StreamHandle", handle)
