"""Local sockets: how they are opened, and what becomes of them."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final, TypeVar, cast

from umbel.spi import (
    SEND_BUFFER,
    Address,
    NotSupportedError,
    Options,
    SocketListener,
    SocketStream,
    Transfer,
    system_error,
)
from umbel_transports._socket_file import remove_file

T = TypeVar("T")

#: What setsockopt takes.
LARGEST_BUFFER: Final = (1 << 31) - 1
#: Linux 6.16, as Python does not name it yet (asm-generic/socket.h).
SO_PASSRIGHTS: Final = 83
#: Of `listen`, `connect` and `pair`, with their types.
STREAM_OPTIONS: Final = {"buffer_size": int, "descriptors": bool}

# Ints, as in `umbel.sockets`: an operation on flags costs as much as a system call.
_NONBLOCK: Final = int(getattr(socket, "SOCK_NONBLOCK", 0))
_KIND: Final = int(socket.SOCK_STREAM) | _NONBLOCK


def open_socket(options: Options) -> socket.SocketType:
    """Open a socket that is no stream and no listener yet."""
    if options:
        buffer_size_of(options)  # EINVAL before anybody is connected to
    sock = socket.SocketType(socket.AF_UNIX, _KIND)
    try:
        if not _NONBLOCK:
            sock.setblocking(False)
        set_descriptors(sock, options)  # now: a peer may send one when connected
    except BaseException:
        sock.close()
        raise
    return sock


def check_number(options: Options, name: str, most: int, told: str = "") -> None:
    """EINVAL if the option *name* is given, and is not 0 to *most*."""
    number = options.get(name)
    if isinstance(number, int) and not 0 <= number <= most:
        message = f"{name}={number}: give 0 to {told or most}"
        raise system_error(errno.EINVAL, message)


def buffer_size_of(options: Options) -> int:
    """Give what a send buffer grows to; EINVAL if it can't."""
    check_number(options, "buffer_size", LARGEST_BUFFER, f"{LARGEST_BUFFER} bytes")
    size = options.get("buffer_size", SEND_BUFFER)
    assert isinstance(size, int)
    return size


def make_stream(sock: socket.SocketType, options: Options) -> SocketStream:
    """Make the stream over *sock*, which is connected."""
    if not options:
        return SocketStream(sock)
    return SocketStream(
        sock, buffer_size_of(options), takes_descriptors=takes_descriptors(options)
    )


def takes_descriptors(options: Options) -> bool:
    """Tell whether peers may send descriptors."""
    return bool(options.get("descriptors", True))


def set_descriptors(sock: socket.SocketType, options: Options) -> None:
    """Have the kernel refuse them, if asked to: EPERM for a peer that sends one.

    The streams of a listener inherit this, from the moment when they are connected.
    """
    if takes_descriptors(options):
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError as error:
        message = "descriptors=False needs Linux 6.16 or later"
        raise NotSupportedError(message) from error


class IpcListener(SocketListener):
    """A listener that removes its file when it is closed."""

    __slots__ = ("_file", "_owner_pid", "_takes_descriptors")

    def __init__(
        self,
        sock: socket.SocketType,
        address: Address,
        options: Options,
        file: os.stat_result | None,
    ) -> None:
        super().__init__(sock, address, buffer_size_of(options))
        self._takes_descriptors = takes_descriptors(options)
        self._file = file
        self._owner_pid = os.getpid()

    def make_stream(self, sock: socket.SocketType) -> SocketStream | None:
        """As `SocketListener.make_stream`."""
        return SocketStream(
            sock, self._send_buffer, takes_descriptors=self._takes_descriptors
        )

    def query(self, kind: type[T]) -> T | None:
        """As `Listener.query`."""
        if kind is not Transfer:
            return super().query(kind)
        # A forked child's copy has no file that it could hand on.
        file = self._file if self._owner_pid == os.getpid() else None
        state = {} if file is None else {"device": file.st_dev, "inode": file.st_ino}
        transfer = Transfer(self.fileno(), state, self._release)
        return cast("T", transfer)

    def _release(self) -> None:
        self._file = None

    def abort(self) -> None:
        """As `Listener.abort`. First removes the file, but only if it is still ours."""
        file, self._file = self._file, None
        try:
            # A forked child closes only its copy of the descriptor.
            if file is not None and self._owner_pid == os.getpid():
                remove_file(self.address.location, file)
        except (RecursionError, MemoryError):
            self._file = file  # whoever calls again is less deep down
            raise
        super().abort()
