"""The peers: what is said of each without importing it."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Final

from benchmarks.model import Peer

#: Roles of a server whose clients the load generator plays.
SERVER: Final = frozenset({"echo", "sink", "source", "answer"})
#: Roles that hold connections on which nothing happens.
PARKED: Final = frozenset({"parked"})
IDLE: Final = frozenset({"idle"})
#: Roles without clients.
PAIR: Final = frozenset({"pair"})
TASKS: Final = frozenset({"spawn", "channel", "timer", "import"})
SWITCH: Final = frozenset({"switch"})

#: ZMTP 3.0 with the mechanism NULL, as a REQ socket speaks it (rfc.zeromq.org/23).
ZMTP_GREETING: Final = (
    b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
)
ZMTP_READY: Final = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ"
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
    name: str, module: str, variant: str, roles: frozenset[str], *needs: str
) -> Peer:
    return Peer(name, f"benchmarks.peers.{module}", variant, roles, needs)


_ALL = (
    _peer("umbel", "of_umbel", "coroutines",
          SERVER | PARKED | IDLE | PAIR | TASKS | SWITCH),
    _peer("umbel-mem", "of_umbel", "mem", PAIR),
    Peer("umbel-threads", "benchmarks.peers.of_umbel", "threads", SERVER,
         most_connections=512),
    Peer("umbel-unpadded", "benchmarks.peers.of_umbel", "coroutines",
         SERVER, is_padded=False),
    _peer("epoll", "of_sockets", "epoll", SERVER | IDLE),
    Peer("blocking", "benchmarks.peers.of_sockets", "blocking", SERVER | PAIR,
         most_connections=512),
    _peer("asyncio-streams", "of_asyncio", "streams", SERVER | PARKED | PAIR | TASKS),
    _peer("asyncio-protocol", "of_asyncio", "protocol", SERVER | IDLE),
    _peer("uvloop-streams", "of_asyncio", "uvloop-streams",
          SERVER | PARKED | PAIR | TASKS, "uvloop"),
    _peer("uvloop-protocol", "of_asyncio", "uvloop-protocol", SERVER | IDLE, "uvloop"),
    _peer("trio", "of_trio", "", SERVER | PARKED | PAIR | TASKS, "trio"),
    _peer("anyio-asyncio", "of_anyio", "asyncio", SERVER | PARKED, "anyio"),
    _peer("anyio-trio", "of_anyio", "trio", SERVER | PARKED, "anyio", "trio"),
    _peer("gevent", "of_gevent", "", SERVER | PARKED | PAIR | TASKS, "gevent"),
    _peer("curio", "of_curio", "", SERVER | PARKED | TASKS, "curio"),
    _peer("greenlet", "of_greenlet", "", SWITCH | PARKED),
    Peer("mp-connection", "benchmarks.peers.of_messages", "mp", frozenset({"echo"}),
         most_connections=64, prefix=_before_mp),
    Peer("pyzmq", "benchmarks.peers.of_messages", "zmq", frozenset({"echo"}), ("zmq",),
         preamble=ZMTP_GREETING + ZMTP_READY, reply=64 + 27, prefix=_before_zmtp),
    Peer("pynng", "benchmarks.peers.of_messages", "nng", frozenset({"echo"}),
         ("pynng",), most_connections=512,
         preamble=SP_GREETING, reply=8, prefix=_before_sp),
    _peer("bare-imports", "", "", frozenset({"import"})),
    _peer("c", "of_c", "", frozenset({"echo"})),
)  # fmt: skip

#: By name.
PEERS: Final = {peer.name: peer for peer in _ALL}


def what_is_missing(peer: Peer) -> str | None:
    """Tell why *peer* can't be run here; None if it can."""
    for module in peer.needs:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    if peer.name == "c" and shutil.which("cc") is None:
        return "there is no C compiler"
    return None
