"""faults: make things go wrong now and then, on any transport, on purpose.

    with faults.plan(seed=7, short_reads=0.5, latency=0.01):
        ...         # the streams that are opened here have these faults

    UMBEL_PLUGINS=faults UMBEL_FAULTS="seed=7,short_reads=0.5" python program.py

The same seed gives the same faults: each direction of each stream draws from a source
of its own, which depends on the seed, on how the stream was opened, and on how many
were opened that way before; so do accepting, connecting and closing. After its block a
plan makes no more faults, not even on streams that are still open; of several active
plans the last one counts.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from random import Random
from types import TracebackType
from typing import Final, final

import umbel
from umbel.spi import (
    AcceptContext,
    AdoptContext,
    Answered,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    Listener,
    Outcome,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
    is_stream,
    system_error,
)
from umbel_plugins._fault_settings import EVENTS, Faults
from umbel_plugins._faulty import FaultyStream

__all__ = ["Faults", "Plan", "plan", "plugin"]

NAME: Final = "faults"


@final
class Plan:
    """Faults that happen while it is active: in its `with` block.

    Attributes:
        faults: which ones.
        is_active: whether it makes faults.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.is_active = False
        self._numbers: dict[str, Iterator[int]] = {}
        self._sources = {name: Random(f"{faults.seed} {name}") for name in EVENTS}

    def __enter__(self) -> Plan:
        self.is_active = True
        plugin.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_active = False
        plugin.take_out(self)

    def strikes(self, name: str) -> bool:
        """Draw whether the fault of that *name* happens now."""
        likelihood: float = getattr(self.faults, name)
        return self.is_active and self._sources[name].random() < likelihood

    def spoil(self, stream: Stream, verb: str, scheme: str) -> Stream:
        """Give *stream*, which *verb* has opened, the faults of this plan."""
        # Counted by verb: which of two threads connects or accepts first is chance.
        name = f"{verb} {scheme}"
        number = next(self._numbers.setdefault(name, itertools.count(1)))
        return FaultyStream(stream, self, f"{name} {number}")


def plan(
    *,
    seed: int = 0,
    scheme: str = "",
    short_reads: float = 0.0,
    split_writes: float = 0.0,
    latency: float = 0.0,
    reset_after: int | None = None,
    close_timeouts: float = 0.0,
    accept_emfile: float = 0.0,
    refused_connects: float = 0.0,
) -> Plan:
    """Plan faults, for a `with` block; the arguments are those of `Faults`.

    Raises:
        OSError: EINVAL, a value is out of range.
    """
    return Plan(
        Faults(
            seed=seed,
            scheme=scheme,
            short_reads=short_reads,
            split_writes=split_writes,
            latency=latency,
            reset_after=reset_after,
            close_timeouts=close_timeouts,
            accept_emfile=accept_emfile,
            refused_connects=refused_connects,
        )
    )


class FaultsPlugin:
    """Gives new streams the faults of the plan that is active."""

    def __init__(self) -> None:
        self._is_loaded = False
        self._plans: list[Plan] = []

    @hookimpl.start
    def start(self) -> None:
        """Make the plan that UMBEL_FAULTS asks for."""
        text = os.environ.get("UMBEL_FAULTS")
        if text:
            found = Plan(Faults.parse(text))
            found.is_active = True
            self._plans.insert(0, found)
        self._is_loaded = True

    @hookimpl.stop
    def stop(self) -> None:
        """Make no more faults."""
        for active in self._plans:
            active.is_active = False
        self._plans.clear()
        self._is_loaded = False

    def add(self, new: Plan) -> None:
        """Let *new* count from now on."""
        if not self._is_loaded:
            umbel.load_plugins(NAME)
        self._plans.append(new)

    def take_out(self, old: Plan) -> None:
        """Let *old* no longer count."""
        if old in self._plans:
            self._plans.remove(old)

    def _find(self, scheme: str) -> Plan | None:
        for active in reversed(self._plans):
            if active.faults.scheme in ("", scheme):
                return active
        return None

    # What is spoiled.

    @hookimpl.connect.wrapper
    def connecting(self, context: ConnectContext) -> Answered[Stream]:
        """Refuse a connect, or spoil its stream."""
        active = self._find(context.address.scheme)
        if active is not None and active.strikes("refused_connects"):
            message = f"{context.address}: a planned fault (umbel_plugins.faults)"
            return (yield Outcome(error=system_error(errno.ECONNREFUSED, message)))
        outcome = yield None
        return _spoil(active, "connect", context.address.scheme, outcome)

    @hookimpl.accept.wrapper
    def accepting(self, context: AcceptContext) -> Answered[Stream]:
        """Have no descriptor left, or spoil what is accepted."""
        active = self._find(context.address.scheme)
        if active is not None and active.strikes("accept_emfile"):
            message = f"{context.address}: a planned fault (umbel_plugins.faults)"
            return (yield Outcome(error=system_error(errno.EMFILE, message)))
        outcome = yield None
        return _spoil(active, "accept", context.address.scheme, outcome)

    @hookimpl.pair.wrapper
    def pairing(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        """Spoil both streams."""
        outcome = yield
        active = self._find(context.scheme)
        if active is None or outcome.value is None:
            return None
        left, right = (active.spoil(s, "pair", context.scheme) for s in outcome.value)
        return Outcome((left, right))

    @hookimpl.adopt.wrapper
    def adopting(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        """Spoil a stream."""
        outcome = yield
        scheme = context.address.scheme
        active = self._find(scheme)
        stream = outcome.value
        if active is None or stream is None or not is_stream(stream):
            return None
        return Outcome(active.spoil(stream, "adopt", scheme))

    @hookimpl.close.wrapper
    def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
        """Report a good close as if its deadline had come first."""
        outcome = yield
        found = context.endpoint.query(FaultyStream)
        if found is None or outcome.error is not None:
            return None
        if not found.plan.strikes("close_timeouts"):
            return None
        error = DeadlineError("a planned fault (umbel_plugins.faults, close_timeouts)")
        error.report = outcome.value
        return Outcome(error=error)


def _spoil(
    active: Plan | None, verb: str, scheme: str, outcome: Outcome[Stream]
) -> Outcome[Stream] | None:
    if active is None or not active.is_active or outcome.value is None:
        return None
    return Outcome(active.spoil(outcome.value, verb, scheme))


plugin = FaultsPlugin()
