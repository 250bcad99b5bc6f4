"""The carriers of a hub: each runs one coroutine after another."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from umbel._kernel.switch import Carrier, current_carrier, make_carrier, unwind

if TYPE_CHECKING:
    from umbel._kernel.hub import Hub

#: Idle carriers kept for reuse; more are left to the garbage collector.
IDLE_CARRIERS: Final = 1024


def end_child(error: BaseException | None) -> NoReturn:
    """End a forked child that ran off the end of its coroutine.

    As Python would, but for what is registered with atexit: the rest of the program is
    the parent's, and so is its stack, below us.

    Args:
        error: what escaped from the coroutine.
    """
    status = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit):
            code = error.code or 0
            if isinstance(code, int):
                status = code & 0xFF
            else:
                print(code, file=sys.stderr)
        elif error is not None:
            import traceback

            traceback.print_exception(error)
    except BaseException:  # noqa: BLE001, S110 - it would go on in the parent's program
        pass
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - it is closed, or None
            pass
    os._exit(status)


class Carriers:
    """Makes them, and keeps those that have nothing to run.

    A carrier's depth of recursion begins where it was first switched to. So all begin
    in one of their own, the cradle, however deep they are who start coroutines.

    Attributes:
        idle: those that wait for a coroutine.
        is_making: one is on its way. Whoever calls in this thread then is a signal's
            handler, which must not switch to any, nor make one.
    """

    __slots__ = (
        "_cradle",
        "_hub",
        "_maker",
        "_newborn",
        "_parent",
        "idle",
        "is_making",
    )

    def __init__(self, hub: Hub, parent: Carrier) -> None:
        self._hub = hub
        self._parent = parent
        self.idle: list[Carrier] = []
        self.is_making = False
        #: What `make` and the cradle hand each other.
        self._newborn = self._maker = parent
        self._cradle = make_carrier(self._begin_all, parent)
        self._cradle.switch()

    def _begin_all(self) -> None:
        self._maker.switch()
        while True:
            self._newborn.switch()

    def make(self) -> Carrier:
        """Make one, which runs the hub's current coroutine when it is switched to."""
        self.is_making = True
        try:
            self._newborn = carrier = make_carrier(self._carry, self._parent)
            self._maker = current_carrier()
            self._cradle.switch()
        finally:
            self.is_making = False
        return carrier

    def _carry(self) -> None:
        self._maker.switch()
        # No other locals: they would keep a finished coroutine's objects alive.
        hub, idle = self._hub, self.idle
        while True:
            hub.current.run()
            if hub.is_abandoned:
                end_child(None)
            if len(idle) >= IDLE_CARRIERS:
                break
            # As inherit_context: or it would keep alive what the variables hold.
            hub.current.carrier.gr_context = None
            hub.is_switching = True  # a signal's handler would lose who is taken out
            target = hub.ready.popleft() if hub.ready else hub.next_ready()
            # From here on no call, after which a signal's handler could run.
            hub.is_switching = False
            idle += (hub.current.carrier,)
            hub.current = target
            del target
            hub.current.carrier.switch()
        carrier = hub.current.carrier
        hub.is_switching = True
        hub.current = hub.next_ready()
        hub.is_switching = False
        # An ending carrier returns to its parent: let that be whose turn it is.
        carrier.parent = hub.current.carrier

    def drop(self) -> None:
        """Unwind them all. In their thread: elsewhere they could never be freed."""
        # To let go of them is not enough: an error that somebody keeps, or that the
        # garbage collector has yet to find, knows by its frames whom they carried.
        while self.idle:
            unwind(self.idle.pop())
        unwind(self._cradle)
        self._cradle = self._newborn = self._maker = self._parent
