"""What a task of a host's loop waits as.

A task of the loop that waits for something of umbel's is a `Guest`. To code that wakes
it, that is a coroutine like any other; but making it ready means that the loop goes on
with its task. Some guests, the errands, have a carrier on which blocking code runs: the
task itself switches to the carrier, so that the code runs in the task's own step.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Generator
from contextlib import suppress
from types import CodeType
from typing import ClassVar, Final, Protocol

from umbel._kernel.carriers import end_child
from umbel._kernel.coroutine import Coroutine
from umbel._kernel.hub import Hub
from umbel._kernel.switch import current_context, frame_of
from umbel.errors import Canceled
from umbel.values.frames import first_of_others


class Sleep(Protocol):
    """What a task of the host awaits until it is woken: a future, or much like one."""

    def __await__(self) -> Generator[object, object, None]:
        """Sleep."""

    def done(self) -> bool:
        """Tell whether it was woken, or canceled."""

    def set_result(self, result: None, /) -> None:
        """Let the task go on."""


class _Forgotten:
    """What a task awaits whose loop was closed: it never goes on."""

    def __await__(self) -> Generator[object, object, None]:
        raise RuntimeError

    def done(self) -> bool:
        return False

    def set_result(self, result: None, /) -> None:
        raise RuntimeError


FORGOTTEN: Final[Sleep] = _Forgotten()


class Guest(Coroutine):
    """What a task of the host waits as."""

    __slots__ = ("sleep", "times_due")

    is_guest: ClassVar[bool] = True
    #: How often it was made ready while its task did not sleep; the task must not begin
    #: to sleep then. Some may be taken back: see `try_once`.
    times_due: int
    #: What its task awaits; None while it does not sleep.
    sleep: Sleep | None

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_parked = self.is_shielded = self.must_look = False
        self.times_due = 0
        self.outcome = self.pending = self.sleep = None
        self.parked_at = 0

    @property
    def name(self) -> str:
        """As `Coroutine.name`."""
        return "a task of the host's loop"

    @property
    def is_lost(self) -> bool:
        """As `Coroutine.is_lost`."""
        return self.sleep is FORGOTTEN or self.hub.is_abandoned


class Errand(Guest):
    """Blocking code on a carrier that a task of the host switches to."""

    __slots__ = ("call", "error", "is_over", "value")

    def __init__(self, hub: Hub, call: Callable[[], object]) -> None:
        super().__init__(hub)
        self.call = call
        self.is_over = False
        self.value: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """As `Coroutine.run`: what comes of it is the task's."""
        try:
            self.value = self.call()
        except BaseException as error:  # noqa: BLE001 - raised in the task
            if self.hub.is_abandoned:
                end_child(error)  # which has no task
            self.error = error
        finally:
            del self.call
        self.is_over = True

    @property
    def origin(self) -> tuple[CodeType, int] | None:
        """As `Coroutine.origin`: where its task awaits it, whose frames are main's."""
        frame = first_of_others(frame_of(self.hub.main.carrier))
        return None if frame is None else (frame.f_code, frame.f_lasti)

    def start(self) -> None:
        """Run until it first waits, or ends. Only from main."""
        self.hub.prepare(self, current_context())
        self.go_on()

    def go_on(self) -> None:
        """Run until it waits again, or ends. Only from main."""
        hub = self.hub
        if hub.current is not hub.main:
            message = "a task of the loop runs in a coroutine of umbel's, not in main"
            raise RuntimeError(message)
        self._run_now()

    def _run_now(self) -> None:
        hub = self.hub
        # Before those that are ready: their turn comes, and this is the task's step.
        hub.ready.appendleft(hub.current)
        hub.current = self
        self.carrier.switch()

    def abandon(self) -> None:
        """Be canceled: the loop was closed, and the task is closed with it.

        That may be anywhere, as garbage is collected: in a coroutine, or in another
        thread. And since then the hub itself may have made us ready, or run us.
        """
        hub = self.hub
        if self.is_over or hub.is_abandoned:
            return  # first: what is posted to a thread that has ended runs at once
        if hub.thread != get_ident():
            hub.post(self.abandon)
        else:
            hub.interrupt(self, Canceled())
            with suppress(ValueError):
                hub.ready.remove(self)
            if not self.is_parked:  # it is, if it is shielded
                self._run_now()
