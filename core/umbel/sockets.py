"""The data path over a stream socket, for transports that have one.

Every call is tried first, with MSG_DONTWAIT, so that the descriptor's own blocking
mode, which other processes may share, is never touched. After EAGAIN, or a short
transfer, a call waits for the next edge: a short transfer means that the kernel has no
more to give, or no more room. There is one exception: a byte that carries descriptors
ends a read early, with data behind it and no further edge to come. So reads use
recvmsg: its MSG_CTRUNC flag reports this case, and the kernel then closes descriptors
that nobody asked for.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    add_bytes_done,
    system_error,
)
from umbel.fd import Readiness
from umbel.peer import PeerIdentity
from umbel.transport import (
    DescriptorPassing,
    Fileno,
    StreamAttempts,
    Transfer,
    UnreadBytes,
)
from umbel.unread import INT_SIZE, ask, wait_until_read

T = TypeVar("T")

# Plain ints: an operation on one of Python's flag enums costs as much as a system call.
NOW: Final = int(socket.MSG_DONTWAIT)
#: No SIGPIPE, whatever the program did to its handler.
SEND_NOW: Final = NOW | int(getattr(socket, "MSG_NOSIGNAL", 0))
CLOEXEC: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
TRUNCATED: Final = int(socket.MSG_CTRUNC)

UNIX: Final = int(socket.AF_UNIX)
STREAM: Final = int(socket.SOCK_STREAM)

#: What a stream's send buffer grows to once a send did not fit: one stream in bulk
#: is then 2-3 times as fast as with the kernel's 208 KiB, and others pay nothing.
SEND_BUFFER: Final = 1 << 20

#: What a stream's first read asks for, small enough for Python's own allocator. Each
#: read that is filled makes the next so many times larger, up to what the caller asks
#: for: large buffers for small requests make glibc trim and fault its heap at each.
FIRST_SIZE: Final = 448
GROWTH: Final = 8

#: Linux, as Python does not name it yet (asm-generic/socket.h).
SO_PEERPIDFD: Final = 77
SCM_PIDFD: Final = 4

#: Buffers that one sendmsg takes.
IOV_MAX: Final = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 1024

#: What broke the connection itself, which the kernel tells one call only: the next read
#: finds an end of the stream. ETIMEDOUT is TCP's, if nothing answers any more.
_TOLD_ONCE: Final = (
    errno.ECONNRESET,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)
#: What each call is told, so that it says nothing of how it came about.
_TOLD_AGAIN: Final = (errno.EPIPE, errno.ENOTCONN)
_GONE: Final = (*_TOLD_AGAIN, *_TOLD_ONCE)
_PEER_IS_GONE: Final = (
    "the peer is gone, or closed without reading all that we sent: close the handle "
    "and connect anew"
)

#: Why descriptors are not sent, and neither is what was to go with them.
_REFUSED: Final[dict[int, str]] = {
    errno.EPERM: (
        "the peer takes no descriptors, as with descriptors=False: send data only"
    ),
    errno.ETOOMANYREFS: (
        "too many descriptors of this user are on their way: let them be received, or "
        "raise ulimit -n"
    ),
}
_ZERO: Final = bytes(INT_SIZE)
_CREDENTIALS: Final = struct.Struct("3i")
#: Bytes of SCM_CREDENTIALS and SCM_PIDFD.
OTHER_CONTROL: Final = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(
    INT_SIZE
)


class SocketStream:
    """A `Stream` over a connected stream socket, which it owns.

    Args:
        sock: of any family, connected. Its blocking mode stays as it is.
        send_buffer: bytes that the send buffer grows to once a send did not fit; 0: it
            stays as it is.
        takes_descriptors: false if the kernel refuses those that the peer sends: reads
            need not look for them then.
    """

    __slots__ = (
        "__weakref__",
        "_filled",
        "_filled_at_most",
        "_is_local",
        "_is_reset",
        "_pidfd",
        "_readiness",
        "_send_buffer",
        "_size",
        "_socket",
        "_takes_descriptors",
    )

    def __init__(
        self,
        sock: socket.SocketType,
        send_buffer: int = SEND_BUFFER,
        *,
        takes_descriptors: bool = True,
    ) -> None:
        self._socket = sock
        if socket.getdefaulttimeout() is not None:
            # Or Python itself would wait before each call; the mode stays as it is.
            is_blocking = os.get_blocking(sock.fileno())
            sock.settimeout(None)
            os.set_blocking(sock.fileno(), is_blocking)
        self._readiness = Readiness(sock.fileno())
        self._is_local = sock.family == UNIX
        self._takes_descriptors = takes_descriptors and self._is_local
        self._send_buffer = send_buffer
        self._size = FIRST_SIZE
        #: Reads of a local socket in a row that got all they asked for, and after how
        #: many of them the next one asks whether there is more: see `_is_emptied`.
        self._filled = 0
        self._filled_at_most = 1
        #: A call was told of a reset: what looks like a good end is none.
        self._is_reset = False
        self._pidfd = -1

    # Sending.

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """As `Stream.send`."""
        moved = start = 0
        left = [view for view in buffers if view.nbytes]
        try:
            while start < len(left):
                if start == len(left) - 1:
                    self._send_rest(left[start], 0, deadline)
                    return
                sent = self._send_some(left[start : start + IOV_MAX])
                moved += sent
                start = _without_front(left, start, sent)
                if not sent:
                    self._readiness.wait_out(deadline)
        except BaseException as error:
            add_bytes_done(error, moved)
            raise

    def _send_some(self, views: list[memoryview]) -> int:
        try:
            return self._socket.sendmsg(views, (), SEND_NOW)
        except BlockingIOError:
            self._grow()
            return 0
        except OSError as error:
            raise self._explain(error) from None

    def try_send(self, buffer: bytes | memoryview) -> int:
        """As `StreamAttempts.send`."""
        try:
            return self._socket.send(buffer, SEND_NOW)
        except BlockingIOError:
            # Growing the buffer makes room at once.
            return self.try_send(buffer) if self._grow() else 0
        except OSError as error:
            raise self._explain(error) from None

    def _send_rest(self, view: memoryview, sent: int, deadline: int) -> None:
        try:
            while True:
                sent += self.try_send(view[sent:])
                if sent == len(view):
                    return
                self._readiness.wait_out(deadline)
        except BaseException as error:
            add_bytes_done(error, sent)
            raise

    def _grow(self) -> bool:
        if not self._send_buffer:
            return False
        try:
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer
            )
        except OSError:
            pass  # a smaller buffer is slower, no more
        self._send_buffer = 0
        return True

    # Receiving.

    def try_receive(self, max_bytes: int) -> bytes | None:
        """As `StreamAttempts.receive`."""
        if self._filled and self._is_emptied():
            return None
        size = self._size
        if size > max_bytes:
            size = max_bytes
        try:
            data, _, flags, _ = self._socket.recvmsg(size, 0, NOW)
        except BlockingIOError:
            self._note_emptied()
            return None
        except OSError as error:
            raise self._explain(error) from None
        count = len(data)
        if count == size:
            self._filled += self._is_local
            if size < max_bytes:
                self._size = size * GROWTH
                try:
                    data += self._receive_more(max_bytes - size)
                except RecursionError:
                    pass  # what has come would be lost: the rest is for the next read
        elif not count:
            self._require_no_reset()
        elif not flags:  # not TRUNCATED
            self._readiness.is_drained = True
        return data

    def _try_receive_plainly(self, max_bytes: int) -> bytes | None:
        # As try_receive, a fifth faster, where no descriptor can end a read early.
        if self._filled and self._is_emptied():
            return None
        size = self._size
        if size > max_bytes:
            size = max_bytes
        try:
            data = self._socket.recv(size, NOW)
        except BlockingIOError:
            self._note_emptied()
            return None
        except OSError as error:
            raise self._explain(error) from None
        count = len(data)
        if count == size:
            self._filled += self._is_local
            if size < max_bytes:
                self._size = size * GROWTH
                try:
                    data += self._receive_more(max_bytes - size)
                except RecursionError:
                    pass  # what has come would be lost: the rest is for the next read
        elif count:
            self._readiness.is_drained = True
        else:
            self._require_no_reset()
        return data

    def _is_emptied(self) -> bool:
        """Tell whether the reads before, all filled, took just what there was.

        One more read would tell as well, but by an error, which costs three times as
        much. It is asked after as many reads as it was the last time: who reads a
        header and then a body finds nothing at every third. TCP is never asked, since
        it leaves out what lies behind an urgent byte. Nor is a stream that has never
        waited: its end may be there, which a read tells, and who waited for it instead
        would have the descriptor watched for that alone.
        """
        filled = self._filled
        if filled < self._filled_at_most or self._readiness.home is None:
            return False
        # As `ask`, in one call. Whatever error there is, the read tells.
        answer = bytearray(INT_SIZE)
        try:
            fcntl.ioctl(self._readiness.fd, termios.FIONREAD, answer)
        except (OSError, ValueError):
            return False
        if answer != _ZERO:
            self._filled_at_most = 2 * filled
            return False
        # As _note_emptied, whose call would be a part of what receiving costs.
        self._readiness.is_drained = True
        self._filled_at_most = filled
        self._filled = 0
        return True

    def _note_emptied(self) -> None:
        self._readiness.is_drained = True
        self._filled_at_most = max(1, self._filled)
        self._filled = 0

    def _receive_more(self, max_bytes: int) -> bytes:
        # Only what is said to be there: to find none might take an error away.
        try:
            there = ask(self._socket, termios.FIONREAD)
            return self._socket.recv(min(there, max_bytes), NOW) if there else b""
        except OSError as error:
            # Another process has read it, or it was a guess, as MPTCP gives after a
            # reset. What has come must not be lost; a reset is told by the next read.
            self._explain(error)
            return b""

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        readiness = self._readiness
        while True:
            if readiness.is_drained or (self._filled and self._is_emptied()):
                readiness.wait_in(deadline)
            try:
                if self._takes_descriptors:
                    count, _, flags, _ = self._socket.recvmsg_into((buffer,), 0, NOW)
                else:
                    count, flags = self._socket.recv_into(buffer, 0, NOW), 0
            except BlockingIOError:
                self._note_emptied()
                continue
            except OSError as error:
                raise self._explain(error) from None
            if count == len(buffer):
                self._filled += self._is_local
            elif not count:
                self._require_no_reset()
            elif not flags & TRUNCATED:
                readiness.is_drained = True
            return count

    def _require_no_reset(self) -> None:
        """Raise if what looks like a good end comes of a reset, told before."""
        if self._is_reset:
            raise BrokenStreamError(_PEER_IS_GONE)

    # The end.

    def done(self, deadline: int) -> None:
        """As `Stream.done`. Never waits."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._explain(error) from None

    def abort(self) -> None:
        """As `Stream.abort`."""
        self._readiness.forget()
        try:
            self._socket.close()
        except OSError:
            pass  # ECONNRESET, which close reports, and has closed all the same
        if self._pidfd >= 0:
            self._close_pidfd()

    def _explain(self, error: OSError) -> OSError:
        if error.errno in _GONE or self._has_lost_its_peer():
            self._is_reset |= error.errno not in _TOLD_AGAIN
            return BrokenStreamError(_PEER_IS_GONE)
        if error.errno == errno.EBADF:
            return BadHandleError()
        return error

    def _has_lost_its_peer(self) -> bool:
        # TCP may also tell what an ICMP message said, such as ECONNREFUSED or even
        # EOPNOTSUPP; or ECONNABORTED, if an administrator has ended the connection.
        try:
            self._socket.getpeername()
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    # Descriptors, at their place in the data.

    def send_descriptors(
        self, data: memoryview, descriptors: Sequence[int], deadline: int
    ) -> None:
        """As `DescriptorPassing.send`."""
        rights = array.array("i", descriptors)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        sent = 0
        while not sent:
            try:
                sent = self._socket.sendmsg([data], control, SEND_NOW)
            except BlockingIOError:
                self._readiness.wait_out(deadline)
            except OSError as error:
                number = error.errno or 0
                if number in _REFUSED:
                    raise system_error(number, _REFUSED[number]) from None
                raise self._explain(error) from None
        if sent < len(data):
            self._send_rest(data, sent, deadline)

    def receive_descriptors(
        self, max_bytes: int, max_descriptors: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        """As `DescriptorPassing.receive`.

        Raises:
            OSError: EMSGSIZE, more came than *max_descriptors*; EMFILE, this process
                had no room for all of them. All are closed.
        """
        # With what a socket that was adopted may bring besides: SO_PASSCRED is usual
        # where a service manager made it.
        room = OTHER_CONTROL + socket.CMSG_LEN(max_descriptors * INT_SIZE)
        while True:
            if self._readiness.is_drained:
                self._readiness.wait_in(deadline)
            try:
                data, control, flags, _ = self._socket.recvmsg(
                    max_bytes, room, NOW | CLOEXEC
                )
            except BlockingIOError:
                self._readiness.is_drained = True
                continue
            except OSError as error:
                raise self._explain(error) from None
            if not data:
                self._require_no_reset()
            return data, _take_descriptors(control, flags, max_descriptors)

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
        make = _CAPABILITIES.get(kind)
        found = make(self) if make is not None else None
        return found if isinstance(found, kind) else None

    def _attempts(self) -> StreamAttempts:
        receive = self.try_receive
        if not self._takes_descriptors:
            receive = self._try_receive_plainly
        return StreamAttempts(receive, self.try_send, self._readiness)

    def _fileno(self) -> Fileno:
        return Fileno(self._socket.fileno())

    def _peer_identity(self) -> PeerIdentity | None:
        if not self._is_local or not hasattr(socket, "SO_PEERCRED"):
            return None
        raw = self._socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        return PeerIdentity(pid, uid, gid, self._open_pidfd())

    def _open_pidfd(self) -> int:
        # The kernel makes a descriptor at each call: keep the first.
        if self._pidfd >= 0:
            return self._pidfd
        try:
            made = self._socket.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError:
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
        if answer != _ZERO:
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

_CAPABILITIES: Final[dict[type, Callable[[SocketStream], object]]] = {
    StreamAttempts: SocketStream._attempts,
    Fileno: SocketStream._fileno,
    PeerIdentity: SocketStream._peer_identity,
    DescriptorPassing: SocketStream._descriptor_passing,
    Transfer: SocketStream._transfer,
    UnreadBytes: SocketStream._unread_bytes,
}


def _take_descriptors(
    control: list[tuple[int, int, bytes]], flags: int, limit: int
) -> list[int]:
    rights = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind in (socket.SCM_RIGHTS, SCM_PIDFD):
            found = array.array("i", content[: len(content) // INT_SIZE * INT_SIZE])
            if kind == socket.SCM_RIGHTS:
                rights += found
            else:
                os.close(found[0])  # nobody has asked for it
    if flags & TRUNCATED or len(rights) > limit:
        for descriptor in rights:
            os.close(descriptor)
        if len(rights) < limit:
            message = (
                "no room for a descriptor that came: close some, or raise ulimit -n"
            )
            raise system_error(errno.EMFILE, message)
        message = f"the peer sent more than {limit} descriptors at once"
        raise system_error(errno.EMSGSIZE, message)
    return list(rights)


def _without_front(views: list[memoryview], start: int, count: int) -> int:
    """Take *count* bytes off the views from *start* on; give where the rest starts.

    In place: a copy of the list after each call would cost more with each view in it.
    """
    while count and count >= views[start].nbytes:
        count -= views[start].nbytes
        start += 1
    if count:
        views[start] = views[start][count:]
    return start
