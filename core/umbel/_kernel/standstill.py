"""At exit: no coroutine of another thread runs any more.

Python ends a daemon thread that wakes while the interpreter ends by unwinding its
stack. If that is a coroutine's, what lies behind it belongs to others, and the process
crashes (SIGSEGV). So none may wake: each thread is made to sleep, in a coroutine of our
own if it lets others run, and otherwise where it is.
"""

from __future__ import annotations

from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import all_hubs, local

if TYPE_CHECKING:
    from typing import Self

    from umbel._kernel.hub import Hub

#: Seconds that the program's end waits for the others, each time that it asks them.
PATIENCE: Final = 0.2
#: Seconds that they sleep: longer than what is left to do, but one may be joined yet.
STANDSTILL: Final = 5.0

_moving: Final[set[Hub]] = set()


def stop_others() -> None:
    """Let no other thread's coroutines run any more; at exit, before all is closed."""
    mine = local.__dict__.get("hub")
    _moving.update(hub for hub in all_hubs() if hub is not mine)
    for hub in tuple(_moving):
        hub.post(partial(_bring_to_standstill, hub))
    if not _has_come_to_standstill():
        _halt_where_they_are()
        _has_come_to_standstill()  # or it sleeps, or is in C code, and won't wake soon


def _has_come_to_standstill() -> bool:
    give_up = monotonic() + PATIENCE
    while _moving and monotonic() < give_up:
        sleep(0.001)
    return not _moving


def _bring_to_standstill(hub: Hub) -> None:
    if hub.is_abandoned:
        _moving.discard(hub)  # its thread has ended meanwhile
    else:
        hub.start_soon(_Standstill())


def _stand_still(hub: Hub | None) -> None:
    if hub is not None:
        _moving.discard(hub)
    sleep(STANDSTILL)


class _Standstill(Coroutine):
    """Keeps its thread from running anything else."""

    def run(self) -> None:
        """As `Coroutine.run`."""
        _stand_still(self.hub)


class _Halt(BaseException):
    """Raised in a thread by another one. To make it is what stops that thread."""

    def __new__(cls) -> Self:
        """Return too late for anybody to deal with it."""
        _stand_still(local.__dict__.get("hub"))
        return super().__new__(cls)


def _halt_where_they_are() -> None:
    """Stop threads whose coroutines run on and on, in whatever code that is."""
    try:
        from ctypes import c_ulong, py_object, pythonapi  # slow; not everywhere
    except ImportError:
        return
    for hub in tuple(_moving):
        if hub.is_abandoned or hub.current is hub.main:
            continue  # a thread's own stack can be unwound, as any other thread's
        pythonapi.PyThreadState_SetAsyncExc(c_ulong(hub.thread), py_object(_Halt))
