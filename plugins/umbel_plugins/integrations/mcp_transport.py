"""The Model Context Protocol over umbel: a stream between its clients and servers.

    async def main():                                   # a server
        await aio.serve(aio.listen("ipc:/run/tools.sock"), partial(serve_mcp, server))

    async with Client(mcp_client("ipc:/run/tools.sock")) as client:     # of `mcp`
        await client.call_tool("add", {"a": 1, "b": 2})

Each message is one line of JSON, as over standard input and output. It all works in
asyncio and in trio.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, final

import umbel
from umbel import aio
from umbel.spi import check_seconds, system_error

try:
    import anyio
    from anyio.abc import ObjectReceiveStream
    from anyio.streams.memory import MemoryObjectSendStream
    from mcp.server import MCPServer, Server
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter
    from pydantic import ValidationError

    from umbel.bridges import UmbelAttribute, as_anyio_stream
except ImportError as error:
    message = f"MCP needs mcp ({error}): pip install 'umbel[integrations]'"
    raise ImportError(message) from error

AnyStream: TypeAlias = umbel.StreamHandle | aio.AsyncStreamHandle

#: Seconds that the orderly close may take.
GRACE: Final = 10.0
#: Bytes of one message: a peer that sends more has lost its way.
LIMIT: Final = 16 << 20


@asynccontextmanager
async def mcp_client(
    address: str | umbel.Address,
    deadline: int = umbel.FOREVER,
    *,
    limit: int = LIMIT,
    grace: float = GRACE,
    **options: object,
) -> AsyncIterator[Streams]:
    """Connect to a server, for `mcp.Client(mcp_client(address))`.

    Args:
        address: of the server, such as "ipc:/run/tools.sock".
        deadline: see `umbel.deadline`; for connecting only.
        limit: as of `mcp_streams`.
        grace: as of `mcp_streams`.
        **options: of umbel's transport.

    Raises:
        DeadlineError: ETIMEDOUT, nobody answered in time.
        Canceled: ECANCELED is never raised here, but the loop's own cancellation.
        OSError: as `umbel.connect`.
        ValueError: *grace* is negative.

    Source:
        mcp.client.stdio.stdio_client.
    """
    check_seconds(grace, "grace")  # before there is something to close
    stream = await aio.connect(address, deadline, **options)
    async with mcp_streams(stream, limit=limit, grace=grace) as streams:
        yield streams


async def serve_mcp(server: Server[Any] | MCPServer[Any], handle: AnyStream) -> None:
    """Let *server* talk to one client, until the client ends.

    Args:
        server: of `mcp`; it may serve many at once.
        handle: the client's stream. Taken over.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is no byte stream.

    Source:
        mcp.server.MCPServer.run_stdio_async.
    """
    # It has no public name in mcp yet.
    inner = server._lowlevel_server if isinstance(server, MCPServer) else server
    async with mcp_streams(handle) as (inbound, outbound):
        await inner.run(inbound, outbound, inner.create_initialization_options())


@asynccontextmanager
async def mcp_streams(
    handle: AnyStream, *, limit: int = LIMIT, grace: float = GRACE
) -> AsyncIterator[Streams]:
    """Turn a stream into the two that `mcp` reads from and writes to.

    If the peer goes away, the first of them ends, and writing to the second raises
    anyio's BrokenResourceError. At the end of the block, what was written is sent, and
    the stream is closed in good order; after an error, or if canceled, it is closed
    hard.

    Args:
        handle: a byte stream. Taken over.
        limit: bytes that a message may have; a longer one raises EMSGSIZE when it is
            read.
        grace: seconds that the close may take.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is no byte stream.
        ValueError: *grace* is negative. After each of these it is as it was.

    Source:
        mcp.server.stdio.stdio_server.
    """
    stream = as_anyio_stream(handle, grace=grace)
    ours = stream.extra(UmbelAttribute.handle)
    outbound, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_send_all, ours, outbox)
            async with outbound:
                yield Inbound(ours, limit), outbound
            tasks.cancel_scope.deadline = anyio.current_time() + grace
        await stream.aclose()
    finally:
        _abort(ours)


@final
class Inbound:
    """The messages of a stream, as `mcp` reads them; made by `mcp_streams`."""

    def __init__(self, handle: AnyStream, limit: int) -> None:
        self._handle = handle
        self._limit = limit
        self._buffer = bytearray()
        #: How much of it is known to hold no end of a line.
        self._seen = 0
        self._is_closed = False

    async def receive(self) -> SessionMessage | Exception:
        """Give the next message, or the error of a line that is not a message.

        Raises:
            anyio.EndOfStream: there are no more.
            anyio.ClosedResourceError: it was closed.
            OSError: EMSGSIZE, the message is too long.
        """
        line = await self._next_line()
        try:
            found = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError as error:
            return error
        return SessionMessage(found)

    async def _next_line(self) -> bytes:
        if self._is_closed:
            raise anyio.ClosedResourceError
        while (end := self._buffer.find(b"\n", self._seen)) < 0:
            self._seen = len(self._buffer)
            self._check_size(self._seen)
            self._buffer += await self._receive()
        self._check_size(end)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._seen = 0
        return line

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            message = f"a message of more than {self._limit} bytes"
            raise system_error(errno.EMSGSIZE, message)

    async def _receive(self) -> bytes:
        try:
            data = await aio.receive(self._handle)
        except umbel.BadHandleError as error:
            raise anyio.ClosedResourceError from error
        except ConnectionError as error:
            raise anyio.EndOfStream from error
        if not data:
            raise anyio.EndOfStream  # a part of a message is none
        return data

    async def aclose(self) -> None:
        """Give no more messages; the stream stays open for those to be written."""
        self._is_closed = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


#: As `mcp` takes them.
Streams: TypeAlias = tuple[Inbound, MemoryObjectSendStream[SessionMessage]]


async def _send_all(
    handle: AnyStream, outbox: ObjectReceiveStream[SessionMessage]
) -> None:
    # A task of its own: a writer that is canceled must not leave half a message.
    async with outbox:
        try:
            async for item in outbox:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                await aio.bsend(handle, text.encode() + b"\n")
        except ConnectionError:
            pass  # the peer has gone: who reads is told, and who writes hereafter


def _abort(handle: AnyStream) -> None:
    try:
        umbel.hclose(handle)
    except umbel.BadHandleError:
        pass  # it was closed in good order
