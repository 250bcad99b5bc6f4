"""A connected stream socket: what both directions share.

`SocketStream` is built in storeys: this one, `OutboundSocket`, `InboundSocket`, and
itself. Each is a part of one class, for a file of its own; none is of use alone.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from umbel.errors import BadHandleError, BrokenStreamError
from umbel.fd import Readiness

# Plain ints: an operation on one of Python's flag enums costs as much as a system call.
NOW: Final = int(socket.MSG_DONTWAIT)
#: No SIGPIPE, whatever the program did to its handler.
SEND_NOW: Final = NOW | int(getattr(socket, "MSG_NOSIGNAL", 0))
TRUNCATED: Final = int(socket.MSG_CTRUNC)

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


class BareSocket:
    """What both directions of a stream share; `SocketStream` sets it."""

    __slots__ = ("_is_local", "_is_reset", "_readiness", "_socket")

    _socket: socket.SocketType
    _readiness: Readiness
    _is_local: bool
    #: A call was told of a reset: what looks like a good end is none.
    _is_reset: bool

    def _require_no_reset(self) -> None:
        """Raise if what looks like a good end comes of a reset, told before."""
        if self._is_reset:
            raise BrokenStreamError(_PEER_IS_GONE)

    def done(self, deadline: int) -> None:
        """As `Stream.done`. Never waits."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._explain(error) from None

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
