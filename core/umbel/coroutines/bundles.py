"""Bundles, and the coroutines that live in them.

Coroutines live in a bundle and end no later than it does: closing it cancels those that
still run and waits until each has stopped. A bundle keeps an exception that escapes
from a coroutine until somebody is told.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import ClassVar, Final, final

from umbel._kernel.carriers import end_child
from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel.coroutines.deadlocks import require_outside
from umbel.coroutines.member import Member
from umbel.coroutines.with_block import WithBlock
from umbel.deadline import FOREVER
from umbel.errors import BadHandleError, Canceled, system_error
from umbel.fd import unpark
from umbel.handle import Resource, claim, hclose, open_handles, place_of, warn_of_leak
from umbel.report import CloseReport

#: Meant for the program, not for whoever waits for a bundle.
PROGRAM_ENDS: Final = (KeyboardInterrupt, SystemExit)

#: Bundles in which something runs, though they have no handle any more.
UNLISTED: Final[set[Bundle]] = set()


def together(failures: list[BaseException]) -> BaseExceptionGroup[BaseException]:
    """Make the group of what has failed in a bundle."""
    return BaseExceptionGroup("coroutines of a bundle failed", failures)


@final
class Bundle(Resource):
    """The coroutines that run in it, in order of start, and what went wrong."""

    __slots__ = (
        "block",
        "entered_as",
        "failures",
        "holder",
        "hub",
        "is_closed",
        "is_forgotten",
        "is_shared",
        "is_stopping",
        "running",
        "seen_ended",
        "waiting",
    )

    noun: ClassVar[str] = "bundle"
    verbs: ClassVar[str] = "bundle_go, bundle_wait and hclose"

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        #: Of `Hub.ended`: nobody in `running` is lost who was there then.
        self.seen_ended = Hub.ended
        self.running: dict[Member, None] = {}
        self.failures: list[BaseException] = []
        self.is_closed = False
        #: What starts from now on is canceled as it starts.
        self.is_stopping = False
        self.block: WithBlock | None = None
        #: The number of the handle whose block that is: `hown` moves it out.
        self.entered_as = 0
        #: Who will not end before it, though it is in no block: a server.
        self.holder: Coroutine | None = None
        #: Nobody is left to be told.
        self.is_forgotten = False
        #: Coroutines of another thread than its own run in it, or have.
        self.is_shared = False
        self.waiting: list[Coroutine] = []

    def fail(self, coroutine: Member, error: BaseException) -> None:
        """Keep what escaped from *coroutine* for whoever asks."""
        if coroutine.hub.is_abandoned:
            end_child(error)  # nobody is left to be told
        if isinstance(error, PROGRAM_ENDS):
            coroutine.hub.interrupt(coroutine.hub.main, error)
            return
        self.failures.append(error)
        try:
            where = place_of(coroutine.started) or "another thread"
            error.add_note(f"in coroutine {coroutine.name}, started at {where}")
        except Exception:  # noqa: BLE001, S110 - it takes no notes, or has no name
            pass
        if self.is_forgotten:
            self.report_failures()
        if self.block is not None and self.block.owner not in self.waiting:
            self._interrupt(self.block, error, coroutine)

    def enter(self, block: WithBlock) -> None:
        """From now on failures interrupt *block*; so do those that are here already."""
        self.block = block
        self.entered_as = self.number
        if self.failures:
            self._interrupt(block, self.failures[0])

    def _interrupt(
        self, block: WithBlock, error: BaseException, failed: Coroutine | None = None
    ) -> None:
        """End *block*, and what runs, for the first failure that it is not told of."""
        if not block.has_ended and block.failure is None:
            self._cancel_running(failed)
            block.interrupt(error)

    def _cancel_running(self, but: Coroutine | None = None) -> None:
        self.is_stopping = True
        for coroutine in tuple(self.running):
            if coroutine is not but:
                hub = coroutine.hub
                hub.reach(partial(hub.interrupt, coroutine, Canceled()))

    def stops_still(self) -> bool:
        """Tell whether it `is_stopping` still, not moved out of its block meanwhile."""
        if self.block is not None and self.block.has_ended:
            self.is_stopping = self.is_closed
        return self.is_stopping

    def tell(self) -> None:
        """Wake the waiters, if there is news."""
        if not self.running and self.is_forgotten:
            UNLISTED.discard(self)
        if not self.running or self.failures:
            for waiter in tuple(self.waiting):  # one of another thread leaves at once
                unpark(waiter)

    def wait(self, deadline: int, *, until_failure: bool = False) -> None:
        """Return when nothing runs in it, or (*until_failure*) something failed."""
        if not self.running:
            return
        me = current_hub().current
        if not me.is_shielded:
            require_outside(self, me)
        # Before the look: what runs in another thread may end just after it.
        self.waiting.append(me)
        is_within = me in Hub.onlookers  # we are a signal's handler, in such a wait
        try:
            while self._is_running(me) and not (until_failure and self.failures):
                me.hub.park(deadline)
        finally:
            self.waiting.remove(me)
            if not is_within:
                Hub.onlookers.discard(me)

    def join(self, deadline: int) -> None:
        """Return when nothing runs in it; raise what escaped meanwhile."""
        block = self.block
        if block is None or block.owner is not current_hub().current:
            self.wait(deadline)
        else:
            self._wait_in_block(block, deadline)
        if self.is_closed:
            message = (
                "the bundle was closed meanwhile; who closes it is told what failed"
            )
            raise BadHandleError(message)
        self.raise_failures()

    def _wait_in_block(self, block: WithBlock, deadline: int) -> None:
        failure = block.listen()  # who waits is told
        try:
            self.wait(deadline)
        except BaseException:  # but not yet
            block.go_on()
            self.keep(failure)
            if self.failures:
                self._interrupt(block, self.failures[0])
            raise
        block.go_on()
        self.is_stopping = self.is_closed
        self.keep(failure)

    def keep(self, failure: BaseException | None) -> None:
        """Keep what stopped the block, for who is in it, if only others were told."""
        if failure is not None and not self.failures:
            self.failures.append(failure)

    def _is_running(self, me: Coroutine) -> bool:
        if self.is_shared or me.hub is not self.hub:
            # Before the look. Nobody else: each thread that ends wakes all onlookers.
            Hub.onlookers.add(me)
        if self.seen_ended != Hub.ended:
            self.seen_ended = Hub.ended
            for coroutine in tuple(self.running):
                if coroutine.is_lost:
                    self._lose(coroutine)
        return bool(self.running)

    def admit(self, coroutine: Member) -> None:
        """Let one begin that is of another thread, or comes late."""
        if coroutine.hub is not self.hub and not self.is_shared:
            self.is_shared = True
            for waiter in tuple(self.waiting):
                unpark(waiter)  # to be an onlooker from now on
        if self.is_stopping and self.stops_still():
            coroutine.pending = Canceled()

    def _lose(self, coroutine: Member) -> None:
        if not (self.is_stopping and self.stops_still()):
            message = f"coroutine {coroutine.name} never goes on: its thread has ended"
            self.failures.append(system_error(errno.ESRCH, message))
        self.running.pop(coroutine, None)

    def bound(self) -> list[Coroutine]:
        """Give who can't go on before all that runs in it has ended."""
        found = [waiter for waiter in self.waiting if waiter.is_shielded]
        if self.holder is not None:
            found.append(self.holder)
        block = self.block
        if block is not None:
            is_in_it = not block.has_ended and self.entered_as == self.number
            if is_in_it or block.owner in self.waiting:
                found.append(block.owner)
        return found

    def abort(self) -> None:
        """Cancel what runs, wait until all of it has stopped, raise failures."""
        me = current_hub().current
        if self.running:
            self._stop_from_outside(me)
        else:
            self._stop(me)
        if self.block is not None and self.block.owner is me:
            self.keep(self.block.end())  # who closes it is told
        if not me.is_shielded and isinstance(me.pending, PROGRAM_ENDS):
            self.report_failures()
            me.raise_pending()
        self.raise_failures()

    def _stop_from_outside(self, me: Coroutine) -> None:
        was_shielded, me.is_shielded = me.is_shielded, True
        self.waiting.append(me)  # before the look: of two threads, one sees the other
        try:
            try:
                require_outside(self, me)
            except OSError:
                open_handles[self.number] = self  # it was taken out to be closed
                raise
            self._stop(me)
        finally:
            self.waiting.remove(me)
            me.is_shielded = was_shielded

    def _stop(self, me: Coroutine) -> None:
        self.is_closed = self.is_stopping = True
        if self.running:
            self._cancel_running()
            was_shielded, me.is_shielded = me.is_shielded, True
            UNLISTED.add(self)
            try:
                self.wait(FOREVER)
            finally:
                UNLISTED.discard(self)
                me.is_shielded = was_shielded
        self.is_forgotten = True  # what another thread starts just now comes too late

    def raise_failures(self) -> None:
        """Raise what escaped from the coroutines and nobody has been told yet."""
        if self.failures:
            failures, self.failures = self.failures, []
            raise together(failures)

    def report_failures(self) -> None:
        """Pass failures that nobody can be told any more to `sys.unraisablehook`."""
        failures, self.failures = self.failures, []
        for error in failures:
            _NobodyToBeTold(error)

    def close(self, deadline: int, drain_limit: int | None) -> CloseReport:
        """As abort: there is no peer to tell."""
        self.abort()
        return CloseReport()

    def leave(self, handle: int, error: BaseException | None) -> None:
        """Close at the end of a `with` block, which *error* ended.

        An error that ends the program is raised unchanged, whatever else fails.
        """
        if open_handles.get(handle) is not self:
            return
        if isinstance(error, PROGRAM_ENDS):
            claim(handle)
            self._stop(current_hub().current)
            self.report_failures()
        else:
            hclose(handle)

    def forsake(self, handle: int) -> None:
        """Warn; the coroutines run on, since nothing can wait for their end in here."""
        try:
            warn_of_leak(handle, self)
        finally:  # the warning may be an error
            open_handles.pop(int(handle), None)
            self.is_forgotten = True
            if self.running:
                UNLISTED.add(self)
            self.report_failures()

    def disown(self) -> None:
        """As `Resource.disown`."""
        self.running.clear()
        self.waiting.clear()
        self.block = self.holder = None

    def describe(self) -> str:
        """As `Resource.describe`."""
        return f"a bundle with {len(self.running)} running coroutines"


class _NobodyToBeTold:
    """Raises *error* in a finalizer, where Python can only report it to its hook."""

    def __init__(self, error: BaseException) -> None:
        self._error: BaseException | None = error

    def __del__(self) -> None:
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error, self  # its traceback would refer to itself
