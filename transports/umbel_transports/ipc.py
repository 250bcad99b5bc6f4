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

Chapters, as in every transport, if it needs them: the plugin, streams (in
`_local_sockets`), names (in `_local_names`), listening (a listener's file is in
`_socket_file`, and who is let in, in `_admission`), connecting, errors (with the
names). Closing is `shut_down`. The facts that all this relies on are in unix(7), unless
another source is named; docs/promises.md lists them.
"""

from __future__ import annotations

import socket
from _socket import socketpair  # of plain sockets, which cost half
from collections.abc import Callable
from typing import Final, TypeVar, cast

from umbel import msleep
from umbel.spi import (
    LOCAL_CAPABILITIES,
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
    adopt_socket,
    hookimpl,
    now,
    shut_down,
    take_options,
)
from umbel_transports._admission import ChoosyListener
from umbel_transports._local_names import (
    absolute,
    explain,
    location_of,
    reachable,
    short_name,
)
from umbel_transports._local_sockets import (
    STREAM_OPTIONS,
    IpcListener,
    check_number,
    make_stream,
    open_socket,
    set_descriptors,
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
#: A full backlog gives nothing to poll: look again after 1, 2, 4 … 16 ms.
LONGEST_PAUSE: Final = 16


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
            **STREAM_OPTIONS,
        )
        return _listen(context.address, context.backlog, options)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> SocketStream:
        """Connect, waiting while the backlog is full."""
        options = take_options(context.options, **STREAM_OPTIONS)
        sock = open_socket(options)
        try:
            name = short_name(context.address)
            # Without a context manager, for speed.
            if name is None or not _is_connected(sock, name, context.address):
                _connect(sock, context)
            return make_stream(sock, options)
        except BaseException:
            sock.close()
            raise

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[SocketStream, SocketStream]:
        """Make a socket pair."""
        options = take_options(context.options, **STREAM_OPTIONS)
        left, right = socketpair()
        try:
            set_descriptors(left, options)
            set_descriptors(right, options)
            return make_stream(left, options), make_stream(right, options)
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
        state = context.state if context.is_trusted else None
        return IpcListener(sock, address, {}, handed_on(address, state))

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


# Listening.


def _listen(address: Address, backlog: int, options: Options) -> SocketListener:
    location = address.location
    # 600, meant as 0o600, would be 0o1130: open to a group, closed to its owner.
    check_number(options, "mode", 0o777, "0o777, in octal, such as mode=0o600")
    check_number(options, "group", LARGEST_GROUP)
    if not location.startswith("@") and location:
        location = absolute(address)
    address = Address("ipc", location)
    sock = open_socket(options)
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
