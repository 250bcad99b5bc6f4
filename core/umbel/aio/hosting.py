"""A hub as the guest of somebody else's event loop.

The loop runs in the hub's main coroutine. It watches the hub's one descriptor, and
calls `Hub.turn` when that is readable, when a timer is due, and when a coroutine has
become ready meanwhile. Between two turns, main is that loop and its tasks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import Final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.hub import Hub
from umbel._kernel.timers import Timer, Timers
from umbel.aio.guest import FORGOTTEN, Guest
from umbel.errors import NotSupportedError

#: With a poller that has no descriptor: ms between two looks.
LOOK: Final = 5
#: Calls in a call in which a loop's future tells who waits for it.
CALLS_TO_TELL: Final = 5
#: A deadline that no timer reaches.
NEVER: Final = 1 << 62


class _Queue(deque[Coroutine]):
    """The ready queue of a hub that has a host, or has had one.

    A guest is never in it: its task goes on by its loop. That holds also while there is
    no host, as when a loop that ran in a task of another one has just ended.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host: Host | None = host
        self._hub = host.hub
        self._main = host.hub.main

    def append(self, coroutine: Coroutine) -> None:
        """Queue it; wake the task, if it is a guest; see to it that a turn comes."""
        if isinstance(coroutine, Guest):
            sleep = coroutine.sleep
            if sleep is None:
                coroutine.times_due += 1
            elif not sleep.done():  # done: its task was canceled
                self._wake_loop()
                if not self._hub.is_turning:
                    # Or the future, at the limit of recursion, would be done and tell
                    # nobody.
                    _require_room(CALLS_TO_TELL)
                try:
                    sleep.set_result(None)
                except RecursionError:
                    raise
                except RuntimeError:
                    self._stand_in(coroutine)
            return
        # What may fail comes first: then it is in no queue, and who wakes it is told.
        if (
            self.host is not None
            and not self._hub.is_turning
            and coroutine is not self._main
        ):
            self.host.poke()
            self._wake_loop()
        deque.append(self, coroutine)

    def _wake_loop(self) -> None:
        # We may be a signal's handler, and the loop asleep.
        if self.host is not None and not self._hub.is_turning:
            self.host.wake_loop()

    def _stand_in(self, guest: Guest) -> None:
        # Its loop was closed, and it never goes on: others must not wait for it.
        guest.sleep = FORGOTTEN
        self._hub.evictions.stand_in(guest)

    def remove(self, coroutine: Coroutine) -> None:
        """Take it out again."""
        if isinstance(coroutine, Guest):
            coroutine.times_due = max(0, coroutine.times_due - 1)
        else:
            super().remove(coroutine)


def _require_room(calls: int) -> None:
    """RecursionError if so many calls, one within the other, are too many."""
    if calls:
        _require_room(calls - 1)


class _Timers(Timers[Coroutine]):
    """The timers of a hub that has a host, which is told of the soonest."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def add(self, when: int, item: Coroutine) -> Timer[Coroutine]:
        """As `Timers.add`."""
        timer = super().add(when, item)
        # Last: a host whose loop has ended leaves, and the hub takes this along.
        if when < self._host.alarm_at:
            try:
                self._host.ring_at(when)
            except BaseException:
                timer.item = None  # as `cancel`, which might fail likewise
                self._canceled += 1
                raise
        return timer


class Host:
    """A loop whose guest a hub is: its turns and alarms.

    Attributes:
        hub: the guest.
        descriptor: what the loop watches; -1: there is none, and the hub looks by
            itself now and then.
        alarm_at: when the next alarm is due, in ms; NEVER if there is none.
        checks_each_call: a canceled task must not even make a call that needn't wait.
    """

    checks_each_call: bool = False

    def __init__(self, hub: Hub) -> None:
        if hub.jump is not None:
            message = (
                "the clock of umbel.testing.run can't drive a loop, which has one of "
                "its own: run the loop without it"
            )
            raise RuntimeError(message)
        self.hub = hub
        try:
            self.descriptor = hub.fileno()
        except NotSupportedError:
            self.descriptor = -1
        self.alarm_at = NEVER
        self._is_poked = False
        self._own_timers = hub.timers
        before = hub.ready
        hub.ready = self._queue = _Queue(self)
        # Not a moment earlier, lest what a signal's handler makes ready is left behind.
        self._queue.extendleft(reversed(before))
        hub.timers = _Timers(self)
        hub.timers.take_over(self._own_timers)
        hub.host = self
        hub.hold_back()
        hub.must_ask = self.checks_each_call

    def leave_if_over(self) -> None:
        """Leave, if the loop has ended for good."""
        if self.is_over():
            self.leave()

    def leave(self) -> None:
        """Let the hub be on its own again. A second call has no effect."""
        hub = self.hub
        if hub.host is self:
            hub.leave_host()
            self._queue.host = None
            self._own_timers.take_over(hub.timers)
            hub.timers = self._own_timers

    # For the loop's callbacks.

    def turn(self) -> None:
        """Let the hub run what it can; then see when it must again."""
        self._is_poked = False
        try:
            must_go_on = self.hub.turn() == 0
        except BaseException:
            self.poke()  # a coroutine's Ctrl-C ends the loop; if it doesn't, go on
            raise
        if must_go_on:
            self.poke()

    def ring(self) -> None:
        """Let the hub do what is due, and set the next alarm."""
        self.alarm_at = NEVER
        try:
            self.turn()
        finally:
            self.set_alarm()

    def set_alarm(self) -> None:
        """Have it rung when the soonest timer is due, unless it is rung before that."""
        soonest = self.hub.timers.soonest()
        if soonest < 0:
            soonest = NEVER
        if self.descriptor < 0:
            soonest = min(soonest, self.hub.clock() + LOOK)
        # One that is canceled rings all the same, once: that costs less than to look.
        if soonest < self.alarm_at:
            self.ring_at(soonest)

    def poke(self) -> None:
        """Have a turn come soon."""
        if not self._is_poked:
            self.call_turn_soon()
            self._is_poked = True  # not if that failed: nobody would poke again

    def ring_at(self, when: int) -> None:
        """Have a turn come at *when*, in ms, at the latest."""
        was, self.alarm_at = self.alarm_at, when
        try:
            self.call_ring_at(when)
        except BaseException:
            self.alarm_at = was  # or no later deadline would ever ring
            raise

    # What the loop must be able to do.

    @abstractmethod
    def is_running(self) -> bool:
        """Tell whether this very loop is the one that runs in this thread now."""

    @abstractmethod
    def is_over(self) -> bool:
        """Tell whether the loop has ended for good."""

    @abstractmethod
    def call_turn_soon(self) -> None:
        """Call `turn` in the loop's next round."""

    def wake_loop(self) -> None:
        """Let the loop see what was made ready, if it sleeps and would not."""

    @abstractmethod
    def call_ring_at(self, when: int) -> None:
        """Call `ring` at *when*; replaces an earlier order."""
