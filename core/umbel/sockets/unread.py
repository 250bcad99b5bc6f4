"""What the peer of a local socket has not read yet, and waiting until it has."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from array import array
from typing import Final

from umbel._kernel.current import checkpoint
from umbel.deadline import now, soonest
from umbel.errors import BadHandleError, DeadlineError
from umbel.fd import Readiness, WaitQueue

INT_SIZE: Final = array("i").itemsize
#: 0, as ioctl(2) answers.
ZERO: Final = bytes(INT_SIZE)

#: What is looked for again and again is looked for after 1, 2, 4 … 16 ms.
LONGEST_PAUSE: Final = 16


def ask(fd: int, what: int) -> int:
    """Give the number that ioctl(2) answers to *what*; BadHandleError for -1."""
    # A buffer that it can write to: with bytes it takes twice as long.
    answer = bytearray(INT_SIZE)
    if fd < 0:
        raise BadHandleError  # closed meanwhile
    fcntl.ioctl(fd, what, answer)
    return int.from_bytes(answer, sys.byteorder)


def wait_until_read(
    sock: socket.SocketType, readiness: Readiness, deadline: int
) -> None:
    """Return once nothing that was sent on *sock*, a local socket, is left unread.

    The peer has read it, or has gone without.

    Raises:
        DeadlineError: ETIMEDOUT. Also Canceled.
    """
    pause = 0
    # Of local sockets only 0 means something: the rest is the kernel's own sizes.
    while left := ask(sock.fileno(), termios.TIOCOUTQ):
        readiness.wait_out(deadline)
        # Where readiness is no edge there is room at once, though nothing was
        # read. With edges that happens once, for one that had come before.
        if ask(sock.fileno(), termios.TIOCOUTQ) != left:
            pause = 0
        elif pause:
            _rest(pause, deadline)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            pause = 1


def _rest(milliseconds: int, deadline: int) -> None:
    """Let that time pass; ETIMEDOUT at the deadline."""
    until = soonest(now() + milliseconds, deadline)
    queue = WaitQueue()
    try:
        queue.wait(queue.ticket(), until)
    except DeadlineError:
        if until == deadline:
            raise
        checkpoint()  # it may have been closed, or canceled, as that time was over
