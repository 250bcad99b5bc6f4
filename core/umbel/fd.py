"""Waiting: for descriptors, and for each other.

`fdin`, `fdout` and `fdclean` are libdill's. `Readiness` and `WaitQueue` are what
transports wait with; the built-in ones use nothing else.
"""

from __future__ import annotations

import errno
import os
import select
from collections import OrderedDict
from functools import partial
from typing import Final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel._kernel.hub import Hub
from umbel._kernel.poller import READABLE, WRITABLE
from umbel._kernel.watch import Watch
from umbel.deadline import FOREVER
from umbel.errors import (
    EXHAUSTED,
    BadHandleError,
    BusyError,
    DeadlineError,
    require_deadline,
)

#: Watches by their descriptor that fdin and fdout made, for the time of their waiting.
_lent: Final[dict[int, dict[Watch, None]]] = {}
#: What to do about a descriptor that somebody waits for.
_AWAITED: Final = (
    "another task waits for that descriptor: let one task wait for it, or cancel it "
    "first"
)


class Readiness:
    """Waits until a descriptor is ready, from any coroutine of any thread.

    It waits for edges: try the system call first, and wait only after EAGAIN, or after
    a short read if nothing can be left behind it. A wait may end early for no reason:
    then try again, and wait again. The descriptor stays the caller's; call `forget`
    before you close it.
    """

    __slots__ = ("_elsewhere", "fd", "home", "is_drained", "must_yield")

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        #: Nothing can be there before the next edge. The user's, for the user's use;
        #: false again after each wait for something to receive.
        self.is_drained: bool = False
        #: Something may be there still: the next `wait_in` only lets others run. The
        #: user's, for who must not go on trying for ever.
        self.must_yield: bool = False
        self.home: Watch | None = None
        #: Hubs of further threads that have used it; None as long as there are none.
        self._elsewhere: list[Watch] | None = None

    def wait_in(self, deadline: int) -> None:
        """Return once there may be something to receive.

        Raises:
            DeadlineError: ETIMEDOUT. Also BusyError, Canceled, BadHandleError.
        """
        hub = current_hub()
        watch = self.home
        if watch is None or watch.hub is not hub:
            watch = self.watch_in(hub)
        if self.must_yield:
            self.must_yield = False
            hub.yield_now()
            if 0 <= deadline <= hub.clock():
                raise DeadlineError
        else:
            watch.wait_in(deadline)
        self.is_drained = False

    def wait_out(self, deadline: int) -> None:
        """Return once there may be room to send.

        Raises:
            DeadlineError: ETIMEDOUT. Also BusyError, Canceled, BadHandleError.
        """
        hub = current_hub()
        watch = self.home
        if watch is None or watch.hub is not hub:
            watch = self.watch_in(hub)
        watch.wait_out(deadline)

    def forget(self) -> None:
        """Stop watching. May be called again, and from any thread."""
        fd, self.fd = self.fd, -1
        if self.home is None and fd not in _lent:
            return
        home, elsewhere = self.home, self._elsewhere
        watches = [*self.watches(), *_lent.get(fd, ())]
        self.home = self._elsewhere = None
        try:
            for watch in watches:
                watch.hub.watches.forget(watch)
                if watch.reader is not None or watch.writer is not None:
                    watch.hub.reach(partial(_disappoint, watch))
        except EXHAUSTED:
            # Or what comes under this number would have a watch that hears of nothing.
            self.fd, self.home, self._elsewhere = fd, home, elsewhere
            raise

    def watches(self) -> list[Watch]:
        """Give its watches, of all threads; for core, as `watch_in`."""
        home = self.home
        return [*(() if home is None else (home,)), *(self._elsewhere or ())]

    def watch_in(self, hub: Hub) -> Watch:
        """Give its watch in *hub*, made on first use; for core, not for transports."""
        if self.fd < 0:
            raise BadHandleError
        if self.home is not None and self.home.hub is hub:
            return self.home
        for watch in self._elsewhere or ():
            if watch.hub is hub:
                return watch
        found = hub.watches.watch(self.fd)
        if self.fd in _lent:  # no longer fdin's, which may wait there just now
            _lent[self.fd].pop(found, None)
        if self.home is None or self.home.hub.is_abandoned:
            self.home = found
        else:
            while True:
                known = self._elsewhere
                others = [w for w in known or () if not w.hub.is_abandoned]
                if self._elsewhere is known:  # else another thread has added its own
                    self._elsewhere = [*others, found]
                    break
        return found


def _disappoint(watch: Watch) -> None:
    """Raise EBADF in who waits there though it uses no handle: in fdin or fdout."""
    for waiter in (watch.reader, watch.writer):
        if waiter is not None:
            error = BadHandleError("the descriptor was closed meanwhile")
            watch.hub.unpark(waiter, error)


class WaitQueue:
    """Coroutines, of any thread, that wait for others to wake them.

    It remembers nothing: look at your condition, wait, and look again. Nothing may
    block between looking and waiting, so hold no lock; and since another thread may
    wake you in between, call `ticket` before you look.
    """

    __slots__ = ("_generation", "_waiting")

    def __init__(self) -> None:
        #: Each under a key of its own: a signal's handler may wait amid a wait.
        self._waiting: OrderedDict[object, Coroutine] = OrderedDict()
        self._generation = 0

    def ticket(self) -> int:
        """Give what `wait` needs to see that a wake-up came in between."""
        return self._generation

    def wait(self, ticket: int, deadline: int) -> None:
        """Return at the first wake-up since *ticket* was taken; seldom, sooner.

        Raises:
            DeadlineError: ETIMEDOUT. Also Canceled, BadHandleError.
        """
        me = current_hub().current
        key = object()
        self._waiting[key] = me
        try:
            if self._generation == ticket:
                me.hub.park(deadline)
        except BaseException:
            if self._waiting.pop(key, None) is None:
                self.wake_one()  # woken, and not to look: the next one does
            raise
        self._waiting.pop(key, None)

    def wake_all(self) -> None:
        """Let all who wait look again. From any thread."""
        self._generation += 1
        while (coroutine := self._take()) is not None:
            unpark(coroutine)

    def wake_one(self) -> None:
        """Let the first who waits look again, where only one could go on.

        From any thread. Call it again if that one can't use what there is.
        """
        self._generation += 1
        while (coroutine := self._take()) is not None:
            unpark(coroutine)
            if not coroutine.is_lost:
                return

    def _take(self) -> Coroutine | None:
        try:
            return self._waiting.popitem(last=False)[1]
        except KeyError:
            return None


def unpark(coroutine: Coroutine) -> None:
    """Make *coroutine* ready, from any thread."""
    coroutine.hub.reach(partial(coroutine.hub.unpark, coroutine))


def fdin(fd: int, deadline: int = FOREVER) -> None:
    """Wait until *fd* is readable, or hung up.

    Args:
        fd: any descriptor that poll(2) takes. It stays yours.
        deadline: see `umbel.deadline`.

    Raises:
        OSError: EBADF, *fd* is not open.
        BusyError: EBUSY, another coroutine waits for the same.
        DeadlineError: ETIMEDOUT, it did not become readable in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill fdin(3). Differs: nothing stays registered after it, so that a
        descriptor may be closed without `fdclean`.
    """
    _wait(fd, select.POLLIN, READABLE, deadline)


def fdout(fd: int, deadline: int = FOREVER) -> None:
    """Wait until *fd* is writable, or hung up.

    Args:
        fd: any descriptor that poll(2) takes. It stays yours.
        deadline: see `umbel.deadline`.

    Raises:
        OSError: EBADF, *fd* is not open.
        BusyError: EBUSY, another coroutine waits for the same.
        DeadlineError: ETIMEDOUT, it did not become writable in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill fdout(3). Differs: as `fdin`.
    """
    _wait(fd, select.POLLOUT, WRITABLE, deadline)


def _wait(fd: int, direction: int, wanted: int, deadline: int) -> None:
    require_deadline(deadline)
    hub = checkpoint().hub
    watch = hub.watches.find(fd)
    if watch is not None:
        waiter = watch.reader if direction == select.POLLIN else watch.writer
        if waiter is not None and waiter.is_parked:
            raise BusyError(_AWAITED)
    while not _is_ready(fd, direction, wanted):
        if deadline >= 0 and deadline <= hub.clock():
            raise DeadlineError
        _wait_for_edge(hub, fd, direction, wanted, deadline)


def require_descriptor(fd: object) -> None:
    """EBADF if *fd* is a number that no descriptor can have; TypeError if no number."""
    if not isinstance(fd, int):
        message = f"a descriptor is an int, not {fd!r}"
        raise TypeError(message)
    if not 0 <= fd < 1 << 31:
        raise OSError(errno.EBADF, f"{fd} is no descriptor")


def close_if_open(fd: int) -> None:
    """Close a descriptor, unless what took it over has closed it already."""
    try:
        os.close(fd)
    except OSError:
        pass


def is_open(fd: object) -> bool:
    """Tell whether *fd* is an open descriptor."""
    if not isinstance(fd, int):
        return False
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True


def _is_ready(fd: int, direction: int, wanted: int) -> bool:
    require_descriptor(fd)
    look = select.poll()
    look.register(fd, direction)
    for _, events in look.poll(0):
        if events & select.POLLNVAL:
            what = "is not open, or is one of O_PATH, which is never ready"
            raise OSError(errno.EBADF, f"descriptor {fd} {what}")
        return bool(events & (wanted | select.POLLHUP | select.POLLERR))
    return False


def _wait_for_edge(
    hub: Hub, fd: int, direction: int, wanted: int, deadline: int
) -> None:
    watch = hub.watches.find(fd)
    if watch is None:
        watch = hub.watches.watch(fd)
        _lent.setdefault(fd, {})[watch] = None
    try:
        if direction == select.POLLIN:
            watch.readable = False
        else:
            watch.writable = False
        # Once more: a signal's handler may have had the edge, or closed it, since.
        if not _is_ready(fd, direction, wanted):
            wait = watch.wait_in if direction == select.POLLIN else watch.wait_out
            wait(deadline)
    except DeadlineError:
        pass  # one more look, since the deadline is what poll(2) then tells
    finally:
        if not _is_lent(watch):
            # A stream's, whose next wait may need the edge that we have had.
            watch.readable = watch.writable = True
        elif watch.reader is None and watch.writer is None:
            hub.watches.forget(watch)  # else the other direction is waited for
            _lent[fd].pop(watch, None)


def _is_lent(watch: Watch) -> bool:
    return watch in _lent.get(watch.fd, ())


def fdclean(fd: int) -> None:
    """Forget *fd*, before you close it.

    Args:
        fd: any descriptor.

    Raises:
        BusyError: EBUSY, a coroutine waits for it.

    Source:
        libdill fdclean(3). `fdin` and `fdout` leave nothing behind, so all that it has
        to do is to refuse while somebody still waits.
    """
    watch = current_hub().watches.find(fd)
    if watch is None:
        return
    for waiter in (watch.reader, watch.writer):
        if waiter is not None and waiter.is_parked:
            raise BusyError(_AWAITED)
    if _is_lent(watch):  # else it is a stream's, which forgets it by itself
        current_hub().watches.forget(watch)
