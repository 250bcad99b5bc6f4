"""(c) A connection: connect, one byte there and back, orderly close."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import measure_load
from benchmarks.model import Case, Job, Peer, Sample

PEERS = (
    *("umbel", "umbel-threads", "umbel-aio-asyncio", "umbel-aio-uvloop"),
    *("umbel-aio-trio", "umbel-in-asyncio", "blocking", "epoll"),
    *("asyncio-protocol", "uvloop-protocol", "asyncio-streams", "uvloop-streams"),
    *("gevent", "curio", "trio", "anyio-asyncio", "anyio-trio"),
)


def measure(case: Case, peer: Peer) -> Sample:
    return measure_load(case, peer, "answer")


def connection() -> Iterator[Case]:
    for kind in ("unix", "tcp"):
        label = "connect, a byte, orderly close" + ", tcp" * (kind == "tcp")
        job = Job("answer", kind)
        yield Case("connection", label, job, PEERS, measure, is_together=True)
