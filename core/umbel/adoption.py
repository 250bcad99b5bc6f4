"""Handles for sockets that something else has opened, and a check of their scheme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from umbel._kernel.current import checkpoint
from umbel.errors import NotSupportedError
from umbel.handle import bad_handle, open_handles
from umbel.plugins.observers import load_requested
from umbel.plugins.registry import find_transport
from umbel.streams.connection import Connection
from umbel.streams.listener import ListenerHandle, Listening, open_listener, open_stream
from umbel.streams.stream import StreamHandle
from umbel.transport import AdoptContext, Listener, Stream
from umbel.values.address import Address


def adopt_stream(fd: int, scheme: str) -> StreamHandle:
    """Take over a connected socket."""
    checkpoint()
    load_requested()
    transport = find_transport(scheme)
    address = Address(scheme, "")
    stream = transport.adopt(AdoptContext(address, fd))
    return open_stream(cast("Stream", stream), address, transport, StreamHandle)


def adopt_listener(fd: int, scheme: str) -> ListenerHandle:
    """Take over a listening socket."""
    checkpoint()
    load_requested()
    transport = find_transport(scheme)
    context = AdoptContext(Address(scheme, ""), fd, is_listener=True)
    listener = cast("Listener", transport.adopt(context))
    return open_listener(listener, transport)


def require_handle_of(handle: int, schemes: Sequence[str], what: str) -> None:
    """Make sure that *handle* is a stream or listener of one of *schemes*.

    Raises:
        BadHandleError: EBADF, it is not open.
        NotSupportedError: ENOTSUP, it is not *what* is wanted.
    """
    found = open_handles.get(handle)
    if found is None:
        raise bad_handle(handle)
    if not isinstance(found, (Connection, Listening)):
        message = f"{found.describe()} is no {what}: it is for {found.verbs}"
        raise NotSupportedError(message)
    if found.transport.scheme not in schemes:
        message = f"{found.describe()} is no {what}: use the generic verbs"
        raise NotSupportedError(message)
