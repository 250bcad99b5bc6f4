"""ipc: AF_UNIX stream sockets, by a path or an abstract name.

    ipc:///run/x.sock    ipc:x.sock (relative)    ipc:@name (abstract, Linux only)

Options of `listen`:

    mode=0o600          of the socket file, in force before anyone can connect
    group="www"         that owns it, by name or number
    unlink=False        leave the file when the listener is closed
    takeover=True       replace a live listener: new connections come here, and the
                        old one serves its queue to the end
    allow=same_user     called with a PeerIdentity before accept returns; a peer that is
                        refused sees the end of the stream, or ECONNRESET if it has sent
                        something; so does one for which the function fails, which is
                        logged

The first, second and fourth are for a file: ENOTSUP for an abstract name.

Options of `listen`, `connect` and `pair`:

    buffer_size=1 << 20  what a send buffer grows to when it is first full; 0: never
    descriptors=False    the kernel refuses descriptors: EPERM for a peer that sends one
                         (Linux 6.16)

Chapters, as in every transport, if it needs them: the plugin, streams, names (in
`_local_names`), listening (a listener's file is in `_socket_file`), connecting, errors
(with the names). Closing is `shut_down`. The facts that all this relies on are in
unix(7), unless another source is named; docs/promises.md lists them.
"""

from __future__ import annotations

import errno
import os
import socket
from _socket import socketpair  # of plain sockets, which cost half
from collections.abc import Callable
from typing import Final, TypeVar, cast

from umbel import msleep
from umbel.spi import (
    LOCAL_CAPABILITIES,
    SEND_BUFFER,
    Address,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    ListenContext,
    NotSupportedError,
    Options,
    PairContext,
    SocketListener,
    SocketStream,
    Traits,
    Transfer,
    adopt_socket,
    hookimpl,
    now,
    shut_down,
    system_error,
    take_options,
)
from umbel_transports._local_names import (
    absolute,
    explain,
    location_of,
    reachable,
    short_name,
)
from umbel_transports._socket_file import (
    bind,
    handed_on,
    make_file,
    remove_file,
    replace_file,
)

T = TypeVar("T")

#: The number above it means: leave it as it is.
LARGEST_GROUP: Final = (1 << 32) - 2
#: What setsockopt takes.
LARGEST_BUFFER: Final = (1 << 31) - 1
#: A full backlog gives nothing to poll: look again after 1, 2, 4 … 16 ms.
LONGEST_PAUSE: Final = 16
#: Linux 6.16, as Python does not name it yet (asm-generic/socket.h).
SO_PASSRIGHTS: Final = 83


# The plugin.


class IpcTransport:
    """The plugin."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> SocketListener:
        """Listen at a path that nobody holds."""
        options = take_options(
            context.options,
            mode=int,
            group=(int, str),
            unlink=bool,
            takeover=bool,
            allow=cast("type", Callable),
            **_STREAM_OPTIONS,
        )
        return _listen(context.address, context.backlog, options)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> SocketStream:
        """Connect, waiting while the backlog is full."""
        options = take_options(context.options, **_STREAM_OPTIONS)
        sock = _open_socket(options)
        try:
            name = short_name(context.address)
            # Without a context manager, for speed.
            if name is None or not _is_connected(sock, name, context.address):
                _connect(sock, context)
            return _make_stream(sock, options)
        except BaseException:
            sock.close()
            raise

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[SocketStream, SocketStream]:
        """Make a socket pair."""
        options = take_options(context.options, **_STREAM_OPTIONS)
        left, right = socketpair()
        try:
            _set_descriptors(left, options)
            _set_descriptors(right, options)
            return _make_stream(left, options), _make_stream(right, options)
        except BaseException:
            left.close()
            right.close()
            raise

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> SocketStream | SocketListener:
        """Take over a socket. Its file is not ours, unless it was handed on as well."""
        sock = adopt_socket(context.fd, is_listening=context.is_listener)
        if not context.is_listener:
            return SocketStream(sock)
        address = context.address
        if not address.location:
            address = Address("ipc", location_of(sock.getsockname()))
        return IpcListener(sock, address, {}, handed_on(address, context.state))

    @hookimpl.traits
    def traits(self) -> Traits:
        """Declare what a local socket can do."""
        return Traits(
            address="ipc:{folder}/{name}.sock",
            capabilities=LOCAL_CAPABILITIES,
            is_filesystem=True,
        )

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        """Shut down as libdill's ipc_close does: done, then drain."""
        return shut_down(context)


# Streams.

# Ints, as in `umbel.sockets`: an operation on flags costs as much as a system call.
_NONBLOCK: Final = int(getattr(socket, "SOCK_NONBLOCK", 0))
_KIND: Final = int(socket.SOCK_STREAM) | _NONBLOCK
_STREAM_OPTIONS: Final = {"buffer_size": int, "descriptors": bool}


def _open_socket(options: Options) -> socket.SocketType:
    if options:
        _buffer_size(options)  # EINVAL before anybody is connected to
    sock = socket.SocketType(socket.AF_UNIX, _KIND)
    try:
        if not _NONBLOCK:
            sock.setblocking(False)
        _set_descriptors(sock, options)  # now: a peer may send one when connected
    except BaseException:
        sock.close()
        raise
    return sock


def _check_number(options: Options, name: str, most: int, told: str = "") -> None:
    number = options.get(name)
    if isinstance(number, int) and not 0 <= number <= most:
        message = f"{name}={number}: give 0 to {told or most}"
        raise system_error(errno.EINVAL, message)


def _buffer_size(options: Options) -> int:
    _check_number(options, "buffer_size", LARGEST_BUFFER, f"{LARGEST_BUFFER} bytes")
    size = options.get("buffer_size", SEND_BUFFER)
    assert isinstance(size, int)
    return size


def _make_stream(sock: socket.SocketType, options: Options) -> SocketStream:
    if not options:
        return SocketStream(sock)
    return SocketStream(
        sock, _buffer_size(options), takes_descriptors=_takes_descriptors(options)
    )


def _takes_descriptors(options: Options) -> bool:
    return bool(options.get("descriptors", True))


def _set_descriptors(sock: socket.SocketType, options: Options) -> None:
    """Have the kernel refuse them, if asked to: EPERM for a peer that sends one.

    The streams of a listener inherit this, from the moment when they are connected.
    """
    if _takes_descriptors(options):
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError as error:
        message = "descriptors=False needs Linux 6.16 or later"
        raise NotSupportedError(message) from error


# Listening.


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
        super().__init__(sock, address, _buffer_size(options))
        self._takes_descriptors = _takes_descriptors(options)
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


def _listen(address: Address, backlog: int, options: Options) -> SocketListener:
    location = address.location
    # 600, meant as 0o600, would be 0o1130: open to a group, closed to its owner.
    _check_number(options, "mode", 0o777, "0o777, in octal, such as mode=0o600")
    _check_number(options, "group", LARGEST_GROUP)
    if not location.startswith("@") and location:
        location = absolute(address)
    address = Address("ipc", location)
    sock = _open_socket(options)
    file = None
    try:
        if location.startswith("@"):
            _require_no_file(options)
            with reachable(address) as name:
                bind(sock, name, address)
            sock.listen(backlog)
        elif options.get("takeover"):
            file = replace_file(sock, address, backlog, options)
        else:
            with reachable(address) as name:
                file = make_file(sock, name, address, backlog, options)
        ours = file if options.get("unlink", True) else None
        if options.get("allow") is not None:
            # With logging: not at start.
            from umbel_transports._admission import ChoosyListener

            return ChoosyListener(sock, address, options, ours)
        return IpcListener(sock, address, options, ours)
    except BaseException:
        sock.close()
        if file is not None:  # as after Ctrl-C, just before the listener was made
            remove_file(location, file)
        raise


def _require_no_file(options: Options) -> None:
    for name in ("takeover", "mode", "group"):
        value = options.get(name)
        if value is not None and value is not False:
            message = (
                f"{name}= is for a file, and an abstract name has none: use a path"
            )
            raise NotSupportedError(message)


# Connecting.


def _is_connected(sock: socket.SocketType, name: bytes, address: Address) -> bool:
    """Try to connect; False if the backlog is full, and nothing is there to poll."""
    try:
        sock.connect(name)
    except BlockingIOError:
        return False
    except OSError as error:
        raise explain(error, address) from None
    return True


def _connect(sock: socket.SocketType, context: ConnectContext) -> None:
    address, deadline, pause = context.address, context.deadline, 1
    where = address
    if not address.location.startswith("@"):
        where = Address("ipc", absolute(address))  # also after a chdir meanwhile
    with reachable(where) as name:
        while not _is_connected(sock, name, address):
            if 0 <= deadline <= now():
                message = (
                    f"the backlog of {address} was full until the deadline: "
                    "the listener is too slow, or stuck"
                )
                raise DeadlineError(message)
            until = now() + pause
            msleep(until if deadline < 0 else min(until, deadline))
            pause = min(pause * 2, LONGEST_PAUSE)


transport = IpcTransport()
