"""(b) One stream in bulk: the server only receives, or only sends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.harness import measure_load
from benchmarks.model import MICROSECONDS, Case, Job, Peer, Sample

PEERS = (
    *("umbel", "umbel-unpadded", "umbel-threads", "umbel-aio-asyncio"),
    *("umbel-aio-uvloop", "umbel-aio-trio", "umbel-in-asyncio"),
    *("blocking", "asyncio-protocol", "uvloop-protocol"),
    *("asyncio-streams", "uvloop-streams", "gevent", "curio", "trio"),
    *("anyio-asyncio", "anyio-trio"),
)
SIZES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
MIB = 1 << 20


def measure(case: Case, peer: Peer, mode: str) -> Sample:
    found = measure_load(case, peer, mode, total=case.job.total)
    return Sample(found.cost * MIB, found.rate / MIB)


def bulk() -> Iterator[Case]:
    for kind in ("unix", "tcp"):
        for mode, verb in (("sink", "received"), ("source", "sent")):
            for size in SIZES if kind == "unix" else (64 << 10,):
                yield _case(kind, mode, verb, size)


def _case(kind: str, mode: str, verb: str, size: int) -> Case:
    total = (512 if size >= 64 << 10 else 128) << 20
    return Case(
        "bulk",
        f"{size >> 10:,} KiB {verb} at a time" + ", tcp" * (kind == "tcp"),
        Job(mode, kind, size, total),
        PEERS,
        partial(measure, mode=mode),
        unit=f"{MICROSECONDS}/MiB",
        rate_unit="MiB/s",
        # The client's own pieces are the same for all, so that only the server differs.
        size=256 << 10,
        curve=f"bytes {verb} at a time" if kind == "unix" else "",
        place=size,
    )
