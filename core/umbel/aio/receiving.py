"""Awaitable verbs that receive; see `umbel.aio.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, overload

from umbel._kernel.current import current_hub, local
from umbel._kernel.watch import MOST_CAUGHT, Watch
from umbel.aio.aio_host import AioHost
from umbel.aio.entry import begin, enter, run_blocking
from umbel.aio.guest import Guest
from umbel.aio.handle import as_stream
from umbel.deadline import FOREVER
from umbel.errors import BadHandleError, BusyError
from umbel.handle import open_handles, refusal
from umbel.streams import receiving
from umbel.streams.connection import PIECE, Connection, find_connection
from umbel.streams.plain_errors import explain, is_plain
from umbel.streams.receiving import DEFAULT_SIZE, refuse_size
from umbel.streams.uses import InboundUse
from umbel.values.iolist import (
    JOINED_SIZE,
    Skip,
    check_count,
    inbound_views,
    scatter,
    total_size,
)

if TYPE_CHECKING:
    from umbel.aio.stream import AnyStream
    from umbel.values.iolist import Target
    from umbel.values.protocols import WritableBuffer

#: What asyncio and trio raise in a task that awaits something of another loop's.
FOREIGN: Final = (RuntimeError, TypeError)


async def receive(  # noqa: C901, PLR0912, PLR0915 - the data path, in few calls
    handle: AnyStream, max_bytes: int = DEFAULT_SIZE, deadline: int = FOREVER
) -> bytes:
    """Receive what there is, as `umbel.receive`. If canceled, it loses nothing."""
    try:
        hub = local.hub
    except AttributeError:
        hub = current_hub()
    if hub.must_ask or hub.budget < 0:
        await begin()
    try:
        connection = open_handles[handle]
    except KeyError:
        hub.budget -= 1
        raise refusal(handle, Connection) from None
    if type(connection) is not Connection:
        hub.budget -= 1
        raise refusal(handle, Connection)
    if max_bytes is not DEFAULT_SIZE and (type(max_bytes) is not int or max_bytes <= 0):
        hub.budget -= 1
        refuse_size(max_bytes)
    if connection.try_receive is None:
        call = partial(receiving.receive, as_stream(handle), max_bytes, deadline)
        return await enter().run(call, connection.keep)
    readiness = connection.readiness
    watch = readiness.home
    if watch is None or watch.hub is not hub:
        # Many streams live so briefly that they never wait, and need no watch.
        if not readiness.is_drained:
            found = connection.receive_now(hub.main, max_bytes)
            if found is not None:
                hub.budget -= 1
                return found
            connection.waits_left += 1  # that was the look
        watch = readiness.watch_in(hub)
    me: Guest | None = watch.guest  # type: ignore[assignment]  # set here alone
    if me is None:
        me = watch.guest = Guest(hub)
    # Next to each other: by now another thread may receive from it.
    if connection.receiver is not None:
        hub.budget -= 1
        raise BusyError
    connection.receiver = me
    # Not before: another thread's receive may just have left bytes to the next one.
    try_receive = connection.try_receive
    try:
        data = None
        while data is None:
            if connection.inbound_error is not None:
                hub.budget -= 1
                return connection.refuse_receive()
            if readiness.is_drained and not (watch.readable or watch.has_ended):
                if hub.saw_one:
                    if connection.waits_left:
                        connection.waits_left -= 1
                    elif (data := connection.look(max_bytes)) is not None:
                        hub.budget -= 1
                        break
                # None: a loop in another task has ended while we let others run.
                host: AioHost = hub.host or enter()  # type: ignore[assignment]  # nobody else is one
                # As AioHost.wait_in, whose coroutines would cost a tenth of all.
                if watch.reader is not None:
                    watch.require_no_reader()
                if hub.needs_arming:
                    watch.arm_in()  # first: at the limit of recursion it may fail
                me.sleep = sleep = host.make_sleep()
                me.is_parked = True
                watch.reader = me
                readiness.is_drained = False
                if (
                    connection.last_size < connection.most_caught
                    and max_bytes >= MOST_CAUGHT
                ):
                    watch.catch = try_receive
                timer = None
                try:
                    # A signal's handler may have met what we wait for, just now.
                    if me.pending is not None or watch.readable:
                        hub.unpark(me, me.pending)
                    if deadline != FOREVER:
                        timer = host.arm(me, deadline)
                    await sleep
                except BaseException as error:
                    break_off(me, watch, connection)
                    if not isinstance(error, FOREIGN) or host.is_running():
                        raise
                    enter()  # another loop runs here than last time
                    # As anew: it may have failed meanwhile, or have bytes kept.
                    try_receive = connection.try_receive
                    assert try_receive is not None
                    continue
                finally:
                    me.sleep = watch.catch = None
                    if watch.reader is me:
                        watch.reader = None
                    if timer is not None:
                        hub.timers.cancel(timer)
                if me.outcome is not None:
                    me.raise_outcome()
                data, watch.caught = watch.caught, None
                if data is not None:
                    break
            hub.budget -= 1
            watch.readable = readiness.is_drained = False
            data = try_receive(max_bytes)
            if data is None:
                connection.waits_left += 1  # that was the look
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


def break_off(me: Guest, watch: Watch, connection: Connection) -> None:
    """Leave to the next receive what came just as this one was canceled."""
    watch.readable |= watch.reader is not me  # it has had the edge
    me.is_parked = False
    # What the hub has received for it meanwhile, or failed to.
    connection.give_back(watch)
    if isinstance(me.outcome, ConnectionResetError | BrokenPipeError | MemoryError):
        connection.break_inbound()
    me.outcome = None


@overload
async def brecv(handle: AnyStream, target: int, deadline: int = FOREVER) -> bytes: ...


@overload
async def brecv(
    handle: AnyStream, target: WritableBuffer | Skip, deadline: int = FOREVER
) -> None: ...


async def brecv(  # noqa: C901, PLR0912, PLR0915 - the data path, in few calls
    handle: AnyStream, target: int | WritableBuffer | Skip, deadline: int = FOREVER
) -> bytes | None:
    """Receive exactly as many bytes as asked for, as `umbel.brecv`."""
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
    if not isinstance(target, int):
        await brecvl(handle, [target], deadline)
        return None
    if connection.try_receive is None:
        call = partial(receiving.brecv, as_stream(handle), target, deadline)
        return await enter().run(call)
    if target <= 0:
        check_count(target, "the count")
        return b""
    readiness = connection.readiness
    watch = readiness.home
    if watch is None or watch.hub is not hub:
        watch = readiness.watch_in(hub)
    me: Guest | None = watch.guest  # type: ignore[assignment]  # set here alone
    if me is None:
        me = watch.guest = Guest(hub)
    # As InboundUse does: see the blocking one.
    if connection.receiver is not None:
        raise BusyError
    connection.receiver = me
    rest = None
    pieces: list[bytes] = []
    size = min(target, PIECE)
    try:
        if connection.inbound_error is not None:
            connection.require_inbound()
        try_receive = connection.try_receive  # as in receive
        while True:
            data = None
            if watch.readable or watch.has_ended or not readiness.is_drained:
                watch.readable = readiness.is_drained = False
                data = try_receive(size)
                if data is None and watch.has_ended:
                    continue  # the next attempt tells
            if data is None:
                # As receive waits, but the hub may receive just so much.
                host: AioHost = hub.host or enter()  # type: ignore[assignment]
                sleep = host.begin_to_wait(me, watch)
                readiness.is_drained = False
                if size < connection.most_caught:
                    watch.most_caught = size
                    watch.catch = try_receive
                timer = None
                try:
                    if deadline != FOREVER:
                        timer = host.arm(me, deadline)
                    await sleep
                except BaseException as error:
                    break_off(me, watch, connection)
                    if not isinstance(error, FOREIGN) or host.is_running():
                        raise
                    enter()  # another loop runs here than last time
                    try_receive = connection.try_receive
                    assert try_receive is not None
                    continue
                finally:
                    me.sleep = watch.catch = None
                    if watch.reader is me:
                        watch.reader = None
                    if timer is not None:
                        hub.timers.cancel(timer)
                data = watch.take_caught()
                if me.outcome is not None:
                    me.raise_outcome()
                if data is None:
                    connection.require_inbound()
                    continue
            if rest is None:
                if len(data) == target:
                    connection.bytes_in += target
                    return data
                rest = InboundUse(me, connection)
            rest.require(len(data), deadline)
            pieces.append(data)
            if rest.moved == target:
                connection.bytes_in += target
                return b"".join(pieces)
            size = min(target - rest.moved, PIECE)
            hub.budget -= 1
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


async def brecvl(
    handle: AnyStream, targets: Sequence[Target], deadline: int = FOREVER
) -> None:
    """Fill several buffers, as `umbel.brecvl`."""
    if find_connection(handle).try_receive is not None:
        views = inbound_views(targets)
        size = total_size(views)
        if size <= JOINED_SIZE:
            scatter(await brecv(handle, size, deadline), views)
            return
    await run_blocking(receiving.brecvl, as_stream(handle), targets, deadline)
