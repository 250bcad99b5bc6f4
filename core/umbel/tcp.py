"""libdill's tcp_* calls: the generic verbs on the scheme `tcp`, by `IpAddress`."""

from __future__ import annotations

from typing import Final

from umbel.adoption import adopt_listener, adopt_stream, require_handle_of
from umbel.deadline import FOREVER
from umbel.errors import BrokenStreamError
from umbel.handle import close, hquery, open_handles
from umbel.ipaddr import IpAddress
from umbel.report import CloseReport
from umbel.streams.listener import ListenerHandle, Listening, accept
from umbel.streams.sending import done
from umbel.streams.stream import StreamHandle
from umbel.transport import Names
from umbel.values.address import Address, split_host
from umbel.verbs import BACKLOG, connect, listen

SCHEME: Final = "tcp"


def tcp_listen(address: IpAddress, backlog: int = BACKLOG) -> ListenerHandle:
    """Listen at an address of this machine; as `listen`.

    Args:
        address: of `ipaddr_local`. With port 0 the system chooses one, which
            `tcp_address` tells.
        backlog: how many connections may wait to be accepted.

    Returns:
        the listener.

    Raises:
        OSError: EADDRINUSE, the port is taken; EADDRNOTAVAIL, EACCES: it can't be used.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill tcp_listen(3).
    """
    return listen(Address(SCHEME, str(address)), backlog)


def tcp_accept(
    handle: ListenerHandle, deadline: int = FOREVER
) -> tuple[StreamHandle, IpAddress]:
    """Accept the next stream, and tell where its peer is; as `accept`.

    Args:
        handle: a TCP listener.
        deadline: see `umbel.deadline`.

    Returns:
        the stream, and the peer's address.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a TCP listener.
        BusyError: EBUSY, another coroutine is accepting from it.
        DeadlineError: ETIMEDOUT, nobody connected in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: EMFILE, ENFILE: no descriptor is left. The listener stays open.

    Source:
        libdill tcp_accept(3). Differs: the address is returned, not filled in; a peer
        that broke off before it was accepted has none, and is skipped.
    """
    _require_tcp(handle)
    while True:
        stream = accept(handle, deadline)
        try:
            return stream, _read(hquery(stream, Names).remote)
        except BrokenStreamError:
            stream.abort()
        except BaseException:
            stream.abort()
            raise


def tcp_connect(address: IpAddress, deadline: int = FOREVER) -> StreamHandle:
    """Connect to a listener; as `connect`.

    Args:
        address: of `ipaddr_remote`.
        deadline: see `umbel.deadline`.

    Returns:
        the stream.

    Raises:
        OSError: ECONNREFUSED, nobody listens there; ENETUNREACH, EHOSTUNREACH.
        DeadlineError: ETIMEDOUT, it did not answer in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill tcp_connect(3).
    """
    return connect(Address(SCHEME, str(address)), deadline)


def tcp_address(handle: int) -> IpAddress:
    """Tell the address of our own end.

    Args:
        handle: a TCP stream or listener, also one of `umbel.aio`.

    Returns:
        the address, with the port that the system chose.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a TCP socket.
        BrokenStreamError: ECONNRESET, the peer is gone.

    Source:
        own; libdill's tcp_listen fills it in.
    """
    _require_tcp(handle)
    found = open_handles.get(handle)
    if isinstance(found, Listening):
        return _read(found.listener.address)
    return _read(hquery(handle, Names).local)


def tcp_fromfd(fd: int) -> StreamHandle:
    """Take over a connected TCP socket.

    Args:
        fd: its descriptor; umbel's on success, still yours on an error.

    Returns:
        the stream.

    Raises:
        OSError: EINVAL, it is something else; EBADF, it is not open.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill tcp_fromfd(3).
    """
    return adopt_stream(fd, SCHEME)


def tcp_listener_fromfd(fd: int) -> ListenerHandle:
    """Take over a listening TCP socket.

    Args:
        fd: its descriptor; umbel's on success, still yours on an error.

    Returns:
        the listener.

    Raises:
        OSError: EINVAL, it is something else; EBADF, it is not open.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill tcp_listener_fromfd(3).
    """
    return adopt_listener(fd, SCHEME)


def tcp_done(handle: StreamHandle, deadline: int = FOREVER) -> None:
    """End our direction; as `done`.

    Args:
        handle: a TCP stream.
        deadline: see `umbel.deadline`; never needed here.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a TCP stream.
        BusyError: EBUSY, a coroutine is sending on it.
        EndOfStreamError: EPIPE, we have ended our direction before.
        BrokenStreamError: ECONNRESET, an earlier send failed, or the peer is gone.

    Source:
        libdill tcp_done(3).
    """
    _require_tcp(handle)
    done(handle, deadline)


def tcp_close(
    handle: StreamHandle | ListenerHandle, deadline: int = FOREVER
) -> CloseReport:
    """Close a TCP socket in good order; as `close`.

    Args:
        handle: a TCP stream or listener. Closed on return, as by `ipc_close`.
        deadline: see `umbel.deadline`.

    Returns:
        what is known of the peer.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a TCP socket.
        BrokenStreamError: ECONNRESET, an earlier send or receive failed on it, or
            the peer is gone.
        DeadlineError: ETIMEDOUT, the peer did not close in time.
        Canceled: ECANCELED, the calling coroutine was canceled.

    Source:
        libdill tcp_close(3). Differs: as `ipc_close`.
    """
    _require_tcp(handle)
    return close(handle, deadline)


def _require_tcp(handle: int) -> None:
    require_handle_of(handle, (SCHEME,), "TCP socket")


def _read(address: Address) -> IpAddress:
    found = split_host(address.location)
    assert found is not None  # the transport has made it
    return IpAddress(found[0], int(found[1]))
