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
INSIDE = (
    *("umbel", "umbel-mem", "umbel-tcp", "blocking", "gevent", "asyncio-streams"),
    *("uvloop-streams", "trio"),
)


def runtime() -> Iterator[Case]:
    for role, label, peers, count in CASES:
        yield Case("runtime", label, Job(role, count=count), peers, measure_inside)


def pair() -> Iterator[Case]:
    """(h) Both ends in one process, which is all that mem:// is for."""
    for role, label, count, rate in (
        ("pair", "64 bytes there and back", 50_000, "op/s"),
        ("stream", "a MiB, 64 KiB at a time", 500, "MiB/s"),
        ("meet", "connect, a byte, orderly close", 5_000, "op/s"),
    ):
        job = Job(role, count=count)
        yield Case("pair", label, job, INSIDE, measure_inside, rate_unit=rate)
