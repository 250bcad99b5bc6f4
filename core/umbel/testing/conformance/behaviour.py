"""The list of behaviours, each a function that a transport must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from umbel.transport import (
    DescriptorPassing,
    Transfer,
    UnreadBytes,
)
from umbel.values.peer import PeerIdentity

if TYPE_CHECKING:
    from umbel.testing.conformance.subject import Subject
    from umbel.testing.conformance.trial import Trial


class Behaviour(NamedTuple):
    """One numbered behaviour.

    Attributes:
        number: in the list of behaviours, 1 to 81.
        title: what must be so.
        run: tries it; raises a Violation, or whatever else, if it is not so.
        needs: what the transport must have for it to apply.
        drivers: by which it can be tried; empty: by all.
    """

    number: int
    title: str
    run: Callable[[Trial], None]
    needs: tuple[str | type, ...]
    drivers: tuple[str, ...]

    def why_not(self, subject: Subject, driver: str) -> str:
        """Say why it does not apply; "" if it does."""
        if self.drivers and driver not in self.drivers:
            return f"it is about {' and '.join(self.drivers)}"
        for need in self.needs:
            if not _has(subject, need):
                name = need if isinstance(need, str) else need.__name__
                return f"the transport has no {name}"
        return ""


#: The drivers whose tasks can be canceled, and those that have a host.
CANCELING: Final = ("coroutines", "asyncio", "trio")
HOSTED: Final = ("asyncio", "trio")

#: All that are tried here, by number.
BEHAVIOURS: Final[dict[int, Behaviour]] = {}

#: Behaviours that no single transport can show, and where they are shown.
ELSEWHERE: Final = {
    35: "it is about layers above a transport, of which umbel has none yet",
    81: "it is about the kit itself: umbel's own tests catch broken transports with it",
}


def behaviour(
    number: int,
    title: str,
    *needs: str | type,
    drivers: tuple[str, ...] = (),
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Enter a function into the list."""

    def enter(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
        assert number not in BEHAVIOURS
        BEHAVIOURS[number] = Behaviour(number, title, function, needs, drivers)
        return function

    return enter


def _has(subject: Subject, need: str | type) -> bool:
    if need == "listener":
        return subject.can_serve
    if need in ("pair", "adopt"):
        return subject.can(str(need))
    if need == "half-close":
        return subject.traits.half_close
    if need == "files":
        return subject.makes_files
    if need in (DescriptorPassing, PeerIdentity, Transfer, UnreadBytes):
        return need in subject.traits.capabilities
    raise ValueError(need)
