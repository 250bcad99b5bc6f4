"""The data path over a stream socket, for transports that have one.

Every call is tried first, with MSG_DONTWAIT, so that the descriptor's own blocking
mode, which other processes may share, is never touched. After EAGAIN, or a short
transfer, a call waits for the next edge: a short transfer means that the kernel has no
more to give, or no more room. There is one exception: a byte that carries descriptors
ends a read early, with data behind it and no further edge to come. So where descriptors
may come, reads use recvmsg: its MSG_CTRUNC flag reports this case, and the kernel then
closes descriptors that nobody asked for.

Sending is in `outbound`, receiving in `inbound`, and what comes along with data in
`rights`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import termios
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from umbel.errors import NO_DESCRIPTOR
from umbel.fd import Readiness
from umbel.sockets.rights import CREDENTIALS, RightsSocket
from umbel.sockets.unread import INT_SIZE, ZERO, wait_until_read
from umbel.transport import (
    DescriptorPassing,
    Fileno,
    StreamAttempts,
    Transfer,
    UnreadBytes,
)
from umbel.values.iolist import FIRST_SIZE
from umbel.values.peer import PeerIdentity

T = TypeVar("T")

UNIX: Final = int(socket.AF_UNIX)
STREAM: Final = int(socket.SOCK_STREAM)

#: What a stream's send buffer grows to once a send did not fit: one stream in bulk
#: is then 2-3 times as fast as with the kernel's 208 KiB, and others pay nothing.
SEND_BUFFER: Final = 1 << 20

#: Linux, as Python does not name it yet (asm-generic/socket.h).
SO_PEERPIDFD: Final = 77


class SocketStream(RightsSocket):
    """A `Stream` over a connected stream socket, which it owns.

    Core calls neither `send` nor `receive_into` where it can try by itself, by
    `StreamAttempts`. A subclass that overrides one of them is asked each time: it has
    no `StreamAttempts`, `DescriptorPassing` or `Fileno`, by which bytes would pass by,
    unless its own `query` gives them.

    Args:
        sock: of any family, connected. Its blocking mode stays as it is, and a timeout
            that Python keeps beside it is taken away.
        send_buffer: bytes that the send buffer grows to once a send did not fit; 0: it
            stays as it is.
        takes_descriptors: false if the kernel refuses those that the peer sends: reads
            need not look for them then.
    """

    __slots__ = ("__weakref__", "_pidfd")

    #: Nothing is overridden that core would bypass.
    _may_bypass: ClassVar[bool] = True
    #: Nor is `try_receive`.
    _may_receive_plainly: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._may_bypass = (
            cls.send is SocketStream.send
            and cls.receive_into is SocketStream.receive_into
        )
        cls._may_receive_plainly = cls.try_receive is SocketStream.try_receive

    def __init__(
        self,
        sock: socket.SocketType,
        send_buffer: int = SEND_BUFFER,
        *,
        takes_descriptors: bool = True,
    ) -> None:
        self._socket = sock
        if sock.gettimeout():
            # Or Python itself would wait before each call; the mode stays as it is.
            is_blocking = os.get_blocking(sock.fileno())
            sock.settimeout(None)
            os.set_blocking(sock.fileno(), is_blocking)
        self._readiness = Readiness(sock.fileno())
        self._is_local = sock.family == UNIX
        self._takes_descriptors = takes_descriptors and self._is_local
        self._send_buffer = send_buffer
        self._size = FIRST_SIZE
        self._filled = 0
        self._filled_at_most = 1
        self._is_reset = False
        self._pidfd = -1

    # The end.

    def abort(self) -> None:
        """As `Stream.abort`."""
        self._readiness.forget()
        try:
            self._socket.close()
        except OSError:
            pass  # ECONNRESET, which close reports, and has closed all the same
        if self._pidfd >= 0:
            self._close_pidfd()

    def names(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Give what getsockname and getpeername tell.

        Raises:
            BrokenStreamError: ECONNRESET, the peer is gone.
        """
        try:
            return self._socket.getsockname(), self._socket.getpeername()
        except OSError as error:
            raise self._explain(error) from None

    # What it can do, and what it knows.

    def query(self, kind: type[T]) -> T | None:
        """As `Stream.query`."""
        if not self._may_bypass and kind in _BYPASSES:
            return None
        make = _CAPABILITIES.get(kind)
        found = make(self) if make is not None else None
        return found if isinstance(found, kind) else None

    def _attempts(self) -> StreamAttempts:
        receive = self.try_receive
        if not self._takes_descriptors and self._may_receive_plainly:
            receive = self._try_receive_plainly
        return StreamAttempts(receive, self.try_send, self._readiness)

    def _fileno(self) -> Fileno:
        return Fileno(self._socket.fileno())

    def _peer_identity(self) -> PeerIdentity | None:
        if not self._is_local or not hasattr(socket, "SO_PEERCRED"):
            return None
        raw = self._socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size
        )
        pid, uid, gid = CREDENTIALS.unpack(raw)
        return PeerIdentity(pid, uid, gid, self._open_pidfd)

    def _open_pidfd(self) -> int:
        # The kernel makes a descriptor at each call: keep the first.
        if self._pidfd >= 0:
            return self._pidfd
        try:
            made = self._socket.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                raise
            return -1  # before Linux 6.5, or the process is gone
        if self._pidfd < 0:
            self._pidfd = made
        else:
            os.close(made)  # another thread was first
        if self._socket.fileno() < 0:
            self._close_pidfd()  # another thread has closed the stream meanwhile
        return self._pidfd

    def _close_pidfd(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1  # by one thread only, as no call is in it
        if pidfd >= 0:
            os.close(pidfd)

    def _transfer(self) -> Transfer | None:
        if not self._is_local:
            return None
        self._require_no_reset()  # who has it then would not know
        return Transfer(self._socket.fileno(), {}, lambda: None)

    def _descriptor_passing(self) -> DescriptorPassing | None:
        if not self._is_local:
            return None
        return DescriptorPassing(self.send_descriptors, self.receive_descriptors)

    def _unread_bytes(self) -> UnreadBytes | None:
        # Only a local socket's queue holds just what the peer has not read.
        if not self._is_local:
            return None
        return UnreadBytes(self._is_all_read, self._wait_until_read)

    def _is_all_read(self) -> bool:
        # As `ask`, in one call: each orderly close does.
        answer = bytearray(INT_SIZE)
        fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, answer)
        if answer != ZERO:
            return False
        self._require_no_error()
        return True

    def _wait_until_read(self, deadline: int) -> None:
        wait_until_read(self._socket, self._readiness, deadline)
        self._require_no_error()

    def _require_no_error(self) -> None:
        # A peer that goes without reading empties the queue too, but in error.
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise self._explain(OSError(error, "")) from None
        self._require_no_reset()


#: What every `SocketStream` over a local socket can do, for the transport's traits.
LOCAL_CAPABILITIES: Final[frozenset[type]] = frozenset(
    {Fileno, PeerIdentity, DescriptorPassing, Transfer, UnreadBytes}
)

#: Bytes can move by these without `send` and `receive_into`.
_BYPASSES: Final[frozenset[type]] = frozenset(
    {StreamAttempts, DescriptorPassing, Fileno}
)

_CAPABILITIES: Final[dict[type, Callable[[SocketStream], object]]] = {
    StreamAttempts: SocketStream._attempts,
    Fileno: SocketStream._fileno,
    PeerIdentity: SocketStream._peer_identity,
    DescriptorPassing: SocketStream._descriptor_passing,
    Transfer: SocketStream._transfer,
    UnreadBytes: SocketStream._unread_bytes,
}
