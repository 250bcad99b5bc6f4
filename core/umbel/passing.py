"""Descriptors and whole handles, handed to another process along a stream."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel.deadline import FOREVER
from umbel.errors import (
    BadHandleError,
    BusyError,
    EndOfStreamError,
    NotSupportedError,
    system_error,
)
from umbel.fd import close_if_open, require_descriptor
from umbel.handle import bad_handle, claim, open_handles
from umbel.plugins.observers import load_requested
from umbel.plugins.registry import find_transport
from umbel.streams.connection import (
    PIECE,
    Connection,
    begin_passing,
    find_connection,
)
from umbel.streams.listener import (
    AcceptUse,
    ListenerHandle,
    Listening,
    open_listener,
    open_stream,
)
from umbel.streams.receiving import DEFAULT_SIZE, refuse_size
from umbel.streams.stream import StreamHandle
from umbel.streams.uses import InboundUse, send_by
from umbel.transport import (
    AdoptContext,
    Listener,
    Stream,
    Transfer,
)
from umbel.users import same_user
from umbel.values.address import Address
from umbel.values.iolist import check_count, outbound_view
from umbel.values.peer import PeerIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: What Linux takes in one message (SCM_MAX_FD).
MOST_DESCRIPTORS: Final = 253
#: Bytes that tell how long the description of a handle that travels is.
HEADER_SIZE: Final = 4
LARGEST_HEADER: Final = 1 << 16


def send_with_fds(
    handle: StreamHandle, data: Buffer, fds: Sequence[int], deadline: int = FOREVER
) -> None:
    """Send *data* with descriptors that travel at its first byte.

    Args:
        handle: a local stream.
        data: at least one byte; as in `bsend`.
        fds: open descriptors, 253 at most. Copies are sent, they stay yours.
        deadline: see `umbel.deadline`.

    Raises:
        OSError: EINVAL, *data* is empty, or there are too many descriptors; EBADF, one
            is not open; EPERM, the peer takes none; ETOOMANYREFS, too many are on
            their way. Nothing was sent then.
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, the stream can't pass descriptors.
        BusyError: EBUSY, another coroutine is sending on it.
        EndOfStreamError: EPIPE, we have ended our direction.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier send failed.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise.

    Source:
        unix(7), SCM_RIGHTS; libdill's ipc_sendfd for several.
    """
    me = checkpoint()
    connection, passing = begin_passing(handle)
    view = outbound_view(data)
    if not view.nbytes:
        message = "descriptors travel with data: send one byte or more"
        raise system_error(errno.EINVAL, message)
    if len(fds) > MOST_DESCRIPTORS:
        message = f"{len(fds)} descriptors at once: the kernel takes {MOST_DESCRIPTORS}"
        raise system_error(errno.EINVAL, message)
    for fd in fds:  # EBADF before anything has begun
        require_descriptor(fd)
        os.fstat(fd)

    def send(whole: memoryview, until: int) -> None:
        passing.send(whole, fds, until)

    send_by(me, connection, send, view, deadline)
    connection.bytes_out += view.nbytes


def receive_with_fds(
    handle: StreamHandle,
    max_bytes: int = DEFAULT_SIZE,
    max_fds: int = MOST_DESCRIPTORS,
    deadline: int = FOREVER,
) -> tuple[bytes, list[int]]:
    """Receive what there is, with the descriptors that travel at its first byte.

    Data with descriptors is never joined to what comes behind it. Plain bytes in front
    of it may be: to keep them apart, ask for just those first, as by `brecv`.

    Args:
        handle: a local stream.
        max_bytes: 1 or more.
        max_fds: 0 or more.
        deadline: see `umbel.deadline`.

    Returns:
        1 to *max_bytes* bytes and the descriptors, which are yours to close and
        close-on-exec; b"" and none at the end of the stream.

    Raises:
        OSError: EINVAL, a size is out of range; EMSGSIZE, more than *max_fds* came: all
            are closed; EMFILE, this process had no room for all of them: likewise. This
            direction is broken then.
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, the stream can't pass descriptors.
        BusyError: EBUSY, another coroutine is receiving from it.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier call failed.
        DeadlineError: ETIMEDOUT. Nothing is lost: call again.
        Canceled: ECANCELED. Nothing is lost.

    Source:
        unix(7), SCM_RIGHTS; libdill's ipc_recvfd for several.
    """
    me = checkpoint()
    connection, passing = begin_passing(handle)
    refuse_size(max_bytes)
    max_bytes = min(max_bytes, PIECE)
    max_fds = min(check_count(max_fds, "max_fds"), MOST_DESCRIPTORS)
    if connection.inbound_error is EndOfStreamError:
        return b"", []
    with InboundUse(me, connection, is_patient=True) as inbound:
        data, descriptors = passing.receive(max_bytes, max_fds, deadline)
        inbound.moved += len(data)
        if not data:
            connection.note_end()
        return data, descriptors


def send_handle(
    handle: StreamHandle,
    moved: StreamHandle | ListenerHandle,
    deadline: int = FOREVER,
) -> None:
    """Hand an open stream or listener to the process at the other end of a stream.

    The receiver goes on where we stopped: bytes that nobody has read yet, ended
    directions and a listener's queue and file go with it.

    Args:
        handle: a local stream, on which it travels.
        moved: what travels; a stream that is not in use or broken, of ipc or mem or
            another transport whose streams are `Transfer`; or a listener that nobody
            accepts from, such as one of ipc. It is closed here on success, without
            telling its peer.
        deadline: see `umbel.deadline`.

    Raises:
        BadHandleError: EBADF, one of the two is not open.
        NotSupportedError: ENOTSUP, one of the two can't do that, as those of tcp.
        BusyError: EBUSY, a coroutine is using one of them.
        EndOfStreamError: EPIPE, we have ended our direction of *handle*.
        BrokenStreamError: ECONNRESET, *handle* or *moved* is broken.
        OSError: EMSGSIZE, its address and state are too long. Nothing was sent then.
        DeadlineError: ETIMEDOUT. *handle* is broken from now on; *moved* is not.
        Canceled: ECANCELED. Likewise.

    Source:
        own; unix(7), SCM_RIGHTS.
    """
    resource = open_handles.get(moved)
    if resource is None:
        raise bad_handle(moved)
    transfer = resource.query(Transfer)
    if transfer is None or not isinstance(resource, (Connection, Listening)):
        message = f"{resource.describe()} can't be handed to another process"
        raise NotSupportedError(message)
    with _held(current_hub().current, resource):
        text = _describe(resource, transfer)
        size = len(text).to_bytes(HEADER_SIZE, "big")
        send_with_fds(handle, size + text, [transfer.fd], deadline)
        claim(resource.number)  # hown may have given it a new one
    transfer.release()
    resource.abort()


@contextmanager
def _held(me: Coroutine, resource: Connection | Listening) -> Iterator[None]:
    """Use all of what moves, so that it stays as it is described, and open."""
    if isinstance(resource, Listening):
        with AcceptUse(me, resource):
            yield
        return
    if resource.sender is not None or resource.receiver is not None:
        raise BusyError
    resource.sender = resource.receiver = me
    try:
        if resource.outbound_error is BadHandleError:
            raise BadHandleError
        yield
    finally:
        if resource.outbound_error is BadHandleError:
            resource.leave(me)
        else:
            resource.sender = resource.receiver = None


def _describe(resource: Connection | Listening, transfer: Transfer) -> bytes:
    header = {**_header_of(resource), "state": dict(transfer.state)}
    text = json.dumps(header).encode()
    if len(text) > LARGEST_HEADER:
        # The receiver would refuse it, and it would be closed here.
        message = (
            f"{len(text)} bytes to describe what moves: {LARGEST_HEADER} at most. Its "
            "address, state, or what was received ahead is too long"
        )
        raise system_error(errno.EMSGSIZE, message)
    return text


def _header_of(resource: Connection | Listening) -> dict[str, object]:
    if isinstance(resource, Listening):
        if resource.kept:
            raise BusyError  # accepted for a task that was canceled just then
        return {"address": str(resource.listener.address), "is_listener": True}
    resource.require_whole()
    return {
        "address": str(resource.address),
        "is_listener": False,
        "is_done": resource.outbound_error is EndOfStreamError,
        "has_ended": resource.inbound_error is EndOfStreamError,
        "kept": resource.kept.hex(),
    }


def receive_handle(
    handle: StreamHandle, deadline: int = FOREVER
) -> StreamHandle | ListenerHandle:
    """Receive what the process at the other end sends by `send_handle`.

    Only receive from a process that you trust: what it sends names one of your
    transports, and a path. A socket file is removed with the listener only if a process
    of our own user has made this connection, and if it is still that file.

    Args:
        handle: a local stream.
        deadline: see `umbel.deadline`.

    Returns:
        the stream or listener, in the state that it had there.

    Raises:
        OSError: EPROTO, something else came; EMSGSIZE, several descriptors: they are
            closed; EMFILE, no descriptor is left. This direction is broken then.
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, *handle* can't pass descriptors, or the transport
            of what came is blocked here, or can't adopt.
        UnknownTransportError: EPROTONOSUPPORT, that transport is not installed.
        BusyError: EBUSY, another coroutine is receiving from it.
        EndOfStreamError: EPIPE, the peer has ended its direction.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier call failed.
        DeadlineError: ETIMEDOUT. This direction is broken from now on, unless nothing
            had come: then call again.
        Canceled: ECANCELED. Likewise.

    Source:
        own; unix(7), SCM_RIGHTS.
    """
    me = checkpoint()
    connection, passing = begin_passing(handle)
    descriptors: Sequence[int] = ()
    try:
        with InboundUse(me, connection, is_patient=True) as inbound:
            data, descriptors = passing.receive(HEADER_SIZE, 1, deadline)
            inbound.require(len(data), deadline)
            if len(descriptors) != 1:
                raise _unexpected(f"{data!r} with {len(descriptors)} descriptors")
            data = _fill_up(inbound, data, HEADER_SIZE, deadline)
            size = int.from_bytes(data, "big")
            if not 0 < size <= LARGEST_HEADER:
                raise _unexpected(f"{data!r} with a descriptor")
            header = _read_header(_fill_up(inbound, b"", size, deadline))
        # It has come as a whole: what is wrong with it is not the stream's fault.
        peer = connection.query(PeerIdentity)
        return _adopt(header, descriptors, peer is not None and same_user(peer))
    finally:
        for descriptor in descriptors:
            close_if_open(descriptor)


def _fill_up(inbound: InboundUse, data: bytes, count: int, deadline: int) -> bytes:
    while len(data) < count:
        more = inbound.connection.receive_some(count - len(data), deadline)
        inbound.require(len(more), deadline)
        data += more
    return data


def _unexpected(what: str) -> OSError:
    message = f"what came was not sent by send_handle: {what}"
    return system_error(errno.EPROTO, message)


class _Header(NamedTuple):
    address: Address
    is_listener: bool
    is_done: bool
    has_ended: bool
    kept: bytes
    state: dict[str, object]


def _read_header(text: bytes) -> _Header:
    try:
        found = json.loads(text)
        return _Header(
            Address.parse(found["address"]),
            bool(found["is_listener"]),
            bool(found.get("is_done")),
            bool(found.get("has_ended")),
            bytes.fromhex(found.get("kept", "")),
            dict(found["state"]),
        )
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise _unexpected(repr(error)) from error


def _adopt(
    header: _Header, descriptors: list[int], is_trusted: bool
) -> StreamHandle | ListenerHandle:
    load_requested()
    transport = find_transport(header.address.scheme)
    context = AdoptContext(
        header.address, descriptors[0], header.is_listener, header.state, is_trusted
    )
    endpoint = transport.adopt(context)
    descriptors.clear()  # it is the endpoint's now
    if header.is_listener:
        return open_listener(cast("Listener", endpoint), transport)
    stream = open_stream(
        cast("Stream", endpoint), header.address, transport, StreamHandle
    )
    connection = find_connection(stream)
    if header.is_done:
        connection.outbound_error = EndOfStreamError
    if header.has_ended:
        connection.inbound_error = EndOfStreamError
    if header.kept:
        connection.keep(header.kept)
    return stream
