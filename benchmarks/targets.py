"""What must be reached: ratios of medians of one run, set before it was built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.model import SUBJECT, Result

#: All results of a run, by the names of their cases.
Run = dict[str, Result]
BULK: Final = tuple(f"{size:,} KiB" for size in (64, 256, 1024, 4096))


@dataclass(frozen=True, slots=True)
class Target:
    """One figure that must not be above its limit."""

    what: str
    limit: float
    #: None if the run did not measure it.
    measured: float | None

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return "ok" if self.measured <= self.limit else "missed"


def _cost(run: Run, case: str, peer: str) -> float | None:
    result = run.get(case)
    if result is None or not result.samples.get(peer):
        return None
    return result.cost(peer)


def _ratio(run: Run, case: str, peer: str, subject: str = SUBJECT) -> float | None:
    mine, other = _cost(run, case, subject), _cost(run, case, peer)
    return None if mine is None or not other else mine / other


def _echo(run: Run) -> Iterator[Target]:
    limits = (
        ("epoll", 1.6, 2.1),
        ("uvloop-streams", 1.0, 1.15),
        ("asyncio-streams", 0.8, 0.85),
        ("gevent", 0.6, 0.65),
        ("trio", 0.45, 0.45),
    )
    for place, connections in ((0, 64), (1, 512)):
        case = f"echo: {connections} connections, 64 bytes"
        for peer, *both in limits:
            what = f"echo, {connections} connections: of {peer}"
            yield Target(what, both[place], _ratio(run, case, peer))


def _calls(run: Run) -> Iterator[Target]:
    # A wait is one call for all that are ready, so that it hardly counts among 64.
    found = _cost(run, "calls: an echo, 64 connections", SUBJECT)
    yield Target("system calls of an echo, 64 connections", 2.1, found)


def _bulk(run: Run) -> Iterator[Target]:
    for verb in ("received", "sent"):
        cases = [f"bulk: {size} {verb} at a time" for size in BULK]
        bare = [_cost(run, case, "blocking") for case in cases]
        best = min((cost for cost in bare if cost), default=None)
        for size, case in zip(BULK, cases, strict=True):
            mine = _cost(run, case, SUBJECT)
            found = mine / best if mine and best else None
            what = f"bulk, {size} {verb}"
            yield Target(f"{what}: of the best bare sockets", 1 / 0.9, found)
            streams = _ratio(run, case, "asyncio-streams")
            yield Target(f"{what}: of asyncio-streams", 1 / 2, streams)


def _connection(run: Run) -> Iterator[Target]:
    case = "connection: connect, a byte, orderly close"
    # One after the other, as the blocking sockets do; then with a coroutine for each.
    found = _ratio(run, case, "blocking", "umbel-threads")
    yield Target("connection, blocking verbs: of blocking", 2.0, found)
    limits = (("blocking", 2.0), ("asyncio-streams", 1 / 3), ("trio", 1 / 3))
    for peer, limit in limits:
        yield Target(f"connection: of {peer}", limit, _ratio(run, case, peer))


def _round_trip(run: Run) -> Iterator[Target]:
    for size in ("1", "64", "1,024", "4,096", "16,384", "65,536"):
        case = f"round-trip: 1 connection, {size} bytes"
        what = f"round trip, {size} bytes: of blocking"
        yield Target(what, 1.2, _ratio(run, case, "blocking"))
        yield Target(f"{what}, time on the wall", 1.2, _slowness(run, case))


def _slowness(run: Run, case: str) -> float | None:
    """Tell how many times as long the clock on the wall runs as for blocking calls."""
    result = run.get(case)
    if result is None or not {SUBJECT, "blocking"} <= set(result.samples):
        return None
    return result.rate("blocking") / result.rate(SUBJECT)


def _memory(run: Run) -> Iterator[Target]:
    # The limit is asyncio's streams, each with a task: those of the second case.
    parked = "memory: an idle connection, one waits on it"
    bare = _cost(run, "memory: an idle connection, none waits on it", SUBJECT)
    streams = _cost(run, parked, "asyncio-streams")
    found = bare / streams if bare and streams else None
    yield Target("memory, none waits: of asyncio-streams", 0.5, found)
    what = "memory, one waits: of asyncio-streams"
    yield Target(what, 2.0, _ratio(run, parked, "asyncio-streams"))


def _growth(run: Run) -> Iterator[Target]:
    few = "echo: 64 connections, 64 bytes"
    many = "echo: 5,000 connections, 64 bytes"
    before, after = _ratio(run, few, "epoll"), _ratio(run, many, "epoll")
    found = after / before if before and after else None
    yield Target("growth from 64 to 5,000 connections: of epoll's", 1.3, found)


def _loops(run: Run) -> Iterator[Target]:
    """umbel.aio against the streams of the loop that it runs in."""
    case = "echo: 64 connections, 64 bytes"
    for subject, peer, limit in (
        ("umbel-aio-asyncio", "asyncio-streams", 1.0),
        ("umbel-aio-uvloop", "uvloop-streams", 1.0),
        ("umbel-aio-trio", "trio", 1.0),
        ("umbel-in-asyncio", "umbel-aio-asyncio", 0.95),
    ):
        found = _ratio(run, case, peer, subject)
        yield Target(f"echo, 64 connections: {subject} of {peer}", limit, found)


_ALL: Final[tuple[Callable[[Run], Iterator[Target]], ...]] = (
    *(_echo, _calls, _bulk, _connection, _round_trip, _memory, _growth, _loops),
)


def targets(results: Iterable[Result]) -> list[Target]:
    """Hold *results* against everything that must be reached."""
    run = {result.case.name: result for result in results}
    return [target for find in _ALL for target in find(run)]


def targets_table(results: Iterable[Result]) -> str:
    """Make the table: what, at most, measured, verdict."""
    lines = [f"\n{'umbel as a multiple':62} {'at most':>8} {'measured':>9}"]
    for target in targets(results):
        found = "" if target.measured is None else f"{target.measured:.2f}"
        what, limit = target.what, f"{target.limit:.2f}"
        lines.append(f"{what:62} {limit:>8} {found:>9}  {target.verdict}")
    return "\n".join(lines)
