"""The verbs that work on any transport, by address."""

from __future__ import annotations

from umbel._kernel.current import checkpoint
from umbel.deadline import FOREVER
from umbel.handle import hclose_if_open
from umbel.plugins.observers import load_requested
from umbel.plugins.registry import find_transport
from umbel.streams.listener import ListenerHandle, open_listener, open_stream
from umbel.streams.stream import StreamHandle
from umbel.transport import ConnectContext, ListenContext, PairContext
from umbel.values.address import Address, require_encodable
from umbel.values.iolist import check_count

#: Connections that may wait to be accepted, unless told otherwise.
BACKLOG = 128
#: What listen(2) takes; the kernel cuts it down to a limit of its own (somaxconn).
MOST_BACKLOG = (1 << 31) - 1


def _read(address: str | Address) -> Address:
    if not isinstance(address, Address):
        return Address.parse(address)
    require_encodable(address.location)
    return address


def listen(
    address: str | Address, backlog: int = BACKLOG, **options: object
) -> ListenerHandle:
    """Listen at *address*.

    Args:
        address: such as "ipc:x.sock" or "mem://name".
        backlog: how many connections may wait to be accepted.
        options: the transport's own; an unknown one is a TypeError. Those of ipc, mem
            and tcp are in docs/howto/local.md and tcp.md.

    Returns:
        the listener.

    Raises:
        UnknownTransportError: EPROTONOSUPPORT, no transport for that scheme.
        NotSupportedError: ENOTSUP, it is blocked, or can't listen.
        PluginError: ELIBACC, it failed to load.
        OSError: EADDRINUSE, EACCES, ENOENT and others, as its transport tells.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_listen(3), made generic.
    """
    checkpoint()
    where = _read(address)
    backlog = min(check_count(backlog, "backlog"), MOST_BACKLOG)
    load_requested()
    transport = find_transport(where.scheme)
    listener = transport.listen(ListenContext(where, backlog, options))
    return open_listener(listener, transport)


def connect(
    address: str | Address, deadline: int = FOREVER, **options: object
) -> StreamHandle:
    """Connect to a listener at *address*.

    Args:
        address: such as "ipc:x.sock" or "mem://name".
        deadline: see `umbel.deadline`.
        options: the transport's own; an unknown one is a TypeError. Those of ipc, mem
            and tcp are in docs/howto/local.md and tcp.md.

    Returns:
        the stream.

    Raises:
        DeadlineError: ETIMEDOUT, nobody had room for the connection in time.
        UnknownTransportError: EPROTONOSUPPORT, no transport for that scheme.
        NotSupportedError: ENOTSUP, it is blocked, or can't connect.
        PluginError: ELIBACC, it failed to load.
        OSError: ECONNREFUSED, ENOENT and others, as its transport tells.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_connect(3), made generic.
    """
    checkpoint()
    where = _read(address)
    load_requested()
    transport = find_transport(where.scheme)
    stream = transport.connect(ConnectContext(where, deadline, options))
    return open_stream(stream, where, transport, StreamHandle)


def pair(scheme: str = "mem", **options: object) -> tuple[StreamHandle, StreamHandle]:
    """Make two streams that are each other's peers.

    Args:
        scheme: of a transport that can do it.
        options: the transport's own; an unknown one is a TypeError. Those of ipc, mem
            and tcp are in docs/howto/local.md and tcp.md.

    Returns:
        both streams.

    Raises:
        UnknownTransportError: EPROTONOSUPPORT, no transport for that scheme.
        NotSupportedError: ENOTSUP, it is blocked, or can't make pairs.
        PluginError: ELIBACC, it failed to load.
        OSError: EMFILE and others, as its transport tells.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipc_pair(3), made generic.
    """
    checkpoint()
    load_requested()
    transport = find_transport(scheme)
    left, right = transport.pair(PairContext(scheme, options))
    where = Address(scheme, "")
    first: StreamHandle | None = None
    try:
        first = open_stream(left, where, transport, StreamHandle)
        return first, open_stream(right, where, transport, StreamHandle)
    except BaseException:
        if first is None:
            from umbel.plugins.results import discard

            discard(right)
        else:
            hclose_if_open(first)
        raise
