"""The peers: what is said of each without importing it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Final

from benchmarks.compiled import compiler
from benchmarks.model import Peer

ECHO: Final = frozenset({"echo"})
#: Roles of a server whose clients the load generator plays.
ANSWER: Final = frozenset({"answer"})
STREAMS: Final = ECHO | {"sink", "source"}
SERVER: Final = STREAMS | ANSWER
#: An echo whose server asks for just as many bytes as a request has.
EXACTLY: Final = frozenset({"exactly"})
#: Roles that hold connections on which nothing happens.
PARKED: Final = frozenset({"parked"})
IDLE: Final = frozenset({"idle"})
#: Roles without clients.
INSIDE: Final = frozenset({"pair", "stream", "meet"})
TASKS: Final = frozenset({"spawn", "channel", "timer", "import"})
SWITCH: Final = frozenset({"switch"})

AIO: Final = "umbel.aio"

#: ZMTP 3.0 with the mechanism NULL, as a REQ socket speaks it (rfc.zeromq.org/23).
ZMTP_GREETING: Final = (
    b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
)
ZMTP_READY: Final = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ"
#: What a REP socket answers to that after its greeting.
ZMTP_READY_REPLY: Final = 27
#: SP over IPC, as a REQ socket speaks it (nng's RFC sp-ipc-mapping-01).
SP_GREETING: Final = b"\0SP\0\x00\x30\0\0"


def _before_mp(size: int) -> bytes:
    return size.to_bytes(4, "big")


def _before_zmtp(size: int) -> bytes:
    empty = b"\x01\x00"  # the delimiter, with more to come
    if size < 256:
        return empty + b"\x00" + size.to_bytes(1, "big")
    return empty + b"\x02" + size.to_bytes(8, "big")


def _before_sp(size: int) -> bytes:
    request = b"\x80\0\0\x01"
    return b"\x01" + (size + len(request)).to_bytes(8, "big") + request


def _peer(
    name: str,
    module: str,
    variant: str,
    roles: frozenset[str],
    *needs: str,
    most_connections: int = 100_000,
    is_padded: bool = True,
) -> Peer:
    return Peer(
        name,
        f"benchmarks.peers.{module}",
        variant,
        roles,
        needs,
        most_connections=most_connections,
        is_padded=is_padded,
    )


def _message_peer(
    name: str,
    variant: str,
    prefix: Callable[[int], bytes],
    *needs: str,
    most_connections: int = 100_000,
    preamble: bytes = b"",
    reply: int = 0,
) -> Peer:
    return Peer(
        name,
        "benchmarks.peers.of_messages",
        variant,
        ECHO,
        needs,
        most_connections=most_connections,
        has_tcp=False,
        preamble=preamble,
        reply=reply,
        prefix=prefix,
    )


_LOOPS: Final = SERVER | PARKED | INSIDE | TASKS
_AIO_ROLES: Final = SERVER | PARKED | EXACTLY
_OURS: Final = (
    _peer("umbel", "of_umbel", "coroutines", _LOOPS | EXACTLY | IDLE | SWITCH),
    _peer("umbel-mem", "of_umbel", "mem", INSIDE),
    _peer("umbel-tcp", "of_umbel", "tcp", INSIDE),
    _peer("umbel-descriptors", "of_umbel", "descriptors", ECHO),
    _peer("umbel-threads", "of_umbel", "threads", SERVER, most_connections=512),
    _peer("umbel-unpadded", "of_umbel", "coroutines", STREAMS, is_padded=False),
    _peer("umbel-aio-asyncio", "of_aio", "asyncio", _AIO_ROLES, AIO),
    _peer("umbel-aio-uvloop", "of_aio", "uvloop", _AIO_ROLES, AIO, "uvloop"),
    _peer("umbel-aio-trio", "of_aio", "trio", _AIO_ROLES, AIO, "trio"),
    _peer("umbel-in-asyncio", "of_aio", "guest", _AIO_ROLES, AIO),
)
_OTHERS: Final = (
    _peer("c", "of_c", "", ECHO),
    _peer("epoll", "of_sockets", "epoll", ECHO | ANSWER | IDLE),
    _peer("blocking", "of_sockets", "blocking", SERVER | INSIDE, most_connections=512),
    _peer("asyncio-streams", "of_asyncio", "streams", _LOOPS | EXACTLY),
    _peer("asyncio-protocol", "of_asyncio", "protocol", SERVER | IDLE),
    _peer("uvloop-streams", "of_asyncio", "uvloop-streams", _LOOPS | EXACTLY, "uvloop"),
    _peer("uvloop-protocol", "of_asyncio", "uvloop-protocol", SERVER | IDLE, "uvloop"),
    _peer("trio", "of_trio", "", _LOOPS, "trio"),
    _peer("anyio-asyncio", "of_anyio", "asyncio", SERVER | PARKED, "anyio"),
    _peer("anyio-trio", "of_anyio", "trio", SERVER | PARKED, "anyio", "trio"),
    _peer("gevent", "of_gevent", "", _LOOPS, "gevent"),
    _peer("curio", "of_curio", "", SERVER | PARKED | TASKS, "curio"),
    _peer("greenlet", "of_greenlet", "", SWITCH | PARKED),
    _peer("bare-imports", "", "", frozenset({"import"})),
    _message_peer("mp-connection", "mp", _before_mp, most_connections=64),
    _message_peer(
        "pyzmq",
        "zmq",
        _before_zmtp,
        "zmq",
        preamble=ZMTP_GREETING + ZMTP_READY,
        reply=len(ZMTP_GREETING) + ZMTP_READY_REPLY,
    ),
    # nng takes no more than some hundred connections at a time from its backlog.
    _message_peer(
        "pynng",
        "nng",
        _before_sp,
        "pynng",
        most_connections=512,
        preamble=SP_GREETING,
        reply=len(SP_GREETING),
    ),
)

#: By name.
PEERS: Final = {peer.name: peer for peer in (*_OURS, *_OTHERS)}


def what_is_missing(peer: Peer) -> str | None:
    """Tell why *peer* can't be run here; None if it can."""
    for module in peer.needs:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    if peer.name == "c" and compiler() is None:
        return "there is no C compiler"
    return None
