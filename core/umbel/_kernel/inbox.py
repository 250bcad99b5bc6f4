"""What other threads, and signals' handlers, want done in a hub's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from umbel._kernel.doorbell import Doorbell
from umbel.errors import EXHAUSTED

if TYPE_CHECKING:
    from umbel._kernel.hub import Hub
    from umbel._kernel.watch import Watch


class Inbox:
    """Calls that are to run in a hub's thread, and the doorbell that wakes it for them.

    Attributes:
        calls: those that have yet to run; any thread may append one.
        ringing: the watch of the doorbell. While it is readable the bell has been
            rung, and must be answered lest the next ring go unheard.
    """

    __slots__ = ("_doorbell", "_hub", "calls", "hears_signals", "ringing")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.calls: deque[Callable[[], None]] = deque()
        self._doorbell = Doorbell()
        #: It is meant to: a loop that has been here may have ended that.
        self.hears_signals = False
        self.ringing = self._watch(self._doorbell)

    def _watch(self, doorbell: Doorbell) -> Watch:
        try:
            watch = self._hub.watches.watch(doorbell.fd)
            if self._hub.needs_arming:
                watch.arm_in()
        except BaseException:
            doorbell.close()  # as ENOSPC: this user watches too many descriptors
            raise
        return watch

    def ring(self) -> None:
        """Wake the hub. From any thread, also after `close`."""
        self._doorbell.ring()

    def answer(self) -> None:
        """Run what was put in, and let the doorbell be rung again."""
        self.ringing.readable = False
        self._doorbell.silence()
        if self._hub.needs_arming:
            self.ringing.arm_in()
        self.run_all()

    def run_all(self) -> None:
        """Run what was put in."""
        calls = self.calls
        while calls:
            try:
                call = calls.popleft()
            except IndexError:
                return  # of an ended thread: another one took the last
            try:
                call()
            except EXHAUSTED:
                calls.appendleft(call)  # whoever polls next is less deep
                raise

    def hear_signals(self) -> None:
        """Ring at each signal, whichever thread it comes to. In the main thread."""
        old, was_ringing = self._doorbell, self.ringing
        if self.hears_signals:
            old.hear_signals()
            return
        doorbell = Doorbell(hears_signals=True)
        # Both, or none: a doorbell that is not watched would wake nobody.
        self.ringing = self._watch(doorbell)
        self._doorbell = doorbell
        self.hears_signals = True
        self._hub.watches.forget(was_ringing)
        old.close()
        self._doorbell.ring()  # for who was about to ring the other one

    @property
    def is_inherited(self) -> bool:
        """Whether another process has made it, which this one was forked from."""
        return self._doorbell.is_inherited

    def close(self) -> None:
        """Free the doorbell; what is put in later is for who puts it in to run."""
        self._doorbell.close()
