"""The descriptors that a hub watches, and who is told what a poll says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel._kernel.poller import IN, LIVE, OUT
from umbel._kernel.watch import Watch
from umbel.errors import EXHAUSTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umbel._kernel.hub import Hub


class Watches:
    """One hub's, by descriptor."""

    __slots__ = ("_by_fd", "_hub", "_poller")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._poller = hub.poller
        self._by_fd: dict[int, Watch] = {}

    def __len__(self) -> int:
        return len(self._by_fd)

    def watch(self, fd: int) -> Watch:
        """Watch *fd* until `forget`. OSError: EBADF, EPERM (a regular file)."""
        watch = self._by_fd.get(fd)
        if watch is None:
            # Known before the poller tells of it, which may be to a signal's handler.
            watch = self._by_fd[fd] = Watch(self._hub, fd)
            try:
                self._poller.add(fd)
            except BaseException:
                self._by_fd.pop(fd, None)  # such a handler may have closed it
                raise
        return watch

    def find(self, fd: int) -> Watch | None:
        """Give the watch of *fd* if there is one."""
        return self._by_fd.get(fd)

    def forget(self, watch: Watch) -> None:
        """Stop watching, before the descriptor is closed: its number may come back.

        May be called from another thread.
        """
        if self._by_fd.get(watch.fd) is watch:
            del self._by_fd[watch.fd]
            if not self._hub.is_abandoned:
                try:
                    self._poller.remove(watch.fd)
                except EXHAUSTED:
                    self._by_fd[watch.fd] = watch  # to be forgotten less deep down
                    raise
            watch.readable = watch.writable = True  # who is about to wait looks again
            if self._hub.needs_arming:
                self._hub.wake()  # its poll(2), if it sleeps in one, holds the socket

    def dispatch(  # noqa: C901, PLR0912, PLR0915 - the data path, in few calls
        self, events: Sequence[tuple[int, int]]
    ) -> None:
        """Tell who waits, and remember what nobody waits for."""
        watches = self._by_fd
        hub = self._hub
        ready = hub.ready
        for fd, mask in events:
            try:
                watch = watches[fd]
            except KeyError:
                continue  # forgotten by what an earlier event brought about
            if mask > LIVE:
                watch.has_ended = watch.is_news = True
            # Compared, which is faster than masked: most are IN, OUT, or both. And what
            # is skipped then is short: Python compares more slowly before a long jump.
            if mask != OUT:
                waiter = watch.reader
                if waiter is not None and waiter.is_parked:
                    catch = watch.catch
                    if catch is not None and watch.caught is None:
                        try:
                            watch.caught = catch(watch.most_caught)
                        except (OSError, MemoryError) as error:
                            waiter.outcome = error
                        except Exception:  # noqa: BLE001, S110 - it tries by itself
                            pass
                        except BaseException as error:  # noqa: BLE001 - as in collect
                            hub.interrupt(hub.main, error)
                    # Queued last: after that call a signal's handler may let it run.
                    waiter.is_parked = False
                    watch.reader = None
                    try:
                        ready.append(waiter)
                    except EXHAUSTED:
                        waiter.is_parked = True
                        watch.reader = waiter
                        raise
                else:
                    watch.readable = True
                    # As in unpark; mostly there is none.
                    if waiter is not None and waiter is hub.current:
                        waiter.must_look = True
            if mask != IN:
                waiter = watch.writer
                if waiter is not None and waiter.is_parked:
                    waiter.is_parked = False
                    watch.writer = None
                    try:
                        ready.append(waiter)
                    except EXHAUSTED:
                        waiter.is_parked = True
                        watch.writer = waiter
                        raise
                else:
                    watch.writable = True
                    # As in unpark; mostly there is none.
                    if waiter is not None and waiter is hub.current:
                        waiter.must_look = True
