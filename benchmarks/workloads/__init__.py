"""The workloads, by name: each gives its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from benchmarks.model import Case
from benchmarks.workloads.bulk import bulk
from benchmarks.workloads.calls import calls
from benchmarks.workloads.connection import connection
from benchmarks.workloads.echo import echo, exactly, growth, round_trip
from benchmarks.workloads.memory import memory
from benchmarks.workloads.runtime import pair, runtime
from benchmarks.workloads.start import start

WORKLOADS: Final[dict[str, Callable[[], Iterable[Case]]]] = {
    "echo": echo,
    "bulk": bulk,
    "connection": connection,
    "exactly": exactly,
    "round-trip": round_trip,
    "runtime": runtime,
    "pair": pair,
    "memory": memory,
    "start": start,
    "calls": calls,
    "growth": growth,
}
