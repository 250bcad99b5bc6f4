"""asyncio's way to connect and to serve, over any umbel transport."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast, final

from umbel.aio.asyncio_crew import AsyncioCrew
from umbel.aio.entry import enter
from umbel.aio.listener import connect
from umbel.aio.serving import serve_by
from umbel.bridges.asyncio_transport import StreamTransport, as_asyncio_transport
from umbel.deadline import FOREVER, check_seconds
from umbel.errors import BadHandleError
from umbel.handle import CLOSE_GRACE, hclose_if_open, open_handles
from umbel.server_rules import Room, require_listener

if TYPE_CHECKING:
    from umbel.aio.asyncio_host import AsyncioHost
    from umbel.aio.listener import AnyListener
    from umbel.aio.stream import AsyncStreamHandle
    from umbel.values.address import Address

#: What `start_server` calls for each connection, as asyncio's does.
Talk: TypeAlias = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None
]

#: What a StreamReader holds before its transport is made to pause.
READER_LIMIT = 1 << 16


async def open_connection(
    address: str | Address,
    deadline: int = FOREVER,
    *,
    grace: float = CLOSE_GRACE,
    reader_limit: int = READER_LIMIT,
    **options: object,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, as `umbel.connect`, and give asyncio's reader and writer.

    Args:
        address: where to connect, such as "ipc:x.sock".
        deadline: see `umbel.deadline`; for connecting only.
        grace: as of `as_asyncio_transport`.
        reader_limit: bytes that the reader holds at most: a longer line than that is
            none for `readline`. What asyncio calls the limit.
        **options: of its transport.

    Returns:
        the reader and the writer.

    Raises:
        DeadlineError: ETIMEDOUT, nobody answered in time.
        Canceled: ECANCELED is never raised here, but the loop's own cancellation.
        OSError: as `umbel.connect`.
        ValueError: *reader_limit* is less than 1, or *grace* negative.

    Source:
        asyncio.open_connection.
    """
    check_seconds(grace, "grace")
    loop = _loop_with_tls()
    reader = asyncio.StreamReader(reader_limit, loop)
    stream = await connect(address, deadline, **options)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = as_asyncio_transport(stream, protocol, grace=grace)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_server(
    handle: AnyListener,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    *,
    limit: int | None = None,
    grace: float = CLOSE_GRACE,
) -> StreamServer:
    """Serve asyncio protocols on a listener, as `loop.create_server`.

    Args:
        handle: a listener. Owned by the server.
        protocol_factory: called for each connection.
        limit: how many may be open at once; others wait in the backlog.
        grace: as of `as_asyncio_transport`, for each.

    Returns:
        the server, which is serving.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a listener.
        BusyError: EBUSY, another coroutine or task is accepting from it.
        OSError: EINVAL, *limit* is less than 1.
        ValueError: *grace* is negative. After each of these the listener is as it was.

    Source:
        asyncio's create_server; over `umbel.aio.serve`.
    """
    check_seconds(grace, "grace")
    require_listener(handle)
    Room(limit)  # EINVAL
    server = StreamServer(handle, protocol_factory, limit, grace)
    try:
        await asyncio.sleep(0)  # now it accepts, and nobody else can
    except BaseException:
        server.close()
        raise
    return server


async def start_server(
    handle: AnyListener,
    talk: Talk,
    *,
    limit: int | None = None,
    grace: float = CLOSE_GRACE,
    reader_limit: int = READER_LIMIT,
) -> StreamServer:
    """Serve asyncio's readers and writers on a listener, as `asyncio.start_server`.

    Args:
        handle: a listener. Owned by the server.
        talk: called with the reader and the writer of each connection. If it is
            canceled or fails, the connection is closed.
        limit: as of `create_server`, which has another meaning in asyncio.
        grace: as of `create_server`.
        reader_limit: as of `open_connection`.

    Returns:
        the server, which is serving.

    Raises:
        BadHandleError: EBADF, *handle* is not open; and as `create_server`.
        ValueError: *reader_limit* is less than 1.

    Source:
        asyncio.start_server.
    """
    loop = _loop_with_tls()
    asyncio.StreamReader(reader_limit, loop)  # ValueError

    talk = _closing(talk, loop)

    def make_protocol() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(reader_limit, loop)
        return asyncio.StreamReaderProtocol(reader, talk, loop)

    return await create_server(handle, make_protocol, limit=limit, grace=grace)


def _closing(talk: Talk, loop: asyncio.AbstractEventLoop) -> Talk:
    """Give what does as *talk*, and closes the connection of one that did not do it.

    One that is canceled before its first step can't. Python does it only since 3.12,
    and in 3.12.1 it fails for those that were canceled.
    """
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking = talk(reader, writer)
        if not asyncio.iscoroutine(talking):
            return

        def end(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                message = "a connection's callback failed"
                loop.call_exception_handler(
                    {
                        "message": message,
                        "exception": error,
                        "transport": writer.transport,
                    }
                )
            if error is not None or task.cancelled():
                writer.transport.close()

        task = loop.create_task(talking)
        tasks.add(task)
        task.add_done_callback(end)

    return begin


@final
class StreamServer(asyncio.AbstractServer):
    """What `create_server` returns. Connections outlive its close, as in asyncio."""

    def __init__(
        self,
        handle: AnyListener,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        limit: int | None,
        grace: float,
    ) -> None:
        self._handle = handle
        self._make_protocol = protocol_factory
        self._grace = grace
        self._transports: set[StreamTransport] = set()
        self._loop = asyncio.get_running_loop()
        # As in asyncio, nothing of a server or its connections is a task.
        self._backstage = cast("AsyncioHost", enter()).backstage
        self._task = self._backstage.start(self._serve(limit))
        self._task.add_done_callback(self._report)

    async def _serve(self, limit: int | None) -> None:
        try:
            await serve_by(
                AsyncioCrew(self._backstage.start),
                self._handle,
                self._attend,
                FOREVER,
                limit,
                math.inf,
            )
        except BadHandleError:
            pass  # closed before this began; later on, that is the end, too

    async def _attend(self, stream: AsyncStreamHandle) -> None:
        protocol = self._make_protocol()
        transport = as_asyncio_transport(stream, protocol, grace=self._grace)
        self._transports.add(transport)
        try:
            await transport.wait_lost()
        finally:
            self._transports.discard(transport)
            transport.abort()  # canceled: the loop is shut down

    def _report(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            message = f"the server at handle {int(self._handle)} failed"
            self._loop.call_exception_handler({"message": message, "exception": error})

    @property
    def sockets(self) -> tuple[()]:
        """Empty: it listens on a handle of umbel's."""
        return ()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As `AbstractServer.get_loop`."""
        return self._loop

    def is_serving(self) -> bool:
        """As `Server.is_serving`."""
        return self._handle in open_handles and not self._task.done()

    async def start_serving(self) -> None:
        """As `Server.start_serving`: it has begun already."""

    async def serve_forever(self) -> None:
        """As `Server.serve_forever`: until canceled, or its listener is closed."""
        try:
            await asyncio.shield(self._task)
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening; connections go on. A second call has no effect."""
        hclose_if_open(self._handle)

    def close_clients(self) -> None:
        """Close all connections in good order."""
        for transport in list(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """Close all connections hard."""
        for transport in list(self._transports):
            transport.abort()

    async def wait_closed(self) -> None:
        """Return once it was closed, and the last connection has ended."""
        await asyncio.wait([self._task])


def _loop_with_tls() -> asyncio.AbstractEventLoop:
    """Give the running loop, as what can put TLS on our transports."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):
        return loop
    return cast("asyncio.AbstractEventLoop", _LoopWithTls(loop))


@final
class _LoopWithTls:
    """A loop of another kind, as writers know theirs: with asyncio's own `start_tls`.

    uvloop's takes no transports but its own. asyncio's asks nothing of its loop that
    others do not have.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        as_asyncios = cast("asyncio.BaseEventLoop", loop)
        self.start_tls = partial(asyncio.BaseEventLoop.start_tls, as_asyncios)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)
