"""Standard input and output as coroutines can use them.

Neither descriptor's blocking mode is changed: a shell, or the other side of a
pipeline, shares it.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress
from typing import Final

import umbel
from umbel.cli.standard import STDIN

#: Bytes of one read: enough to spread a call's cost, few enough to stay in cache.
CHUNK: Final = 1 << 18


class Input:
    """A descriptor that is read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: It ends by itself, and never makes one wait.
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        #: Someone would have to see that nobody reads it any more.
        self.is_terminal = os.isatty(fd)

    def read_into(self, buffer: memoryview, deadline: int) -> int:
        """Fill the front of *buffer*; return how many bytes, 0 at the end."""
        while True:
            if not self.is_file:
                umbel.fdin(self._fd, deadline)
            try:
                return os.readv(self._fd, [buffer])
            except BlockingIOError:
                pass  # someone who shares it was faster


class Output:
    """A descriptor that is written, without holding up other coroutines."""

    def __init__(self, fd: int) -> None:
        self._given = self._fd = fd
        self._own = -1
        self._piece = CHUNK
        self._must_wait = False
        #: Why it can't be written any more; None while it can.
        self.error: OSError | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return  # it has a position, where it is to be written
        try:
            # A description of our own, which may be non-blocking.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            self._own = self._fd = os.open(f"/dev/fd/{fd}", flags)
        except OSError:
            # A socket, or someone else's terminal. This much fits after POLLOUT.
            self._piece = select.PIPE_BUF
            self._must_wait = True

    def write(self, data: bytes, deadline: int) -> None:
        """Write all of *data*."""
        left = memoryview(data)
        while left:
            if self._must_wait:
                umbel.fdout(self._fd, deadline)
            try:
                left = left[os.write(self._fd, left[: self._piece]) :]
            except BlockingIOError:
                umbel.fdout(self._fd, deadline)
            except OSError as error:
                self.error = error
                raise

    def end(self) -> None:
        """Let whoever reads it see the end. The number stays taken, by /dev/null."""
        self.close()
        if _is_input_too(self._given):
            with socket.socket(fileno=os.dup(self._given)) as both, suppress(OSError):
                both.shutdown(socket.SHUT_WR)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._given)
        os.close(nothing)

    def close(self) -> None:
        """Free what was opened here; the descriptor that was given stays."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


def _is_input_too(fd: int) -> bool:
    """Tell whether *fd* is a socket that serves as input, as ssh and socat give it.

    That holds it open, and closing our other number of it would end nothing.
    """
    found = os.fstat(fd)
    return stat.S_ISSOCK(found.st_mode) and os.path.samestat(found, os.fstat(STDIN))
