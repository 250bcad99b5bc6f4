"""libdill's IPC and TCP calls, awaitable; contracts as of their blocking twins.

Those that never wait (`ipc_listen`, `ipc_pair`, `ipc_fromfd`, …) are plain functions.
"""

from __future__ import annotations

from functools import partial

import umbel.ipc as blocking
import umbel.tcp as blocking_tcp
from umbel.aio.entry import run_blocking, run_undoable
from umbel.aio.handle import as_stream, run_close
from umbel.aio.listener import (
    AnyListener,
    AsyncListenerHandle,
    accept_by,
    as_async,
    as_either,
    as_listener,
    connect_by,
)
from umbel.aio.stream import AnyStream, AsyncStreamHandle
from umbel.deadline import FOREVER
from umbel.handle import lookup, recast
from umbel.ipaddr import IpAddress
from umbel.ipc import AnyPath
from umbel.report import CloseReport
from umbel.streams.listener import Listening
from umbel.values.memory import Memory
from umbel.verbs import BACKLOG


def ipc_listen(path: AnyPath, backlog: int = BACKLOG) -> AsyncListenerHandle:
    """Listen at *path*, as `umbel.ipc_listen`."""
    return as_async(blocking.ipc_listen(path, backlog))


def ipc_pair() -> tuple[AsyncStreamHandle, AsyncStreamHandle]:
    """Make two local streams, as `umbel.ipc_pair`."""
    left, right = blocking.ipc_pair()
    return as_async(left), as_async(right)


def ipc_fromfd(fd: int) -> AsyncStreamHandle:
    """Take over a connected local socket, as `umbel.ipc_fromfd`."""
    return as_async(blocking.ipc_fromfd(fd))


def ipc_listener_fromfd(fd: int) -> AsyncListenerHandle:
    """Take over a listening local socket, as `umbel.ipc_listener_fromfd`."""
    return as_async(blocking.ipc_listener_fromfd(fd))


async def ipc_accept(handle: AnyListener, deadline: int = FOREVER) -> AsyncStreamHandle:
    """Accept the next stream, as `umbel.ipc_accept`."""
    call = partial(blocking.ipc_accept, as_listener(handle), deadline)
    return await accept_by(call, handle)


async def ipc_connect(path: AnyPath, deadline: int = FOREVER) -> AsyncStreamHandle:
    """Connect to the listener at *path*, as `umbel.ipc_connect`."""
    return await connect_by(partial(blocking.ipc_connect, path, deadline))


async def ipc_done(handle: AnyStream, deadline: int = FOREVER) -> None:
    """End our direction, as `umbel.ipc_done`."""
    await run_blocking(blocking.ipc_done, as_stream(handle), deadline)


async def ipc_close(
    handle: AnyStream | AnyListener, deadline: int = FOREVER
) -> CloseReport:
    """Close in good order, as `umbel.ipc_close`. It is closed even if canceled."""
    call = partial(blocking.ipc_close, as_either(handle), deadline)
    return await run_close(call, handle)


async def ipc_sendfd(handle: AnyStream, fd: int, deadline: int = FOREVER) -> None:
    """Send a copy of a descriptor, as `umbel.ipc_sendfd`."""
    await run_blocking(blocking.ipc_sendfd, as_stream(handle), fd, deadline)


async def ipc_recvfd(handle: AnyStream, deadline: int = FOREVER) -> int:
    """Receive a descriptor, which is yours, as `umbel.ipc_recvfd`."""
    return await run_blocking(blocking.ipc_recvfd, as_stream(handle), deadline)


# In the memory of one process.


def ipc_listen_mem(
    name: str, backlog: int = BACKLOG, mem: Memory | None = None
) -> AsyncListenerHandle:
    """Listen under a name in *mem*, as `umbel.ipc_listen_mem`."""
    return as_async(blocking.ipc_listen_mem(name, backlog, mem))


def ipc_pair_mem(
    mem: Memory | None = None,
) -> tuple[AsyncStreamHandle, AsyncStreamHandle]:
    """Make two streams in *mem*, as `umbel.ipc_pair_mem`."""
    left, right = blocking.ipc_pair_mem(mem)
    return as_async(left), as_async(right)


def ipc_fromfd_mem(fd: int, mem: Memory | None = None) -> AsyncStreamHandle:
    """Take over a connected local socket, as `umbel.ipc_fromfd_mem`."""
    return as_async(blocking.ipc_fromfd_mem(fd, mem))


def ipc_listener_fromfd_mem(fd: int, mem: Memory | None = None) -> AsyncListenerHandle:
    """Take over a listening local socket, as `umbel.ipc_listener_fromfd_mem`."""
    return as_async(blocking.ipc_listener_fromfd_mem(fd, mem))


async def ipc_accept_mem(
    handle: AnyListener, mem: Memory | None = None, deadline: int = FOREVER
) -> AsyncStreamHandle:
    """Accept the next stream, as `umbel.ipc_accept_mem`."""
    call = partial(blocking.ipc_accept_mem, as_listener(handle), mem, deadline)
    return await accept_by(call, handle)


async def ipc_connect_mem(
    name: str, mem: Memory | None = None, deadline: int = FOREVER
) -> AsyncStreamHandle:
    """Connect to the listener of that name, as `umbel.ipc_connect_mem`."""
    return await connect_by(partial(blocking.ipc_connect_mem, name, mem, deadline))


# Over TCP.


def tcp_listen(address: IpAddress, backlog: int = BACKLOG) -> AsyncListenerHandle:
    """Listen at *address*, as `umbel.tcp_listen`."""
    return as_async(blocking_tcp.tcp_listen(address, backlog))


def tcp_fromfd(fd: int) -> AsyncStreamHandle:
    """Take over a connected TCP socket, as `umbel.tcp_fromfd`."""
    return as_async(blocking_tcp.tcp_fromfd(fd))


def tcp_listener_fromfd(fd: int) -> AsyncListenerHandle:
    """Take over a listening TCP socket, as `umbel.tcp_listener_fromfd`."""
    return as_async(blocking_tcp.tcp_listener_fromfd(fd))


async def tcp_accept(
    handle: AnyListener, deadline: int = FOREVER
) -> tuple[AsyncStreamHandle, IpAddress]:
    """Accept the next stream, and tell where its peer is, as `umbel.tcp_accept`."""
    listening = lookup(handle, Listening)
    found, address = await run_undoable(
        partial(blocking_tcp.tcp_accept, as_listener(handle), deadline),
        lambda accepted: listening.keep(accepted[0]),
    )
    return recast(found, AsyncStreamHandle), address


async def tcp_connect(address: IpAddress, deadline: int = FOREVER) -> AsyncStreamHandle:
    """Connect to the listener at *address*, as `umbel.tcp_connect`."""
    return await connect_by(partial(blocking_tcp.tcp_connect, address, deadline))


async def tcp_done(handle: AnyStream, deadline: int = FOREVER) -> None:
    """End our direction, as `umbel.tcp_done`."""
    await run_blocking(blocking_tcp.tcp_done, as_stream(handle), deadline)


async def tcp_close(
    handle: AnyStream | AnyListener, deadline: int = FOREVER
) -> CloseReport:
    """Close in good order, as `umbel.tcp_close`. It is closed even if canceled."""
    call = partial(blocking_tcp.tcp_close, as_either(handle), deadline)
    return await run_close(call, handle)
