"""faults: what goes wrong now and then, on any transport, on purpose.

    with faults.plan(seed=7, short_reads=0.5, latency=0.01):
        ...         # the streams that are opened here have these faults

    UMBEL_PLUGINS=faults UMBEL_FAULTS="seed=7,short_reads=0.5" python program.py

The same seed gives the same faults: each direction of each stream draws from a source
of its own, named by the seed, the scheme and how many were opened before; so do
accepting, connecting and closing. A plan that is left has no more faults, also on
streams that are still open; of several active plans the last one counts.
"""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import dataclass, fields
from random import Random
from types import TracebackType
from typing import Final, NoReturn, cast, final

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
    system_error,
)
from umbel_plugins._faulty import FaultyStream

NAME: Final = "faults"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What goes wrong, and how often: likelihoods are from 0 to 1.

    Attributes:
        seed: of all that is drawn.
        scheme: the one transport that has them; "": all.
        short_reads: likelihood that a receive gives fewer bytes than there are.
        split_writes: likelihood that a send is cut in two, again and again.
        latency: most seconds that each receive, and each piece of a send, waits first.
        reset_after: bytes that either direction of a stream moves before it is
            ECONNRESET in both; None: never.
        close_timeouts: likelihood that a close that went well is told as ETIMEDOUT.
        accept_emfile: likelihood that an accept is EMFILE; the peer stays queued.
        refused_connects: likelihood that a connect is ECONNREFUSED; nobody sees it.
    """

    seed: int = 0
    scheme: str = ""
    short_reads: float = 0.0
    split_writes: float = 0.0
    latency: float = 0.0
    reset_after: int | None = None
    close_timeouts: float = 0.0
    accept_emfile: float = 0.0
    refused_connects: float = 0.0

    def __post_init__(self) -> None:
        for name in _LIKELIHOODS:
            if not 0 <= getattr(self, name) <= 1:
                _refuse(name, getattr(self, name), "a likelihood is from 0 to 1")
        if not 0 <= self.latency < float("inf"):
            _refuse("latency", self.latency, "give 0 or more seconds")
        if self.reset_after is not None and self.reset_after < 0:
            _refuse("reset_after", self.reset_after, "give 0 or more bytes")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read them from text such as "seed=7,short_reads=0.5".

        Raises:
            OSError: EINVAL, an unknown name or a value that can't be.
        """
        found: dict[str, object] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            kind = _KINDS.get(name.strip())
            if kind is None:
                _refuse(name, value, f"there is {', '.join(_KINDS)}")
            try:
                found[name.strip()] = kind(value.strip())
            except ValueError:
                _refuse(name, value, f"it must be of type {kind.__name__}")
        return cls(**found)  # type: ignore[arg-type]  # of the types in _KINDS


_LIKELIHOODS: Final = (
    "short_reads",
    "split_writes",
    "close_timeouts",
    "accept_emfile",
    "refused_connects",
)
_KINDS: Final[dict[str, type[int | float | str]]] = {
    "seed": int,
    "scheme": str,
    "short_reads": float,
    "split_writes": float,
    "latency": float,
    "reset_after": int,
    "close_timeouts": float,
    "accept_emfile": float,
    "refused_connects": float,
}
assert [*_KINDS] == [field.name for field in fields(Faults)]


@final
class Plan:
    """Faults that are drawn while it is active: in its `with` block.

    Attributes:
        faults: which.
        is_active: whether it is drawn from.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.is_active = False
        self._numbers = itertools.count(1)
        self._sources = {
            name: Random(f"{faults.seed} {name}") for name in _LIKELIHOODS[2:]
        }

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

    def spoil(self, stream: Stream, scheme: str) -> Stream:
        """Give *stream* the faults of this plan."""
        return FaultyStream(stream, self, f"{scheme} {next(self._numbers)}")


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
        self._of_environment: Plan | None = None

    @hookimpl.start
    def start(self) -> None:
        """Make the plan that UMBEL_FAULTS asks for."""
        text = os.environ.get("UMBEL_FAULTS")
        if text:
            found = Plan(Faults.parse(text))
            found.is_active = True
            self._plans.insert(0, found)
            self._of_environment = found
        self._is_loaded = True

    @hookimpl.stop
    def stop(self) -> None:
        """Have no more faults."""
        for active in self._plans:
            active.is_active = False
        self._plans.clear()
        self._is_loaded = False

    def add(self, new: Plan) -> None:
        """Have *new* count from now on."""
        umbel.load_plugins(NAME)
        self._plans.append(new)

    def take_out(self, old: Plan) -> None:
        """Have *old* count no more."""
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
        return _spoil(active, context.address.scheme, outcome)

    @hookimpl.accept.wrapper
    def accepting(self, context: AcceptContext) -> Answered[Stream]:
        """Have no descriptor left, or spoil what is accepted."""
        active = self._find(context.address.scheme)
        if active is not None and active.strikes("accept_emfile"):
            message = f"{context.address}: a planned fault (umbel_plugins.faults)"
            return (yield Outcome(error=system_error(errno.EMFILE, message)))
        outcome = yield None
        return _spoil(active, context.address.scheme, outcome)

    @hookimpl.pair.wrapper
    def pairing(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        """Spoil both streams."""
        outcome = yield
        active = self._find(context.scheme)
        if active is None or outcome.value is None:
            return None
        left, right = (active.spoil(s, context.scheme) for s in outcome.value)
        return Outcome((left, right))

    @hookimpl.adopt.wrapper
    def adopting(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        """Spoil a stream."""
        outcome = yield
        scheme = context.address.scheme
        active = self._find(scheme)
        if context.is_listener or active is None or outcome.value is None:
            return None
        return Outcome(active.spoil(cast("Stream", outcome.value), scheme))

    @hookimpl.close.wrapper
    def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
        """Tell of a good close as if its deadline had come first."""
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
    active: Plan | None, scheme: str, outcome: Outcome[Stream]
) -> Outcome[Stream] | None:
    if active is None or not active.is_active or outcome.value is None:
        return None
    return Outcome(active.spoil(outcome.value, scheme))


def _refuse(name: str, value: object, why: str) -> NoReturn:
    message = f"faults: {name.strip()}={value!r}: {why}"
    raise system_error(errno.EINVAL, message)


plugin = FaultsPlugin()
