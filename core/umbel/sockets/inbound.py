"""Receiving from a stream socket."""

from __future__ import annotations

import fcntl
import termios
from typing import Final

from umbel.sockets.base import NOW, TRUNCATED
from umbel.sockets.outbound import OutboundSocket
from umbel.sockets.unread import INT_SIZE, ZERO, ask

#: What a filled read makes the next one larger by; the first asks for FIRST_SIZE.
GROWTH: Final = 8


class InboundSocket(OutboundSocket):
    """The inbound direction, on top of the other one."""

    __slots__ = ("_filled", "_filled_at_most", "_size", "_takes_descriptors")

    #: What the next read asks for.
    _size: int
    #: Reads of a local socket in a row that got all they asked for, and after how many
    #: of them the next one asks whether there is more: see `_is_emptied`.
    _filled: int
    _filled_at_most: int
    _takes_descriptors: bool

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
        if answer != ZERO:
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
            there = ask(self._socket.fileno(), termios.FIONREAD)
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
