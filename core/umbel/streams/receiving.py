"""Receiving from byte streams by handle: libdill's brecv, and what Python adds.

* A `brecv` that fails once it has begun has lost its position in the stream: that
  direction is broken from then on.
* `receive` loses nothing: after ETIMEDOUT or ECANCELED it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

from umbel._kernel.current import checkpoint, current_hub, local
from umbel._kernel.watch import MOST_CAUGHT
from umbel.deadline import FOREVER
from umbel.errors import (
    BadHandleError,
    BusyError,
)
from umbel.handle import open_handles, refusal
from umbel.streams.connection import PIECE, Connection, find_connection
from umbel.streams.plain_errors import explain, is_plain
from umbel.streams.uses import InboundUse
from umbel.values.iolist import (
    JOINED_SIZE,
    Skip,
    check_count,
    inbound_view,
    inbound_views,
    scatter,
    total_size,
)

if TYPE_CHECKING:
    from umbel._kernel.hub import Hub
    from umbel.streams.stream import StreamHandle
    from umbel.values.iolist import Target
    from umbel.values.protocols import WritableBuffer

#: What a receive returns at most unless told otherwise.
DEFAULT_SIZE: Final = 65536


def receive(  # noqa: C901, PLR0912, PLR0915 - the data path in few calls
    handle: StreamHandle, max_bytes: int = DEFAULT_SIZE, deadline: int = FOREVER
) -> bytes:
    """Receive what there is, waiting only if there is nothing.

    Args:
        handle: a byte stream.
        max_bytes: 1 or more. It comes before the deadline: `deadline=` is safest.
        deadline: see `umbel.deadline`.

    Returns:
        1 to *max_bytes* bytes; b"" at the end of the stream, again and again.

    Raises:
        OSError: EINVAL, *max_bytes* is 0 or less.
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a byte stream.
        BusyError: EBUSY, another coroutine is receiving from it.
        BrokenStreamError: ECONNRESET, the peer is gone with our bytes unread, or an
            earlier `brecv` failed.
        DeadlineError: ETIMEDOUT. Nothing is lost: call again.
        Canceled: ECANCELED. Nothing is lost but descriptors that came with the data:
            this call takes none, see `receive_with_fds`.

    Source:
        own; recv(2) without its surprises.
    """
    try:
        hub: Hub = local.__dict__["hub"]
    except KeyError:
        hub = current_hub()
    me = hub.current
    if me.pending is not None and not me.is_shielded:
        me.raise_pending()
    try:
        connection: Connection = open_handles[handle]  # type: ignore[assignment]  # see below
        readiness = connection.readiness  # nothing else in the table has one
    except (KeyError, AttributeError):
        raise refusal(handle, Connection) from None
    if max_bytes is not DEFAULT_SIZE and (type(max_bytes) is not int or max_bytes <= 0):
        refuse_size(max_bytes)
    may_try = hub.saw_one or not readiness.is_drained
    if may_try:  # else it waits, which is as fair
        hub.budget = budget = hub.budget - 1
        if budget < 0:
            hub.spend_budget()
    if connection.receiver is not None:
        raise BusyError
    connection.receiver = me
    try:
        if connection.inbound_error is not None:
            return connection.refuse_receive()
        try_receive = connection.try_receive
        if try_receive is None:
            data = connection.receive_indirectly(max_bytes, deadline)
        else:
            found = None
            if not readiness.is_drained:
                found = try_receive(max_bytes)
            elif may_try:
                if connection.waits_left:
                    connection.waits_left -= 1
                else:
                    # As Connection.look, whose call is saved.
                    readiness.is_drained = False
                    found = try_receive(max_bytes)
                    if found is None:
                        connection.look_less()
                    else:
                        connection.looks_missed = 0
            if found is None:
                # As Readiness.wait_in, whose call is saved.
                watch = readiness.home
                if watch is None or watch.hub is not hub:
                    watch = readiness.watch_in(hub)
                readiness.is_drained = False
                # As Watch.wait_in, whose call is saved as well.
                if watch.readable or (watch.has_ended and watch.is_over()):
                    watch.readable = False
                else:
                    if watch.reader is not None:
                        watch.require_no_reader()
                    if hub.needs_arming:
                        watch.arm_in()
                    if (
                        connection.last_size < connection.most_caught
                        and max_bytes >= MOST_CAUGHT
                    ):
                        watch.catch = try_receive
                    watch.reader = me
                    try:
                        if not watch.readable:
                            hub.park(deadline)
                    except BaseException:
                        watch.readable |= watch.reader is not me
                        if watch.reader is me:
                            watch.reader = None
                        watch.catch = None
                        connection.give_back(watch)
                        raise
                    if watch.reader is me:
                        watch.reader = None
                    watch.catch = None
                    found, watch.caught = watch.caught, None
            while found is None and (found := try_receive(max_bytes)) is None:
                readiness.wait_in(deadline)
            data = found
        connection.last_size = count = len(data)
        if count:
            connection.bytes_in += count
        else:
            connection.note_end()
        return data
    except OSError as error:
        if connection.fail_inbound(error):
            raise explain(error) from error
        raise
    except MemoryError:
        connection.break_inbound()  # it may have taken bytes that it can't give
        raise
    finally:
        if connection.inbound_error is BadHandleError:
            connection.leave(me)
        else:
            connection.receiver = None


def refuse_size(max_bytes: int) -> None:
    """Refuse what is not an int of 1 or more."""
    check_count(max_bytes, "max_bytes", 1)


@overload
def brecv(handle: StreamHandle, target: int, deadline: int = FOREVER) -> bytes: ...


@overload
def brecv(
    handle: StreamHandle, target: WritableBuffer | Skip, deadline: int = FOREVER
) -> None: ...


def brecv(  # noqa: C901, PLR0912, PLR0915 - the data path in few calls
    handle: StreamHandle,
    target: int | WritableBuffer | Skip,
    deadline: int = FOREVER,
) -> bytes | None:
    """Receive exactly as many bytes as asked for, or fail.

    Args:
        handle: a byte stream.
        target: a number of bytes, to get them as a new object; or a writable buffer,
            which is filled, or `Skip(count)`, for bytes that nobody wants. A buffer may
            have been filled in part by a call that failed.
        deadline: see `umbel.deadline`.

    Returns:
        the bytes, if a number was given.

    Raises:
        OSError: EINVAL, a negative count.
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a byte stream.
        BusyError: EBUSY, another coroutine is receiving from it.
        EndOfStreamError: EPIPE, the peer ended its direction before that many bytes
            came; so does every later call. The bytes that came are lost.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier brecv failed.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise. These errors carry `bytes_done`.

    Source:
        libdill brecv(3); a null buffer there is `Skip` here.
    """
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
        readiness = connection.readiness  # as in receive
    except (KeyError, AttributeError):
        raise refusal(handle, Connection) from None
    if not isinstance(target, int):
        view = inbound_view(target)
        if isinstance(view, Skip) or view.nbytes > JOINED_SIZE:
            brecvl(handle, [view], deadline)
        else:
            view[:] = brecv(handle, view.nbytes, deadline)
        return None
    if target <= 0:
        check_count(target, "the count")
        return b""
    # As InboundUse does, whose calls would be a part of what receiving costs.
    if connection.receiver is not None:
        raise BusyError
    connection.receiver = me
    rest = None
    try:
        if connection.inbound_error is not None:
            connection.require_inbound()
        size = min(target, PIECE)
        try_receive = connection.try_receive
        if try_receive is None:
            data = connection.receive_indirectly(size, deadline)
        else:
            found = None if readiness.is_drained else try_receive(size)
            while found is None:
                # As in receive, but the hub may receive just so much.
                watch = readiness.home
                if watch is None or watch.hub is not hub:
                    watch = readiness.watch_in(hub)
                readiness.is_drained = False
                if size < connection.most_caught:
                    watch.most_caught = size
                    watch.catch = try_receive
                try:
                    watch.wait_in(deadline)
                except BaseException:
                    watch.catch = None  # at the limit of recursion the next call fails
                    connection.give_back(watch)
                    raise
                found = watch.take_caught()
                if found is None:
                    found = try_receive(size)
            data = found
        if len(data) != target:
            rest = InboundUse(me, connection)
            data = rest.receive_rest(data, target, deadline)
        connection.bytes_in += target
        return data
    except BaseException as error:
        rest = rest or InboundUse(me, connection)
        connection.bytes_in += rest.moved
        rest.fail(error)
        if is_plain(error):
            raise explain(error) from error
        raise
    finally:
        if connection.inbound_error is BadHandleError:
            connection.leave(me)
        else:
            connection.receiver = None


def brecvl(
    handle: StreamHandle, targets: Sequence[Target], deadline: int = FOREVER
) -> None:
    """Fill several buffers, in order, as if they were one.

    Args:
        handle: a byte stream.
        targets: one or more writable buffers or `Skip(count)`.
        deadline: see `umbel.deadline`.

    Raises:
        OSError: EINVAL, the list is empty.
        BadHandleError: EBADF. For this and all other errors see `brecv`.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise.

    Source:
        libdill brecvl(3). Differs: a skip that fails inside the list fails the call.
    """
    me = checkpoint()
    connection = find_connection(handle)
    views = inbound_views(targets)
    size = total_size(views)
    if size <= JOINED_SIZE:
        scatter(brecv(handle, size, deadline), views)
        return
    with InboundUse(me, connection) as inbound:
        for view in views:
            if isinstance(view, Skip):
                inbound.skip(view.count, deadline)
            else:
                inbound.fill(view, deadline)
