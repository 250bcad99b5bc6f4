"""(e) Coroutines, channels and timers; and both ends of a pair in one process."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import measure_inside
from benchmarks.model import Case, Job

PEERS = ("umbel", "gevent", "asyncio-streams", "uvloop-streams", "trio", "curio")
CASES = (
    ("spawn", "a coroutine started and finished", PEERS, 100_000),
    ("channel", "a value through a channel", PEERS, 100_000),
    ("timer", "a wait with a deadline that is not reached", PEERS, 50_000),
    ("switch", "a switch", ("umbel", "greenlet"), 500_000),
)
PAIRS = (
    *("umbel", "umbel-mem", "blocking", "gevent", "asyncio-streams"),
    *("uvloop-streams", "trio"),
)


def runtime() -> Iterator[Case]:
    for role, label, peers, count in CASES:
        yield Case("runtime", label, Job(role, count=count), peers, measure_inside)


def pair() -> Iterator[Case]:
    label = "64 bytes there and back, both ends in one process"
    yield Case("pair", label, Job("pair", count=50_000), PAIRS, measure_inside)
