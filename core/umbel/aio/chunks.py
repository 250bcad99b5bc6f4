"""`async for` over a byte stream, in fewer steps than one `receive` after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from umbel._kernel.current import current_hub
from umbel.aio.iteration import Beginning, Items
from umbel.aio.receiving import FOREIGN, break_off, receive
from umbel.aio.stream import AsyncStreamHandle
from umbel.errors import BadHandleError
from umbel.streams.connection import find_connection
from umbel.streams.plain_errors import explain

if TYPE_CHECKING:
    from umbel.aio.aio_host import AioHost
    from umbel.aio.guest import Guest


def chunks(handle: AsyncStreamHandle) -> AsyncIterator[bytes]:
    """Give what comes until the end of the stream, as `receive` would."""
    return Items(_chunks, handle)


async def _chunks(  # noqa: C901, PLR0912, PLR0915 - the data path, in few calls
    handle: AsyncStreamHandle, beginning: Beginning[AsyncStreamHandle, bytes]
) -> AsyncGenerator[bytes, None]:
    """Do that.

    The inner loop is the part of `receive` that waits for what the hub catches. It
    looks nothing up anew, which takes a tenth off a request. Everything else is left to
    `receive` itself.
    """
    with beginning:
        while chunk := await receive(handle):
            yield chunk
            connection = find_connection(handle)
            number = connection.number
            readiness = connection.readiness
            watch = readiness.home
            hub = current_hub()
            host: AioHost | None = hub.host  # type: ignore[assignment]  # no other is
            if (
                watch is None
                or watch.hub is not hub
                or watch.guest is None
                or host is None
            ):
                continue
            me: Guest = watch.guest  # type: ignore[assignment]  # of `receive`
            make_sleep = host.make_sleep
            try_receive = connection.try_receive
            while (
                connection.number == number  # not handed on by hown
                and readiness.is_drained
                and not hub.saw_one
                and connection.last_size < connection.most_caught
                and connection.receiver is None
                and connection.inbound_error is None
                and watch.reader is None
                and not (watch.readable or watch.has_ended)
            ):
                if hub.needs_arming:
                    watch.arm_in()  # first: at the limit of recursion it may fail
                connection.receiver = me
                me.sleep = sleep = make_sleep()
                me.is_parked = True
                watch.reader = me
                readiness.is_drained = False
                watch.catch = try_receive
                try:
                    # As in `receive`.
                    if me.pending is not None or watch.readable:
                        hub.unpark(me, me.pending)
                    await sleep
                except BaseException as error:
                    break_off(me, watch, connection)
                    if not isinstance(error, FOREIGN) or host.is_running():
                        raise
                    break
                finally:
                    me.sleep = watch.catch = None
                    if watch.reader is me:
                        watch.reader = None
                    if connection.inbound_error is BadHandleError:
                        connection.leave(me)  # type: ignore[unreachable]  # closed meanwhile
                    else:
                        connection.receiver = None
                outcome = me.outcome
                if outcome is not None:
                    try:
                        me.raise_outcome()
                    except OSError as error:
                        if connection.fail_inbound(error):
                            raise explain(error) from error
                        raise
                    except MemoryError:
                        connection.break_inbound()
                        raise
                data, watch.caught = watch.caught, None
                if not data:
                    break
                connection.last_size = count = len(data)
                connection.bytes_in += count
                yield data


AsyncStreamHandle.__aiter__ = chunks  # type: ignore[assignment, method-assign]
