"""Descriptors over a local stream socket, at their place in the data (SCM_RIGHTS)."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from umbel.errors import system_error
from umbel.sockets.base import NOW, SEND_NOW, TRUNCATED
from umbel.sockets.inbound import InboundSocket
from umbel.sockets.unread import INT_SIZE

CLOEXEC: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
#: Linux, as Python does not name it yet (asm-generic/socket.h).
SCM_PIDFD: Final = 4
#: Process, user and group, as of SO_PEERCRED and SCM_CREDENTIALS.
CREDENTIALS: Final = struct.Struct("3i")
#: Bytes of SCM_CREDENTIALS and SCM_PIDFD.
OTHER_CONTROL: Final = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(INT_SIZE)

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


class RightsSocket(InboundSocket):
    """What `DescriptorPassing` needs, on top of the two directions."""

    __slots__ = ()

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


def _take_descriptors(
    control: list[tuple[int, int, bytes]], flags: int, limit: int
) -> list[int]:
    rights = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind in (socket.SCM_RIGHTS, SCM_PIDFD):
            found = array.array("i", content[: len(content) // INT_SIZE * INT_SIZE])
            if kind == socket.SCM_RIGHTS:
                rights += found
            elif found and found[0] >= 0:  # negative: there was no descriptor left
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
