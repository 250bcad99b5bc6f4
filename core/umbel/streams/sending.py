"""Sending on byte streams by handle: libdill's bsend, and the end of a direction.

A `bsend` that fails once it has begun has lost its position in the stream: that
direction is broken from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from umbel._kernel.current import checkpoint, current_hub, local
from umbel.deadline import FOREVER
from umbel.errors import (
    BadHandleError,
    BusyError,
    EndOfStreamError,
    NotSupportedError,
)
from umbel.handle import open_handles, refusal
from umbel.plugins.observers import run_hook
from umbel.streams.connection import Connection, find_connection
from umbel.streams.plain_errors import explain
from umbel.streams.uses import OutboundUse, send_by
from umbel.transport import DoneContext, UnreadBytes
from umbel.values.iolist import JOINED_SIZE, outbound_view, outbound_views, total_size

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from umbel._kernel.hub import Hub
    from umbel.streams.stream import StreamHandle


def bsend(  # noqa: C901, PLR0912, PLR0915 - the data path in few calls
    handle: StreamHandle, data: Buffer, deadline: int = FOREVER
) -> None:
    """Send all of *data*.

    Args:
        handle: a byte stream.
        data: anything with the buffer protocol and contiguous memory, of any item
            size. Not copied; yours again on return.
        deadline: see `umbel.deadline`.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a byte stream.
        BusyError: EBUSY, another coroutine is sending on it.
        EndOfStreamError: EPIPE, we have ended our direction.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier send failed.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise. These errors carry `bytes_done`.

    Source:
        libdill bsend(3).
    """
    # As checkpoint, whose call would be a part of what sending costs.
    try:
        hub: Hub = local.__dict__["hub"]
    except KeyError:
        hub = current_hub()
    me = hub.current
    if me.pending is not None and not me.is_shielded:
        me.raise_pending()
    hub.budget = budget = hub.budget - 1
    if budget < 0:
        hub.spend_budget()
    try:
        connection: Connection = open_handles[handle]  # type: ignore[assignment]  # see below
        try_send = connection.try_send  # nothing else in the table has it
    except (KeyError, AttributeError):
        raise refusal(handle, Connection) from None
    flat = data if type(data) is bytes else outbound_view(data)
    size = len(flat)
    if try_send is None:
        send_by(me, connection, connection.send_indirectly, flat, deadline)
        connection.bytes_out += len(flat)
        return
    if connection.sender is not None:
        raise BusyError
    connection.sender = me
    try:
        if connection.outbound_error is not None:
            raise connection.outbound_error
        sent = try_send(flat)
        if sent != size:
            connection.send_rest(flat, sent, deadline)
        connection.bytes_out += size
    except BaseException as error:
        if connection.fail_outbound(error):
            raise explain(error) from error
        raise
    finally:
        if connection.outbound_error is BadHandleError:
            connection.leave(me)
        else:
            connection.sender = None


def bsendl(
    handle: StreamHandle, buffers: Sequence[Buffer], deadline: int = FOREVER
) -> None:
    """Send all of several buffers, in order, as one.

    Args:
        handle: a byte stream.
        buffers: one or more; each as *data* of `bsend`. Up to 16 KiB in all are copied
            into one, which is faster.
        deadline: see `umbel.deadline`.

    Raises:
        OSError: EINVAL, the list is empty.
        BadHandleError: EBADF. For this and all other errors see `bsend`.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise.

    Source:
        libdill bsendl(3). Differs: IOV_MAX is no limit.
    """
    me = checkpoint()
    connection = find_connection(handle)
    views = outbound_views(buffers)
    size = total_size(views)
    if size <= JOINED_SIZE and connection.try_send is not None:
        bsend(handle, b"".join(views), deadline)
        return
    send_by(me, connection, connection.stream.send, views, deadline)
    connection.bytes_out += size


def done(handle: StreamHandle, deadline: int = FOREVER) -> None:
    """End our direction: the peer receives what was sent, and then the end.

    The other direction goes on. Works in a coroutine that is being canceled, unless
    the transport has to wait.

    Args:
        handle: a byte stream.
        deadline: see `umbel.deadline`; a local socket never waits here.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a byte stream, or its transport can't.
        BusyError: EBUSY, a coroutine is sending on it.
        EndOfStreamError: EPIPE, we have ended our direction before.
        BrokenStreamError: ECONNRESET, an earlier send failed, or the peer is gone.
        DeadlineError: ETIMEDOUT, the transport could not do it in time.
        Canceled: ECANCELED, the transport had to wait.

    Source:
        libdill ipc_done(3), made generic.
    """
    me = current_hub().current
    connection = find_connection(handle)
    with OutboundUse(me, connection):
        if connection.outbound_error is EndOfStreamError:
            message = "we have ended our direction before"
            raise EndOfStreamError(message)
        if connection.outbound_error is not None:
            raise connection.outbound_error
        # Until it is over: a close that overtakes it must not do it again.
        connection.outbound_error = BusyError
        context = DoneContext(int(handle), connection.address, deadline)
        try:
            run_hook(
                "umbel_done", context, lambda c: connection.stream.done(c.deadline)
            )
        except BaseException:
            if connection.outbound_error is BusyError:
                connection.outbound_error = None  # broken below, unless it did nothing
            raise
        if connection.outbound_error is BusyError:
            connection.outbound_error = EndOfStreamError


def flush(handle: StreamHandle, deadline: int = FOREVER) -> None:
    """Wait until the peer has read everything that we sent, without closing.

    Args:
        handle: a byte stream.
        deadline: see `umbel.deadline`.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, its transport can't tell.
        BusyError: EBUSY, a coroutine is sending on it.
        BrokenStreamError: ECONNRESET, the peer is gone without reading everything.
        DeadlineError: ETIMEDOUT, it has not read everything. Nothing is broken.
        Canceled: ECANCELED. Likewise.

    Source:
        unix(7), SIOCOUTQ: what a local socket's peer has not read yet.
    """
    me = checkpoint()
    connection = find_connection(handle)
    unread = connection.query(UnreadBytes)
    if unread is None:
        message = f"{connection.describe()}: its transport can't tell what was read"
        raise NotSupportedError(message)
    with OutboundUse(me, connection, is_harmless=True):
        error = connection.outbound_error
        if error is not None and error is not EndOfStreamError:
            raise error
        unread.wait(deadline)
