"""Who waits for one descriptor, and what has come that nobody waited for."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from umbel._kernel.poller import IN, OUT, READABLE
from umbel.errors import BusyError

if TYPE_CHECKING:
    from umbel._kernel.coroutine import Coroutine
    from umbel._kernel.hub import Hub

#: What a hub receives at most for who waits; where more is usual, it is left to them.
MOST_CAUGHT: Final = 4096


class Watch:
    """One descriptor in one hub's poller, and who waits for it in each direction.

    `readable` and `writable` remember an edge that nobody was waiting for.
    """

    __slots__ = (
        "catch",
        "caught",
        "fd",
        "guest",
        "has_ended",
        "hub",
        "is_news",
        "most_caught",
        "readable",
        "reader",
        "writable",
        "writer",
    )

    def __init__(self, hub: Hub, fd: int) -> None:
        self.hub = hub
        self.fd = fd
        self.reader: Coroutine | None = None
        self.writer: Coroutine | None = None
        self.readable = False
        self.writable = False
        self.has_ended = self.is_news = False
        #: What the hub receives with for the reader that waits, who sets it; how much
        #: at most; and what that gave. So all that are ready receive first, and then
        #: all go on.
        self.catch: Callable[[int], bytes | None] | None = None
        self.most_caught = MOST_CAUGHT
        self.caught: bytes | None = None
        #: For `umbel.aio`: who receives in a task's name, made once.
        self.guest: Coroutine | None = None

    def require_no_reader(self) -> None:
        """EBUSY if somebody waits; one that was interrupted has yet to leave."""
        if self.reader is not None and self.reader.is_parked:
            raise BusyError

    def require_no_writer(self) -> None:
        """As `require_no_reader`."""
        if self.writer is not None and self.writer.is_parked:
            raise BusyError

    def is_over(self) -> bool:
        """Tell whether there is something to receive still, now that it `has_ended`.

        A stream's end stays, but a FIFO, or a terminal, may be opened again: from the
        second time on it is looked at.
        """
        if self.is_news:
            self.is_news = False
            return True
        look = select.poll()
        look.register(self.fd, READABLE)
        self.has_ended = bool(look.poll(0))
        return self.has_ended

    def take_caught(self) -> bytes | None:
        """Give what the hub has received for who waited, who has gone on now."""
        self.catch = None
        self.most_caught = MOST_CAUGHT
        data, self.caught = self.caught, None
        return data

    def arm_in(self) -> None:
        """Say that someone waits to receive, if the hub `needs_arming`."""
        self.hub.poller.arm(self.fd, IN)

    def arm_out(self) -> None:
        """Say that someone waits to send, if the hub `needs_arming`."""
        self.hub.poller.arm(self.fd, OUT)

    def wait_in(self, deadline: int) -> None:
        """Return once there may be something to receive. Own thread only."""
        if self.readable or (self.has_ended and self.is_over()):
            self.readable = False
            return
        if self.reader is not None:
            self.require_no_reader()
        hub = self.hub
        if hub.needs_arming:
            self.arm_in()  # first: at the limit of recursion it may fail
        self.reader = me = hub.current
        try:
            if not self.readable:  # it may have come to a signal's handler just now
                hub.park(deadline)
        except BaseException:
            # Interrupted, or late, just as the edge came: the next one needs it.
            self.readable |= self.reader is not me
            raise
        finally:
            # Woken for another reason: the next edge is not for who waits elsewhere.
            if self.reader is me:
                self.reader = None

    def wait_out(self, deadline: int) -> None:
        """Return once there may be room to send. Own thread only."""
        if self.writable:
            self.writable = False
            return
        self.require_no_writer()
        hub = self.hub
        if hub.needs_arming:
            self.arm_out()
        self.writer = me = hub.current
        try:
            if not self.writable:  # as in wait_in
                hub.park(deadline)
        except BaseException:
            self.writable |= self.writer is not me  # as in wait_in
            raise
        finally:
            if self.writer is me:
                self.writer = None
