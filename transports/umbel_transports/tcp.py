"""tcp: streams over IPv4 and IPv6.

    tcp://127.0.0.1:8080    tcp://[::1]:0    tcp://example.org:80    tcp://:8080 (any)

Options of `listen`, `connect`:

    nodelay=False      gather small sends (Nagle); by default they go at once
    keepalive=True     have the kernel probe a silent peer

Options of `listen`:

    reuseport=True     let several listeners share the port

Port 0 lets the kernel choose; the listener's address tells which. Names are looked up
in a thread, and only to connect; to listen, localhost is 127.0.0.1. If a name has
several addresses, each gets a head start of 250 ms before the next is tried as well
(RFC 8305). A close in good order ends our direction, then drains: a plain close with
request bytes unread would make the kernel reset the connection, and lose what was sent.
Whether the peer has read everything can't be known over TCP.

Chapters, as in every transport, if it needs them: the plugin, streams, names,
listening, connecting, errors. Closing is `shut_down`. The facts that it relies on are
in tcp(7) and ip(7), unless another source is named.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar, cast

import umbel
from umbel.spi import (
    Address,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    Fileno,
    ListenContext,
    Names,
    Options,
    Readiness,
    SocketListener,
    SocketStream,
    Traits,
    adopt_socket,
    hookimpl,
    now,
    numeric_host,
    shut_down,
    split_host,
    system_error,
    take_options,
)

T = TypeVar("T")

#: RFC 8305, "Connection Attempt Delay", in ms.
HEAD_START: Final = 250

#: Family and socket address, as getaddrinfo gives them.
Target = tuple[int, tuple[object, ...]]


# The plugin.


class TcpTransport:
    """The plugin."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> SocketListener:
        """Listen at a numeric address."""
        options = take_options(context.options, reuseport=bool, **_STREAM_OPTIONS)
        host, port = _split(context.address)
        return _listen(host, port, context, options)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> SocketStream:
        """Connect to the first address of a name that answers."""
        options = take_options(context.options, **_STREAM_OPTIONS)
        host, port = _split(context.address)
        targets = _look_up(host or "localhost", port, context)
        if len(targets) == 1:
            sock = _reach(targets[0], context.deadline)
        else:
            sock = _reach_first(targets, context.deadline)
        try:
            return _make_stream(sock, options)
        except BaseException:
            sock.close()
            raise

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> SocketStream | SocketListener:
        """Take over a socket, as it is: no option of it is changed."""
        sock = adopt_socket(
            context.fd,
            is_listening=context.is_listener,
            families=(socket.AF_INET, socket.AF_INET6),
        )
        if context.is_listener:
            return TcpListener(sock, _address_of(sock.getsockname()), {})
        return TcpStream(sock, 0)

    @hookimpl.traits
    def traits(self) -> Traits:
        """Declare what a TCP socket can do."""
        return Traits(
            address="tcp://127.0.0.1:0", capabilities=frozenset({Fileno, Names})
        )

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        """Shut down: done, then drain."""
        return shut_down(context)


# Streams.

#: Whether a close waits until all is sent, and for how many seconds.
_LINGER: Final = struct.Struct("ii")
_STREAM_OPTIONS: Final = {"nodelay": bool, "keepalive": bool}


class TcpStream(SocketStream):
    """A stream whose ends have addresses."""

    __slots__ = ()

    def query(self, kind: type[T]) -> T | None:
        """As `Stream.query`."""
        if kind is not Names:
            return super().query(kind)
        return cast("T", Names(*map(_address_of, self.names())))

    def abort(self) -> None:
        """As `Stream.abort`."""
        _forbid_lingering(self._socket)
        super().abort()


def _forbid_lingering(sock: socket.SocketType) -> None:
    """Let its close not block, for which the program, or a listener's, may have asked.

    With a time of 0 a close resets the connection and does not block: that stays.
    """
    if sock.fileno() < 0:
        return
    how = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
    lingers, seconds = _LINGER.unpack(how)
    if lingers and seconds:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(0, 0))


def _make_stream(sock: socket.SocketType, options: Options) -> TcpStream:
    if options.get("nodelay", True):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.get("keepalive"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # No send buffer of ours: setting one would end the kernel's own tuning.
    return TcpStream(sock, 0)


# Names.


def _split(address: Address) -> tuple[str, int]:
    found = split_host(address.location)
    if found is None:
        message = f"{address}: write tcp://host:port, or tcp://[::1]:port for IPv6"
        raise system_error(errno.EINVAL, message)
    host, port = found
    if len(port) > 5 or int(port) > 65535:
        message = f"{address}: a port is 0 to 65535"
        raise system_error(errno.EINVAL, message)
    return host, int(port)


def _address_of(name: tuple[object, ...]) -> Address:
    """Make the address of what getsockname or getpeername gave."""
    host = numeric_host(name)
    shown = f"[{host}]" if ":" in host else host
    return Address("tcp", f"{shown}:{name[1]}")


def _numeric(host: str, port: int) -> Target | None:
    """Read a numeric address, maybe with an interface; None for a name. Never waits."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        zone = host.partition("%")[2]
        message = f"{host}: there is no interface {zone!r} for such an address"
        raise system_error(errno.ENODEV, message) from None
    family, _, _, _, where = found[0]
    return family, where


def _look_up(host: str, port: int, context: ConnectContext) -> list[Target]:
    """Give the addresses of a name, the resolver's favourite first."""
    number = _numeric(host, port)
    if number is not None:
        return [number]
    try:
        found = umbel.to_thread(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            context.deadline,
        )
    except (socket.gaierror, ValueError) as error:  # ValueError: no name at all
        cause = error.strerror if isinstance(error, OSError) else error
        message = f"{context.address}: the name {host!r} is unknown: {cause}"
        raise system_error(errno.EHOSTUNREACH, message) from None
    targets: list[Target] = [(family, where) for family, _, _, _, where in found]
    return _alternate(list(dict.fromkeys(targets)))


def _alternate(targets: Sequence[Target]) -> list[Target]:
    """Let families take turns, so that a broken one costs one head start."""
    first = [t for t in targets if t[0] == targets[0][0]]
    others = [t for t in targets if t[0] != targets[0][0]]
    mixed: list[Target] = []
    while first or others:
        mixed += first[:1] + others[:1]
        first, others = first[1:], others[1:]
    return mixed


# Listening.


class TcpListener(SocketListener):
    """A listener that sets the options of what it accepts."""

    __slots__ = ("_options",)

    def __init__(self, sock: socket.socket, address: Address, options: Options) -> None:
        super().__init__(sock, address)
        self._options = options

    def make_stream(self, sock: socket.SocketType) -> SocketStream:
        """As `SocketListener.make_stream`."""
        return _make_stream(sock, self._options)


def _listen(
    host: str, port: int, context: ListenContext, options: Options
) -> TcpListener:
    if host == "localhost":
        host = "127.0.0.1"
    number = _numeric(host or "0.0.0.0", port)
    if number is None:
        message = f"{context.address}: listen at a number, as looking up a name waits"
        raise system_error(errno.EINVAL, message)
    family, where = number
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a stopped server, in TIME_WAIT, are no reason to wait for.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.get("reuseport"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(where)
            sock.listen(context.backlog)
        except OSError as error:
            raise _explain(error, context.address) from None
        return TcpListener(sock, _address_of(sock.getsockname()), options)
    except BaseException:
        sock.close()
        raise


# Connecting.


def _reach(target: Target, deadline: int) -> socket.socket:
    """Connect to one address."""
    family, where = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    readiness = Readiness(sock.fileno())
    try:
        sock.setblocking(False)
        number = sock.connect_ex(where)
        while number in (errno.EINPROGRESS, errno.EALREADY):
            readiness.wait_out(deadline)
            # A wait may end early: only a peer's name tells that it is there.
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number and not _has_peer(sock):
                number = errno.EINPROGRESS
        if not number and _is_own_peer(sock):
            number = errno.ECONNREFUSED
        if number:
            plain = OSError(number, os.strerror(number))
            raise _explain(plain, _address_of(where), _CONNECTING)
    except BaseException:
        readiness.forget()
        sock.close()
        raise
    readiness.forget()
    return sock


def _has_peer(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _is_own_peer(sock: socket.socket) -> bool:
    """Tell whether TCP has connected it to itself, as nobody listens there.

    It does if the kernel happens to choose for us the very port that is connected to
    (RFC 9293, 3.5: a simultaneous open).
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # the peer has gone already, as the stream will tell


def _reach_first(targets: Sequence[Target], deadline: int) -> socket.socket:
    """Connect to whichever address answers first; the others are given up."""
    ours, theirs = umbel.chmake(object)
    failures: list[OSError] = []
    came: object = None
    left = list(targets)

    def attempt(target: Target) -> None:
        try:
            sock = _reach(target, deadline)
        except OSError as error:
            theirs.send(error)
            return
        try:
            theirs.send(sock)
        except BaseException:
            sock.close()  # another was first
            raise

    with ours, theirs, umbel.bundle() as attempts:
        try:
            while left or len(failures) < len(targets):
                if left:
                    attempts.go(attempt, left.pop(0))
                try:
                    came = ours.receive(_head_start(deadline) if left else deadline)
                except DeadlineError:
                    if 0 <= deadline <= now():
                        raise
                    continue  # it had its head start: the next one beside it
                if isinstance(came, socket.socket):
                    return came
                assert isinstance(came, OSError)
                failures.append(came)
        finally:
            _give_up(attempts, came)
    try:
        raise failures[0]
    finally:
        del came, failures  # or the error's traceback would refer to the error


def _give_up(attempts: umbel.BundleHandle, came: object) -> None:
    """End the others; if one of them failed in an unforeseen way, close ours, too."""
    try:
        attempts.abort()
    except BaseException:
        if isinstance(came, socket.socket):
            came.close()
        raise


def _head_start(deadline: int) -> int:
    until = now() + HEAD_START
    return until if deadline < 0 else min(until, deadline)


# Errors.

_ADVICE: Final = {
    errno.EADDRINUSE: "the port is taken: stop who holds it, or choose another",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "ports below 1024 are the administrator's",
    errno.ECONNREFUSED: "nobody listens there: start the listener, or mend the port",
    errno.ENETUNREACH: "there is no way to that network",
    errno.EHOSTUNREACH: "that machine can't be reached",
    errno.ETIMEDOUT: "that machine did not answer",
}
#: The same numbers mean something else to who connects.
_CONNECTING: Final = {
    **_ADVICE,
    errno.EADDRNOTAVAIL: "this machine has no address or free port to connect from",
    errno.EACCES: "a route or firewall forbids it",
}


def _explain(
    error: OSError, address: Address, advice: Mapping[int, str] = _ADVICE
) -> OSError:
    number = error.errno or errno.EIO
    return system_error(number, f"{address}: {advice.get(number, 'it failed')}")


transport = TcpTransport()
