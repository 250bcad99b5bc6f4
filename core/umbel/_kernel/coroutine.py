"""What a hub switches between."""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING, ClassVar

from umbel.errors import Canceled

if TYPE_CHECKING:
    from umbel._kernel.hub import Hub
    from umbel._kernel.switch import Carrier


class Coroutine:
    """One line of execution: a thread's main program, or what `start` began."""

    __slots__ = (
        "__weakref__",
        "carrier",
        "hub",
        "is_parked",
        "is_shielded",
        "must_look",
        "outcome",
        "parked_at",
        "pending",
    )

    #: Whether it is a task of a host's loop, or runs as a step of one.
    is_guest: ClassVar[bool] = False

    #: All set by its hub, when it is started.
    carrier: Carrier
    hub: Hub
    is_parked: bool
    #: While set, an interrupt waits in `pending` instead of waking it.
    is_shielded: bool
    #: It was woken while it did not wait, by a signal's handler or in a finalizer: its
    #: next wait ends at once.
    must_look: bool
    outcome: BaseException | type[BaseException] | None
    pending: BaseException | None
    #: When it last began to wait, in ns of the real clock: the last poll before.
    parked_at: int

    def run(self) -> None:
        """Do what it is for. Must not raise: whatever escaped would be lost."""

    @property
    def name(self) -> str:
        """What it is called, in messages."""
        return "main"

    @property
    def origin(self) -> tuple[CodeType, int] | None:
        """The instruction of the program's that it goes back to; None: unknown."""
        return None

    @property
    def is_lost(self) -> bool:
        """Whether its thread, or its loop, has ended: it never goes on."""
        return self.hub.is_abandoned

    def raise_pending(self) -> None:
        """Raise what is pending; `Canceled` again and again, others once."""
        if isinstance(self.pending, Canceled):
            raise Canceled(*self.pending.args)
        self.outcome, self.pending = self.pending, None
        self.raise_outcome()

    def raise_outcome(self) -> None:
        """Raise what its waiting came to, if that was an error."""
        error, self.outcome = self.outcome, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # or its traceback would refer to itself, and keep sockets alive
