"""libdill's ipc_* calls, and their *_mem twins.

They are the generic verbs on the schemes `ipc` and `mem`, by libdill's names.
"""

from __future__ import annotations

import errno
import os
from types import NoneType
from typing import Final, TypeAlias

from umbel._kernel.current import checkpoint
from umbel.adoption import adopt_listener, adopt_stream, require_handle_of
from umbel.deadline import FOREVER
from umbel.errors import system_error
from umbel.handle import close
from umbel.report import CloseReport
from umbel.streams.connection import begin_passing
from umbel.streams.listener import ListenerHandle, accept
from umbel.streams.sending import done
from umbel.streams.stream import StreamHandle
from umbel.streams.uses import InboundUse
from umbel.values.address import Address, path_address
from umbel.values.memory import Memory
from umbel.verbs import BACKLOG, connect, listen, pair

#: What names a file.
AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: Schemes whose endpoints are local sockets: the handles that ipc_* calls take.
LOCAL: Final = ("ipc", "mem")
#: The byte that carries a descriptor, as libdill writes it.
CARRIER: Final = b"\xcc"


def ipc_listen(path: AnyPath, backlog: int = BACKLOG) -> ListenerHandle:
    """Listen at a path; as `listen`.

    Args:
        path: of a socket file, made by this call, or "@name" for an abstract name.
        backlog: how many connections may wait to be accepted.

    Returns:
        the listener.

    Raises:
        OSError: EADDRINUSE, something is there that is not a stale socket; ENOENT,
            EACCES, ENAMETOOLONG, EINVAL: the path can't be used.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_listen(3). Differs: the file is removed when the listener is
        closed, and a stale one of a dead process is replaced.
    """
    return listen(path_address(path), backlog)


def ipc_accept(handle: ListenerHandle, deadline: int = FOREVER) -> StreamHandle:
    """Accept the next stream; as `accept`, which lists all errors.

    Args:
        handle: a local listener.
        deadline: see `umbel.deadline`.

    Returns:
        the stream.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not an IPC listener.
        DeadlineError: ETIMEDOUT, nobody connected in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_accept(3).
    """
    _require_local(handle)
    return accept(handle, deadline)


def ipc_connect(path: AnyPath, deadline: int = FOREVER) -> StreamHandle:
    """Connect to the listener at a path; as `connect`.

    Args:
        path: of its socket file, or "@name".
        deadline: see `umbel.deadline`.

    Returns:
        the stream.

    Raises:
        OSError: ENOENT, nothing is there; ECONNREFUSED, nobody listens there; EACCES,
            we may not; EPROTOTYPE, it is a socket of another kind; ENOTDIR, ELOOP or
            ENAMETOOLONG, as of any path; EINVAL, it is empty.
        DeadlineError: ETIMEDOUT, the listener's backlog was full all the time.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_connect(3). Differs: waits for a full backlog, where libdill
        fails at once.
    """
    return connect(path_address(path), deadline)


def ipc_pair() -> tuple[StreamHandle, StreamHandle]:
    """Make two streams that are each other's peers.

    Returns:
        both.

    Raises:
        OSError: EMFILE, no descriptor is left.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_pair(3).
    """
    return pair("ipc")


def ipc_fromfd(fd: int) -> StreamHandle:
    """Take over a connected local stream socket.

    Args:
        fd: its descriptor; umbel's on success, still yours on an error.

    Returns:
        the stream.

    Raises:
        OSError: EINVAL, it is something else; EBADF, it is not open.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_fromfd(3). Differs: its blocking mode is left as it was.
    """
    return adopt_stream(fd, "ipc")


def ipc_listener_fromfd(fd: int) -> ListenerHandle:
    """Take over a listening local stream socket. Its file is never removed by us.

    Its `address` is what the kernel knows: a relative path is of the folder that was
    current when it was bound. Of a path of more than 107 bytes the kernel knows nothing
    that is of use to others: then the address has none.

    Args:
        fd: its descriptor; umbel's on success, still yours on an error.

    Returns:
        the listener.

    Raises:
        OSError: EINVAL, it is something else; EBADF, it is not open.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_listener_fromfd(3).
    """
    return adopt_listener(fd, "ipc")


def ipc_done(handle: StreamHandle, deadline: int = FOREVER) -> None:
    """End our direction; as `done`.

    Args:
        handle: a local stream.
        deadline: see `umbel.deadline`; never needed here.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not an IPC stream.
        BusyError: EBUSY, a coroutine is sending on it.
        EndOfStreamError: EPIPE, we have ended our direction before.
        BrokenStreamError: ECONNRESET, an earlier send failed.

    Source:
        libdill ipc_done(3).
    """
    _require_local(handle)
    done(handle, deadline)


def ipc_close(
    handle: StreamHandle | ListenerHandle, deadline: int = FOREVER
) -> CloseReport:
    """Close an IPC socket once the peer is known to have closed too; as `close`.

    Sends the end of the stream, then discards inbound bytes until the peer's own,
    so that the peer has either read all our data or chosen not to. A listener has
    no peer: closing one is the same as `hclose`.

    Args:
        handle: a local stream or listener. Owned by this call: unless BadHandleError or
            NotSupportedError is raised, it is closed on return, even if another error
            is raised.
        deadline: see `umbel.deadline`.

    Returns:
        what is known of the peer.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not an IPC socket.
        BrokenStreamError: ECONNRESET, an earlier send or receive failed on it, or
            the peer is gone with our bytes unread.
        DeadlineError: ETIMEDOUT, the peer did not close in time.
        Canceled: ECANCELED, the calling coroutine was canceled.

    Source:
        libdill ipc_close(3). Differs: a call that is blocked on the handle gets EBADF,
        where libdill aborts; and libdill frees the socket but keeps its handle number,
        so that a second call reads freed memory: here it is EBADF.
    """
    _require_local(handle)
    return close(handle, deadline)


def _require_local(handle: int) -> None:
    require_handle_of(handle, LOCAL, "IPC socket")


def ipc_sendfd(handle: StreamHandle, fd: int, deadline: int = FOREVER) -> None:
    """Send a descriptor, at its place in the data.

    Args:
        handle: a local stream.
        fd: any open descriptor; a copy is sent, it stays yours.
        deadline: see `umbel.deadline`.

    Raises:
        BadHandleError: EBADF, *handle* is not open. *fd* not open: a plain OSError.
        NotSupportedError: ENOTSUP, the stream can't pass descriptors.
        OSError: EPERM, the peer takes none; ETOOMANYREFS, too many are on their way.
            Nothing was sent then.
        BusyError: EBUSY, another coroutine is sending on it.
        EndOfStreamError: EPIPE, we have ended our direction.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier send failed.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise.

    Source:
        libdill ipc_sendfd(3). Differs: a peer that is gone is an error, not a SIGPIPE.
    """
    from umbel.passing import send_with_fds

    send_with_fds(handle, CARRIER, [fd], deadline)


def ipc_recvfd(handle: StreamHandle, deadline: int = FOREVER) -> int:
    """Receive a descriptor that the peer has sent at this place in the data.

    Args:
        handle: a local stream.
        deadline: see `umbel.deadline`.

    Returns:
        the descriptor, close-on-exec. It is yours: close it.

    Raises:
        OSError: EPROTO, a byte without a descriptor came; EMSGSIZE, several
            descriptors came, and are closed. This direction is broken then.
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, the stream can't pass descriptors.
        BusyError: EBUSY, another coroutine is receiving from it.
        EndOfStreamError: EPIPE, the peer has ended its direction.
        BrokenStreamError: ECONNRESET, the peer is gone, or an earlier brecv failed.
        DeadlineError: ETIMEDOUT. This direction is broken from now on.
        Canceled: ECANCELED. Likewise.

    Source:
        libdill ipc_recvfd(3). Differs: close-on-exec, and nothing is leaked.
    """
    me = checkpoint()
    connection, passing = begin_passing(handle)
    with InboundUse(me, connection) as inbound:
        data, received = passing.receive(1, 1, deadline)
        inbound.require(len(data), deadline)
        if not received:
            message = f"a byte ({data!r}) without a descriptor came where one was due"
            raise system_error(errno.EPROTO, message)
        return received[0]


def _require_memory(mem: object) -> None:
    if not isinstance(mem, (Memory, NoneType)):
        message = f"{mem!r} is no Memory: the deadline comes behind it, as deadline="
        raise TypeError(message)


def _in(mem: Memory | None) -> dict[str, object]:
    _require_memory(mem)
    return {} if mem is None else {"memory": mem}


def ipc_listen_mem(
    name: str, backlog: int = BACKLOG, mem: Memory | None = None
) -> ListenerHandle:
    """Listen under a name in *mem* (None: the shared one); else as `ipc_listen`."""
    return listen(Address("mem", name), backlog, **_in(mem))


def ipc_accept_mem(
    handle: ListenerHandle, mem: Memory | None = None, deadline: int = FOREVER
) -> StreamHandle:
    """Accept the next stream; as `ipc_accept`. It lives where its listener does."""
    _require_memory(mem)  # no more: it has no say
    return ipc_accept(handle, deadline)


def ipc_connect_mem(
    name: str, mem: Memory | None = None, deadline: int = FOREVER
) -> StreamHandle:
    """Connect to the listener of that name in *mem*; else as `ipc_connect`."""
    return connect(Address("mem", name), deadline, **_in(mem))


def ipc_pair_mem(mem: Memory | None = None) -> tuple[StreamHandle, StreamHandle]:
    """Make two streams in *mem* that are each other's peers; as `ipc_pair`."""
    return pair("mem", **_in(mem))


def ipc_fromfd_mem(fd: int, mem: Memory | None = None) -> StreamHandle:
    """Take over a connected local stream socket into *mem*; as `ipc_fromfd`."""
    _require_memory(mem)  # no more: what has a descriptor has no name there
    return adopt_stream(fd, "mem")


def ipc_listener_fromfd_mem(fd: int, mem: Memory | None = None) -> ListenerHandle:
    """Take over a listening local socket into *mem*; as `ipc_listener_fromfd`."""
    _require_memory(mem)
    return adopt_listener(fd, "mem")
