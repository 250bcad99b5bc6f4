"""Sending on a stream socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from umbel.errors import add_bytes_done
from umbel.sockets.base import SEND_NOW, BareSocket

#: Buffers that one sendmsg takes.
IOV_MAX: Final = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 1024


class OutboundSocket(BareSocket):
    """The outbound direction."""

    __slots__ = ("_send_buffer",)

    #: Bytes that the kernel's buffer grows to once a send did not fit; 0: no more.
    _send_buffer: int

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
