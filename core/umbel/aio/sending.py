"""Awaitable verbs that send; see `umbel.aio.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from umbel._kernel.current import current_hub, local
from umbel.aio.entry import begin, enter, run_blocking
from umbel.aio.handle import as_stream
from umbel.deadline import FOREVER
from umbel.errors import BadHandleError, BusyError
from umbel.handle import open_handles, refusal
from umbel.streams import sending
from umbel.streams.connection import Connection, find_connection
from umbel.streams.plain_errors import explain
from umbel.values.iolist import (
    JOINED_SIZE,
    outbound_view,
    outbound_views,
    total_size,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from umbel.aio.stream import AnyStream


async def bsend(  # noqa: C901, PLR0912 - the data path, in few calls
    handle: AnyStream, data: Buffer, deadline: int = FOREVER
) -> None:
    """Send all of *data*, as `umbel.bsend`. If canceled, it breaks that direction."""
    try:
        hub = local.hub
    except AttributeError:
        hub = current_hub()
    if hub.must_ask or hub.budget < 0:
        await begin()
    hub.budget -= 1
    try:
        connection = open_handles[handle]
    except KeyError:
        raise refusal(handle, Connection) from None
    if type(connection) is not Connection:
        raise refusal(handle, Connection)
    try_send = connection.try_send
    if try_send is None:
        await enter().run(partial(sending.bsend, as_stream(handle), data, deadline))
        return
    flat = data if type(data) is bytes else outbound_view(data)
    size = len(flat)
    if connection.sender is not None:
        raise BusyError
    connection.sender = hub.main
    try:
        if connection.outbound_error is not None:
            raise connection.outbound_error
        sent = try_send(flat)
        if sent != size:
            await _send_rest(connection, memoryview(flat), sent, deadline)
        connection.bytes_out += size
    except BaseException as error:
        if connection.fail_outbound(error):
            raise explain(error) from error
        raise
    finally:
        if connection.outbound_error is not BadHandleError:
            connection.sender = None
        elif connection.sender is not None:  # None: it was lost with its loop
            connection.leave(connection.sender)


async def _send_rest(
    connection: Connection, view: memoryview, sent: int, deadline: int
) -> None:
    try_send = connection.try_send
    assert try_send is not None
    try:
        host = enter()
        # Again before it waits: the buffer grows for an attempt that finds no room.
        while (sent := sent + try_send(view[sent:])) < len(view):
            await host.wait_out(connection.readiness, deadline, connection.send_as)
    except BaseException as error:
        # The loop's own cancellation carries it too.
        error.bytes_done = sent  # type: ignore[attr-defined]  # of UmbelError
        raise


async def bsendl(
    handle: AnyStream, buffers: Sequence[Buffer], deadline: int = FOREVER
) -> None:
    """Send all of several buffers, as `umbel.bsendl`."""
    if find_connection(handle).try_send is not None:
        views = outbound_views(buffers)
        if total_size(views) <= JOINED_SIZE:
            await bsend(handle, b"".join(views), deadline)
            return
    await run_blocking(sending.bsendl, as_stream(handle), buffers, deadline)


async def done(handle: AnyStream, deadline: int = FOREVER) -> None:
    """End our direction, as `umbel.done`."""
    await run_blocking(sending.done, as_stream(handle), deadline)


async def flush(handle: AnyStream, deadline: int = FOREVER) -> None:
    """Wait until the peer has read everything that we sent, as `umbel.flush`."""
    await run_blocking(sending.flush, as_stream(handle), deadline)
