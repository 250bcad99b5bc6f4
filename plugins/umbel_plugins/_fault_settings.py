"""Which faults there are, how often they come, and how they are written."""

from __future__ import annotations

import errno
from dataclasses import dataclass, fields
from typing import Final, NoReturn, final

from umbel.spi import system_error


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What goes wrong, and how often: likelihoods are from 0 to 1.

    Attributes:
        seed: of everything that is drawn at random.
        scheme: the one transport that has them; "": all.
        short_reads: likelihood that a receive gives fewer bytes than there are.
        split_writes: likelihood that a send is cut in two, again and again.
        latency: the most seconds that each receive, and each piece of a send, first
            waits.
        reset_after: bytes that either direction of a stream moves before both raise
            ECONNRESET; None: never.
        close_timeouts: likelihood that a close that went well is reported as ETIMEDOUT.
        accept_emfile: likelihood that an accept raises EMFILE; the peer stays queued.
        refused_connects: likelihood that a connect raises ECONNREFUSED; no listener
            sees it.
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
            OSError: EINVAL, an unknown name or an impossible value.
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


#: Faults that strike an event, and not the bytes.
EVENTS: Final = ("close_timeouts", "accept_emfile", "refused_connects")
_LIKELIHOODS: Final = ("short_reads", "split_writes", *EVENTS)
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


def _refuse(name: str, value: object, why: str) -> NoReturn:
    message = f"faults: {name.strip()}={value!r}: {why}"
    raise system_error(errno.EINVAL, message)
