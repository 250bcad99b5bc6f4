"""A stream as a socket of Python's own."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from umbel.errors import BusyError, NotSupportedError
from umbel.handle import claim
from umbel.streams.connection import Connection, find_connection
from umbel.transport import Fileno

if TYPE_CHECKING:
    from umbel.aio.stream import AnyStream


def as_socket(handle: AnyStream) -> socket.socket:
    """Turn a stream into a socket: its descriptor leaves umbel.

    This works only for a stream whose descriptor is that of a stream socket. For any
    other, use `as_file` or the bridges to asyncio and anyio.

    Args:
        handle: a byte stream that is neither in use nor broken. Taken over: it is
            closed on return, without telling the peer.

    Returns:
        a socket in blocking mode, without a timeout; yours to close. Ended directions
        stay ended, and unread bytes can be received from it.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is no byte stream, or has no stream socket.
        BusyError: EBUSY, another coroutine or task is using it; or a canceled receive
            has left bytes, which must be received first.
        BrokenStreamError: ECONNRESET, a send or receive on it failed before.
        OSError: EMFILE, no descriptor is left; *handle* is as it was.

    Source:
        own; dup(2).
    """
    connection = find_connection(handle)
    _require_idle(connection)
    found = connection.query(Fileno)
    if found is None or not stat.S_ISSOCK(os.fstat(found.fd).st_mode):
        raise _no_socket(connection)
    # A duplicate: what the transport does at the end is to close its own.
    sock = socket.socket(fileno=os.dup(found.fd))
    if sock.type != socket.SOCK_STREAM:  # its packets are not the stream's bytes
        sock.close()
        raise _no_socket(connection)
    sock.setblocking(True)
    claim(handle)
    connection.abort()
    return sock


def _no_socket(connection: Connection) -> NotSupportedError:
    message = (
        f"{connection.describe()} has no stream socket: use umbel.bridges.as_file, "
        "open_connection or as_anyio_stream, which any stream can be"
    )
    return NotSupportedError(message)


def _require_idle(connection: Connection) -> None:
    if connection.sender is not None or connection.receiver is not None:
        raise BusyError
    connection.require_whole()
    connection.require_nothing_kept()
