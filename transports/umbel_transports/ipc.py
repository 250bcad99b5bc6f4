"""ipc: AF_UNIX stream sockets, by a path or an abstract name.

    ipc:///run/x.sock    ipc:x.sock (relative)    ipc:@name (abstract, Linux only)

Chapters, as in every transport: the plugin, listening, connecting, closing.
Facts it stands on are in unix(7), unless named.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from umbel import msleep
from umbel.spi import (
    Address,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    ListenContext,
    Options,
    PairContext,
    SocketListener,
    SocketStream,
    Stream,
    hookimpl,
    now,
    shut_down,
    system_error,
    take_options,
)

#: sun_path holds 108 bytes, the last of which is a NUL.
PATH_MAX: Final = 107
#: A full backlog gives nothing to poll: look again after 1, 2, 4 … 16 ms.
LONGEST_PAUSE: Final = 16
#: How long a racing starter may hold the folder's lock, in seconds.
LOCK_PATIENCE: Final = 2.0


class IpcTransport:
    """The plugin."""

    @hookimpl
    def umbel_listen(self, context: ListenContext) -> SocketListener:
        """Listen at a path that nobody holds."""
        options = take_options(context.options, mode=int, unlink=bool, buffer_size=int)
        return _listen(context.address, context.backlog, options)

    @hookimpl
    def umbel_connect(self, context: ConnectContext) -> Stream:
        """Connect, waiting while the backlog is full."""
        options = take_options(context.options, buffer_size=int)
        sock = _open_socket()
        try:
            with _reachable(context.address) as path:
                _connect(sock, path, context)
        except BaseException:
            sock.close()
            raise
        return SocketStream(sock, _buffer_size(options))

    @hookimpl
    def umbel_pair(self, context: PairContext) -> tuple[Stream, Stream]:
        """Make a socket pair."""
        size = _buffer_size(take_options(context.options, buffer_size=int))
        left, right = socket.socketpair()
        return SocketStream(left, size), SocketStream(right, size)

    @hookimpl
    def umbel_close(self, context: CloseContext) -> CloseReport:
        """Shut down as libdill's ipc_close does: done, then drain."""
        return shut_down(context)


def _open_socket() -> socket.socket:
    kind = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.setblocking(False)
    return sock


def _buffer_size(options: Options) -> int:
    size = options.get("buffer_size", 1 << 20)
    assert isinstance(size, int)
    if size < 0:
        raise system_error(errno.EINVAL, f"buffer_size={size}: give 0 or more bytes")
    return size


# Names.


def _check_location(address: Address) -> bytes:
    raw = os.fsencode(address.location)
    if raw in (b"", b"@"):
        message = "the path is empty: write ipc:name.sock or ipc:///folder/name.sock"
        raise system_error(errno.EINVAL, message)
    if b"\0" in raw:
        message = "the path has a NUL in it: an abstract name starts with @"
        raise system_error(errno.EINVAL, message)
    return raw


@contextmanager
def _reachable(address: Address) -> Iterator[bytes]:
    """Give the name by which the kernel takes *address*, also a long path."""
    raw = _check_location(address)
    if raw.startswith(b"@"):
        _check_length(raw, address)
        yield b"\0" + raw[1:]
    elif len(raw) <= PATH_MAX:
        yield raw
    else:
        folder, name = os.path.split(raw)
        at = os.open(folder or b".", getattr(os, "O_PATH", os.O_RDONLY))
        try:
            short = b"/proc/self/fd/%d/%s" % (at, name)
            _check_length(short, address)
            yield short
        finally:
            os.close(at)


def _check_length(name: bytes, address: Address) -> None:
    if len(name) > PATH_MAX:
        message = f"{address}: the name is longer than a socket's can be (107 bytes)"
        raise system_error(errno.ENAMETOOLONG, message)


# Listening.


class IpcListener(SocketListener):
    """A listener that removes its file when it is closed."""

    __slots__ = ("_file", "_owner_pid")

    def __init__(
        self, sock: socket.socket, address: Address, size: int, file: os.stat_result
    ) -> None:
        super().__init__(sock, address, size)
        self._file: os.stat_result | None = file
        self._owner_pid = os.getpid()

    def abort(self) -> None:
        """As `Listener.abort`. The file goes first, and only if it is ours still."""
        file, self._file = self._file, None
        # A forked child closes only its copy of the descriptor.
        if file is not None and self._owner_pid == os.getpid():
            try:
                if os.path.samestat(os.lstat(self.address.location), file):
                    os.unlink(self.address.location)
            except OSError:
                pass  # removed by someone else: as good
        super().abort()


def _listen(address: Address, backlog: int, options: Options) -> SocketListener:
    location = address.location
    size = _buffer_size(options)
    if not location.startswith("@") and location:
        # What another process can use, and what we find after a chdir.
        location = os.path.abspath(location)
    address = Address("ipc", location)
    sock = _open_socket()
    try:
        with _reachable(address) as name:
            if name.startswith(b"\0"):
                _bind(sock, name, address)
                sock.listen(backlog)
                return SocketListener(sock, address, size)
            file = _bind_file(sock, name, address, options.get("mode"))
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    if options.get("unlink", True):
        return IpcListener(sock, address, size, file)
    return SocketListener(sock, address, size)


def _bind_file(
    sock: socket.socket, name: bytes, address: Address, mode: object
) -> os.stat_result:
    """Make the socket file, with its mode in force before anyone can connect."""
    try:
        _bind(sock, name, address)
        if isinstance(mode, int):
            os.chmod(name, mode)
        return os.lstat(name)
    except BaseException:  # also Ctrl-C, right after the bind
        if sock.getsockname():
            os.unlink(name)
        raise


def _bind(sock: socket.socket, name: bytes, address: Address) -> None:
    try:
        sock.bind(name)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE or name.startswith(b"\0"):
            raise _explain(error, address) from None
    with _locked_folder(name):
        _remove_stale(name, address)
        try:
            sock.bind(name)
        except OSError as error:
            raise _explain(error, address) from None


@contextmanager
def _locked_folder(name: bytes) -> Iterator[None]:
    """Keep out others who are replacing a stale file at the same moment."""
    folder = os.open(os.path.dirname(name) or b".", os.O_RDONLY)
    try:
        give_up = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    break  # bind decides all the same, only less politely
                time.sleep(0.001)
        yield
    finally:
        os.close(folder)


def _remove_stale(name: bytes, address: Address) -> None:
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        message = f"{address} is a file that is no socket: choose another path"
        raise system_error(errno.EADDRINUSE, message)
    # A datagram connect tells a held socket (EPROTOTYPE) from a stale one
    # (ECONNREFUSED) and leaves nothing in a live backlog.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        number = probe.connect_ex(name)
    if number == errno.ECONNREFUSED:
        os.unlink(name)
    elif number != errno.ENOENT:
        message = f"{address} is in use by a live process: stop it, or use another path"
        raise system_error(errno.EADDRINUSE, message)


_ADVICE: Final = {
    errno.ENOENT: "there is no such file: start the listener, or mend the path",
    errno.ECONNREFUSED: "nobody listens there: the listener has stopped",
    errno.EACCES: "no permission for the socket file or its folder",
    errno.EADDRINUSE: "the name is taken: stop who holds it, or choose another",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EPROTOTYPE: "that socket is not a stream socket",
}


def _explain(error: OSError, address: Address) -> OSError:
    number = error.errno or errno.EIO
    if number == errno.ENOENT and not os.path.lexists(
        os.path.dirname(address.location) or "."
    ):
        return system_error(number, f"{address}: its folder does not exist: make it")
    return system_error(number, f"{address}: {_ADVICE.get(number, 'it failed')}")


# Connecting.


def _connect(sock: socket.socket, name: bytes, context: ConnectContext) -> None:
    pause = 1
    while True:
        try:
            sock.connect(name)
            return
        except BlockingIOError:
            pass  # the backlog is full, and nothing is there to poll
        except OSError as error:
            raise _explain(error, context.address) from None
        deadline = context.deadline
        if 0 <= deadline <= now():
            message = (
                f"the backlog of {context.address} was full until the deadline: "
                "the listener is too slow, or stuck"
            )
            raise DeadlineError(message)
        until = now() + pause
        msleep(until if deadline < 0 else min(until, deadline))
        pause = min(pause * 2, LONGEST_PAUSE)


transport = IpcTransport()
