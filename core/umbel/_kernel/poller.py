"""Readiness from the kernel: epoll, kqueue, or poll, behind one interface.

A poller reports events as poll(2) bits. With an edge-triggered one a descriptor
is added once for both directions and reports each change once. The portable
`PollPoller` is level-triggered: it reports only directions that were armed, and
disarms them as it reports, so that its user sees the same thing.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from _thread import RLock
from typing import TYPE_CHECKING, Final, Protocol

from umbel.errors import NotSupportedError, system_error

IN: Final = 0x1
OUT: Final = 0x4
ERR: Final = 0x8
HUP: Final = 0x10
RDHUP: Final = 0x2000
#: Whoever waits to receive has something to learn: data, or the end.
READABLE: Final = IN | ERR | HUP | RDHUP
WRITABLE: Final = OUT | ERR | HUP
#: Above it something ended, and no further edge need come: never wait for one again.
#: ERR alone may be a message in a socket's error queue.
LIVE: Final = 0xF

#: Events taken per call: enough to spread its cost, few enough to stay fair.
BATCH: Final = 128


if TYPE_CHECKING:  # a Protocol takes long to make, and nobody asks for it

    class Poller(Protocol):
        """What a hub needs of one."""

        needs_arming: bool

        def add(self, fd: int) -> None:
            """Watch *fd* in both directions. OSError: EPERM if it can't be watched."""

        def remove(self, fd: int) -> None:
            """Forget *fd*, also one that has been closed meanwhile."""

        def arm(self, fd: int, direction: int) -> None:
            """Say that someone waits for *direction* (IN or OUT), if `needs_arming`."""

        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            """Wait *timeout* seconds at most, -1 for ever; (fd, events) pairs.

            Of *most* descriptors at most, where the kernel can be told.
            """

        def fileno(self) -> int:
            """Give the descriptor that is readable while events are queued."""

        def close(self) -> None:
            """Free what the poller itself holds."""


class EpollPoller:
    """Linux: one epoll_ctl for the life of a descriptor, edge-triggered."""

    needs_arming = False

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._mask = (
            select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
        )
        #: Its method itself: a call less each time.
        self.poll = self._epoll.poll

    def add(self, fd: int) -> None:
        self._epoll.register(fd, self._mask)

    def remove(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # ENOENT, EBADF: closed before, which made the kernel forget it
        except ValueError:
            pass  # the poller itself is closed: its thread ends just now

    def arm(self, fd: int, direction: int) -> None:
        pass

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()


class PollPoller:
    """Anywhere: level-triggered, each direction armed anew for each wait."""

    needs_arming = True

    def __init__(self) -> None:
        self._poll = select.poll()
        self._armed: dict[int, int] = {}
        self._owed: list[tuple[int, int]] = []
        self._is_asking = False
        # Another thread may `remove` meanwhile; a signal's handler may do anything.
        self._lock = RLock()

    def add(self, fd: int) -> None:
        os.fstat(fd)  # EBADF here, as epoll has it, not in a later poll

    def remove(self, fd: int) -> None:
        with self._lock:
            if self._armed.pop(fd, 0):
                try:
                    self._poll.unregister(fd)
                except KeyError:
                    pass  # a signal's handler has removed it, amid an `arm`

    def arm(self, fd: int, direction: int) -> None:
        with self._lock:
            self._set(fd, self._armed.get(fd, 0) | direction)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        found = self._owed
        if not found:
            found = self._ask(None if timeout < 0 else -int(-timeout * 1000 // 1))
        self._owed = found  # until all are disarmed, should a call fail
        for fd, events in found:
            reported = (IN if events & READABLE else 0) | (
                OUT if events & WRITABLE else 0
            )
            with self._lock:
                self._set(fd, self._armed.get(fd, 0) & ~reported)
        self._owed = []
        return found

    def _ask(self, timeout: int | None) -> list[tuple[int, int]]:
        poll = self._poll
        if self._is_asking:
            # We are a signal's handler, and Python's object can't be asked twice.
            poll = select.poll()
            for fd, armed in tuple(self._armed.items()):
                poll.register(fd, armed)
        was_asking, self._is_asking = self._is_asking, True
        try:
            return poll.poll(timeout)
        finally:
            self._is_asking = was_asking

    def _set(self, fd: int, armed: int) -> None:
        # A descriptor with nothing armed must go: poll reports its hang-up always.
        if armed:
            self._poll.register(fd, armed)
            self._armed[fd] = armed
        else:
            self.remove(fd)

    def fileno(self) -> int:
        message = "UMBEL_POLLER=poll has no descriptor for a host loop to watch"
        raise NotSupportedError(message)

    def close(self) -> None:
        pass


if sys.platform != "linux":  # pragma: no cover - macOS and the BSDs

    class KqueuePoller:
        """macOS and the BSDs: both filters added once, EV_CLEAR makes them edges."""

        needs_arming = False

        def __init__(self) -> None:
            self._kqueue = select.kqueue()

        def add(self, fd: int) -> None:
            self._change(fd, select.KQ_EV_ADD | select.KQ_EV_CLEAR)

        def remove(self, fd: int) -> None:
            try:
                self._change(fd, select.KQ_EV_DELETE)
            except OSError:
                pass

        def _change(self, fd: int, flags: int) -> None:
            both = (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE)
            self._kqueue.control([select.kevent(fd, f, flags) for f in both], 0, 0)

        def arm(self, fd: int, direction: int) -> None:
            pass

        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            found = self._kqueue.control(None, most, None if timeout < 0 else timeout)
            return [(event.ident, self._events(event)) for event in found]

        def _events(self, event: select.kevent) -> int:
            ended = event.flags & select.KQ_EV_EOF
            if event.filter == select.KQ_FILTER_READ:
                return IN | RDHUP if ended else IN
            return OUT | HUP if ended else OUT

        def fileno(self) -> int:
            return self._kqueue.fileno()

        def close(self) -> None:
            self._kqueue.close()


def make_poller() -> Poller:
    """Make the best poller there is, or the one that UMBEL_POLLER names."""
    wanted = os.environ.get("UMBEL_POLLER", "")
    if wanted == "poll":
        return PollPoller()
    if wanted not in ("", "epoll", "kqueue"):
        message = f"UMBEL_POLLER={wanted}: give poll, or leave it out"
        raise system_error(errno.EINVAL, message)
    if hasattr(select, "epoll"):
        return EpollPoller()
    if sys.platform != "linux" and hasattr(select, "kqueue"):  # pragma: no cover
        return KqueuePoller()
    return PollPoller()  # pragma: no cover - neither exists
