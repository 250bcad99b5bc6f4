"""A listener over a socket, for transports that have one."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from umbel.errors import BadHandleError
from umbel.fd import Readiness
from umbel.sockets.stream import SEND_BUFFER, STREAM, SocketStream
from umbel.transport import Fileno, ListenerAttempts, Stream
from umbel.values.address import Address

T = TypeVar("T")

#: Peers sent away, or gone while queued, before others get a turn.
MOST_REFUSED: Final = 16


class SocketListener:
    """A `Listener` over a listening stream socket, which it owns.

    Core tries by `try_accept` where it can, and does not call `accept` then, unless a
    subclass overrides it. To change or refuse what comes, override `make_stream`.

    Args:
        sock: of any family, listening. It becomes non-blocking.
        address: where others can connect to it.
        send_buffer: of the streams that it accepts, as of `SocketStream`.
    """

    __slots__ = (
        "__weakref__",
        "_accept",
        "_accepted",
        "_accepted_at_most",
        "_family",
        "_protocol",
        "_readiness",
        "_send_buffer",
        "_socket",
        "address",
    )

    #: Nothing is overridden that core would bypass.
    _may_bypass: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._may_bypass = cls.accept is SocketListener.accept

    def __init__(
        self,
        sock: socket.SocketType,
        address: Address,
        send_buffer: int = SEND_BUFFER,
    ) -> None:
        # accept has no MSG_DONTWAIT: here the descriptor's own mode must do.
        sock.setblocking(False)
        self.address: Address = address
        self._socket = sock
        self._accept: Callable[[], tuple[int, object]] = sock._accept  # type: ignore[attr-defined]  # typeshed lacks it
        self._family = int(sock.family)
        self._protocol = sock.proto
        self._send_buffer = send_buffer
        self._readiness = Readiness(sock.fileno())
        #: Peers accepted in a row, and after how many of them the next call asks
        #: whether there is one more: see `_is_emptied`.
        self._accepted = 0
        self._accepted_at_most = 1

    def accept(self, deadline: int) -> Stream:
        """As `Listener.accept`."""
        while (stream := self.try_accept()) is None:
            self._readiness.wait_in(deadline)
        return stream

    def try_accept(self) -> Stream | None:
        """As `ListenerAttempts.accept`."""
        if self._accepted >= self._accepted_at_most and self._is_emptied():
            return None
        for _ in range(MOST_REFUSED):
            try:
                # As socket.accept, which takes longer than the system call itself.
                fd, _ = self._accept()
            except BlockingIOError:
                self._note_emptied()
                return None
            except ConnectionAbortedError:
                continue  # it gave up while queued: the next one, please
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    raise BadHandleError from None
                raise
            self._accepted += 1
            try:
                sock = socket.SocketType(self._family, STREAM, self._protocol, fd)
            except MemoryError:
                os.close(fd)
                raise
            try:
                stream = self.make_stream(sock)
            except BaseException:
                sock.close()
                raise
            if stream is not None:
                return stream
        self._readiness.must_yield = True
        return None

    def _is_emptied(self) -> bool:
        """Tell whether the peers that were accepted are all that had come.

        One more accept would tell as well, but costs five times as much, since the
        kernel makes a socket before it looks. It is asked after as many peers as the
        last time, so that who accepts one at a time never tries in vain, and a crowd
        is asked for a few times only.
        """
        look = select.poll()
        try:
            look.register(self._readiness.fd, select.POLLIN)
        except ValueError:
            return False  # closed by another thread, which accept tells
        if look.poll(0):  # or an error, likewise
            self._accepted_at_most = 2 * self._accepted
            return False
        self._note_emptied()
        return True

    def _note_emptied(self) -> None:
        self._accepted_at_most = max(1, self._accepted)
        self._accepted = 0

    def make_stream(self, sock: socket.SocketType) -> SocketStream | None:
        """Make the stream of an accepted socket; None if it was sent away.

        *sock* is a plain one, without what `socket.socket` adds to it in Python: making
        it takes half the time.
        """
        return SocketStream(sock, self._send_buffer)

    def fileno(self) -> int:
        """Give the descriptor, which stays the listener's."""
        return self._socket.fileno()

    def abort(self) -> None:
        """As `Listener.abort`."""
        self._readiness.forget()
        self._socket.close()

    def query(self, kind: type[T]) -> T | None:
        """As `Listener.query`."""
        found: object = None
        if kind is Fileno:
            found = Fileno(self.fileno())
        elif kind is ListenerAttempts and self._may_bypass:
            found = ListenerAttempts(self.try_accept, self._readiness)
        return found if isinstance(found, kind) else None
