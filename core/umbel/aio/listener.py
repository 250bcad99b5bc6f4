"""Awaitable verbs on listeners and addresses; contracts as of their blocking twins."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from functools import partial
from typing import TypeAlias, cast, final, overload

import umbel.streams.listener as blocking
from umbel import verbs
from umbel.aio.entry import begin, run_undoable
from umbel.aio.handle import AsyncHandle
from umbel.aio.iteration import Beginning, Items
from umbel.aio.stream import AnyStream, AsyncStreamHandle
from umbel.deadline import FOREVER
from umbel.errors import BadHandleError
from umbel.handle import hclose_if_open, lookup, open_handles, recast
from umbel.plugins.loaded import known_streams
from umbel.plugins.observers import is_wrapped
from umbel.streams.connection import find_connection
from umbel.streams.listener import AcceptUse, ListenerHandle, Listening, open_stream
from umbel.streams.plain_errors import explain, is_plain
from umbel.streams.stream import StreamHandle
from umbel.values.address import Address
from umbel.verbs import BACKLOG


@final
class AsyncListenerHandle(AsyncHandle):
    """Names a listener: the awaitable functions on listeners, as methods.

    `async for stream in listener` accepts until the listener is closed.
    """

    __slots__ = ()

    def accept(
        self, deadline: int = FOREVER
    ) -> Coroutine[object, object, AsyncStreamHandle]:
        """Accept the next stream, as `accept`."""
        return accept(self, deadline)

    @property
    def address(self) -> Address:
        """Where others can connect to it."""
        return lookup(self, Listening).listener.address

    def __aiter__(self) -> AsyncIterator[AsyncStreamHandle]:
        return Items(_streams, self)


#: What the verbs take: they work on the one table, whichever handle names the listener.
AnyListener: TypeAlias = ListenerHandle | AsyncListenerHandle


async def _streams(
    handle: AsyncListenerHandle,
    beginning: Beginning[AsyncListenerHandle, AsyncStreamHandle],
) -> AsyncGenerator[AsyncStreamHandle, None]:
    with beginning:
        while True:
            try:
                stream = await accept(handle)
            except BadHandleError:
                if handle in open_handles:
                    raise  # of something else
                return  # closed meanwhile
            yield stream


async def accept(handle: AnyListener, deadline: int = FOREVER) -> AsyncStreamHandle:
    """Accept the next stream, as `umbel.accept`. If canceled, it loses no stream."""
    host = await begin()
    listening = lookup(handle, Listening)
    attempts = listening.attempts
    if attempts is None or is_wrapped("umbel_accept"):
        call = partial(blocking.accept, as_listener(handle), deadline)
        found = await host.run(call, listening.keep)
        return recast(found, AsyncStreamHandle)
    with AcceptUse(host.hub.main, listening) as use:
        if listening.kept:
            return recast(listening.kept.pop(0), AsyncStreamHandle)
        try:
            while (stream := attempts.accept()) is None:
                await host.wait_in(attempts.readiness, deadline, use.go_on_as)
        except OSError as error:
            if is_plain(error):
                raise explain(error) from error
            raise
        if type(stream) not in known_streams:
            listening.transport.require_stream("accept", stream)
        return open_stream(
            stream, listening.listener.address, listening.transport, AsyncStreamHandle
        )


async def connect(
    address: str | Address, deadline: int = FOREVER, **options: object
) -> AsyncStreamHandle:
    """Connect to a listener at *address*, as `umbel.connect`."""
    return await connect_by(partial(verbs.connect, address, deadline, **options))


async def accept_by(
    call: Callable[[], StreamHandle], handle: AnyListener
) -> AsyncStreamHandle:
    """Give the stream that *call* accepts; the next one does if we are canceled."""
    found = await run_undoable(call, lookup(handle, Listening).keep)
    return recast(found, AsyncStreamHandle)


async def connect_by(call: Callable[[], StreamHandle]) -> AsyncStreamHandle:
    """Give the stream of *call*, which connects; nobody gets it if we are canceled."""
    return recast(await run_undoable(call, hclose_if_open), AsyncStreamHandle)


def listen(
    address: str | Address, backlog: int = BACKLOG, **options: object
) -> AsyncListenerHandle:
    """Listen at *address*, as `umbel.listen`. It never waits, and is not awaited."""
    return as_async(verbs.listen(address, backlog, **options))


def pair(
    scheme: str = "mem", **options: object
) -> tuple[AsyncStreamHandle, AsyncStreamHandle]:
    """Make two streams that are each other's peers, as `umbel.pair`. It never waits."""
    left, right = verbs.pair(scheme, **options)
    return as_async(left), as_async(right)


# Between the two kinds of handles.


@overload
def as_async(handle: AnyStream) -> AsyncStreamHandle: ...


@overload
def as_async(handle: AnyListener) -> AsyncListenerHandle: ...


def as_async(
    handle: AnyStream | AnyListener,
) -> AsyncStreamHandle | AsyncListenerHandle:
    """Give a handle to the same object whose methods are awaited.

    Args:
        handle: a stream or a listener, of either kind. It still names the object, but
            now the new handle owns it.

    Returns:
        a handle with the same number.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is neither.

    Source:
        own.
    """
    if _is_listener(handle):
        return recast(handle, AsyncListenerHandle)
    return recast(handle, AsyncStreamHandle)


@overload
def as_blocking(handle: AnyStream) -> StreamHandle: ...


@overload
def as_blocking(handle: AnyListener) -> ListenerHandle: ...


def as_blocking(
    handle: AnyStream | AnyListener,
) -> StreamHandle | ListenerHandle:
    """Give a handle to the same object whose methods block; see `as_async`.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is neither a stream nor a listener.

    Source:
        own.
    """
    if _is_listener(handle):
        return recast(handle, ListenerHandle)
    return recast(handle, StreamHandle)


def _is_listener(handle: int) -> bool:
    # By the object, not by the handle: it may be of the other kind already.
    if isinstance(open_handles.get(handle), Listening):
        return True
    find_connection(handle)  # EBADF, or ENOTSUP
    return False


# For blocking verbs; see `umbel.aio.handle.as_stream`.


def as_listener(handle: AnyListener) -> ListenerHandle:
    """Type *handle* for a blocking verb."""
    return cast("ListenerHandle", handle)


def as_either(handle: AnyStream | AnyListener) -> StreamHandle | ListenerHandle:
    """Type *handle* for a blocking verb."""
    return cast("StreamHandle | ListenerHandle", handle)
