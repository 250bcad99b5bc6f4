"""(a) echo, (d) the round trip of one pair, and how the cost of an echo grows.

A closed loop: each connection has one request under way. The processor time is the
server's alone. A round trip shares one core: on two, most of what is counted would be
the waking of an idle core, which in a virtual machine costs more than the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import measure_load
from benchmarks.model import Case, Job, Peer, Sample

PEERS = (
    *("umbel", "umbel-descriptors", "umbel-unpadded", "umbel-threads"),
    "umbel-aio-asyncio",
    *("umbel-aio-uvloop", "umbel-aio-trio", "umbel-in-asyncio"),
    *("c", "epoll", "blocking", "asyncio-protocol", "uvloop-protocol"),
    *("asyncio-streams", "uvloop-streams", "gevent", "curio", "trio"),
    *("anyio-asyncio", "anyio-trio", "mp-connection", "pyzmq", "pynng"),
)
CURVE = ("umbel", "c", "epoll", "uvloop-streams", "asyncio-streams", "gevent", "trio")


def measure(case: Case, peer: Peer) -> Sample:
    return measure_load(
        case,
        peer,
        "echo",
        preamble=peer.preamble.hex(),
        reply=peer.reply,
        prefix=peer.prefix(case.size).hex(),
    )


def _case(workload: str, connections: int, size: int = 64, kind: str = "unix") -> Case:
    many = f"{connections:,} connection" + "s" * (connections > 1)
    return Case(
        workload,
        f"{many}, {size:,} bytes" + ", tcp" * (kind == "tcp"),
        Job("echo", kind),
        PEERS,
        measure,
        connections=connections,
        size=size,
        is_together=workload == "round-trip",
    )


def echo() -> Iterator[Case]:
    for connections in (1, 64, 512, 5000):
        yield _case("echo", connections)
    yield _case("echo", 64, kind="tcp")


def exactly() -> Iterator[Case]:
    """As echo, but the server receives just as many bytes as a request has."""
    for connections in (64, 512):
        case = _case("exactly", connections)
        yield replace(case, job=Job("exactly", case.job.address, case.size))


def round_trip() -> Iterator[Case]:
    for size in (1, 64, 1024, 4096, 16384, 65536):
        yield _case("round-trip", 1, size)
    yield _case("round-trip", 1, kind="tcp")


def growth() -> Iterator[Case]:
    for connections in (1, 4, 16, 64, 256, 1024, 5000):
        case = replace(_case("growth", connections), peers=CURVE)
        yield replace(case, curve="connections", place=connections)
    for size in (1, 64, 1024, 4096, 16384, 65536):
        case = replace(_case("growth", 64, size), peers=CURVE)
        yield replace(case, curve="bytes of a request", place=size)
    for idle in (0, 100, 1000, 5000, 9000):
        case = replace(_case("growth", 1), peers=CURVE, idle=idle, is_together=True)
        label = f"{case.label}, {idle:,} idle ones beside it"
        yield replace(case, label=label, curve="idle connections", place=idle + 1)
