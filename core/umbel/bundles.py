"""Bundles, and the coroutines that live in them.

Coroutines live in a bundle and end no later than it does: closing it cancels those that
still run and waits until each has stopped. A bundle keeps an exception that escapes
from a coroutine until somebody is told.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from functools import partial
from types import CodeType, CoroutineType, TracebackType
from typing import ClassVar, Final, ParamSpec, Self, TypeVar, final

from umbel._kernel.carriers import end_child
from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel.deadline import FOREVER
from umbel.errors import BadHandleError, Canceled, system_error, unawaited
from umbel.fd import unpark
from umbel.handle import (
    Handle,
    Resource,
    claim,
    hclose,
    lookup,
    open_handles,
    place_of,
    refusal,
    warn_of_leak,
)
from umbel.report import CloseReport
from umbel.with_block import WithBlock, lenient_checkpoint

#: Meant for the program, not for whoever waits for a bundle.
PROGRAM_ENDS: Final = (KeyboardInterrupt, SystemExit)

#: What to do with an async function, which umbel's coroutines and threads can't run.
ASYNC_ADVICE: Final = "use a plain one, or have asyncio or trio run it (umbel.aio)"

#: Bundles in which something runs, though they have no handle any more.
UNLISTED: Final[set[Bundle]] = set()

P = ParamSpec("P")
R = TypeVar("R")


@final
class BundleHandle(Handle):
    """Names a bundle."""

    #: While it is used in a `with` block.
    _block: WithBlock | None = None

    def go(
        self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Start a coroutine in it, as `bundle_go`."""
        hub = lenient_checkpoint()
        found = open_handles.get(self)
        if type(found) is not Bundle:
            raise refusal(self, Bundle)
        frame = sys._getframe(1)
        place = (frame.f_code, frame.f_lasti)
        hub.start(Task(found, function, args, kwargs, place))

    def wait(self, deadline: int = FOREVER) -> None:
        """Wait until nothing runs in it, as `bundle_wait`."""
        lenient_checkpoint()
        lookup(self, Bundle).join(deadline)

    def __enter__(self) -> Self:
        bundle = open_handles.get(self)
        if isinstance(bundle, Bundle) and self._block is None:  # once more: no effect
            self._block = WithBlock(current_hub().current)
            bundle.enter(self._block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block, self._block = self._block, None
        failure = None if block is None else block.end()
        if not isinstance(error, Canceled):
            failure = None  # it was not interrupted: it has ended by itself
        bundle = open_handles.get(self)
        if not isinstance(bundle, Bundle):
            if failure is not None:  # others were told, but it was we who were stopped
                raise together([failure])
            return  # closed inside the block
        bundle.keep(failure)  # as above
        if kind is None:
            try:
                bundle.wait(FOREVER, until_failure=True)
            except BaseException as stopped:  # nothing runs on all the same
                bundle.leave(self, stopped)
                raise
        try:
            bundle.leave(self, error)
        except BaseExceptionGroup as group:
            if failure is not None:
                group.__suppress_context__ = True  # how the block was interrupted
            elif isinstance(error, Exception):  # which Canceled is not
                raise together([error, *group.exceptions]) from None
            raise


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

    handle_class = BundleHandle
    noun: ClassVar[str] = "bundle"
    verbs: ClassVar[str] = "bundle_go, bundle_wait and hclose"

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        #: Of `Hub.ended`: nobody in `running` is lost who was there then.
        self.seen_ended = Hub.ended
        self.running: dict[Task, None] = {}
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

    def fail(self, coroutine: Task, error: BaseException) -> None:
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
            self._require_outside(me)
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

    def admit(self, coroutine: Task) -> None:
        """Let one begin that is of another thread, or comes late."""
        if coroutine.hub is not self.hub and not self.is_shared:
            self.is_shared = True
            for waiter in tuple(self.waiting):
                unpark(waiter)  # to be an onlooker from now on
        if self.is_stopping and self.stops_still():
            coroutine.pending = Canceled()

    def _lose(self, coroutine: Task) -> None:
        if not (self.is_stopping and self.stops_still()):
            message = f"coroutine {coroutine.name} never goes on: its thread has ended"
            self.failures.append(system_error(errno.ESRCH, message))
        self.running.pop(coroutine, None)

    def _require_outside(self, me: Coroutine) -> None:
        """Refuse to let *me* wait for what can't end before *me* does."""
        held_up, seen = [me], {me}
        for one in held_up:  # which grows
            if one in self.running:
                break
            if isinstance(one, Task):
                found = [other for other in one.bundle.bound() if other not in seen]
                held_up += found
                seen.update(found)
        else:
            return
        if one is me:
            message = (
                f"coroutine {me.name} waits for the bundle that it runs in itself: "
                "return from it instead, or let another coroutine close the bundle"
            )
        else:
            message = (
                f"coroutine {me.name} waits for a bundle whose coroutine {one.name} "
                f"can't end before {me.name} does: return from it instead, or let a "
                "coroutine outside of both close the bundle"
            )
        raise system_error(errno.EDEADLK, message)

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
                self._require_outside(me)
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


@final
class Task(Coroutine):
    """A coroutine in a bundle: a function and its arguments."""

    __slots__ = ("args", "bundle", "function", "kwargs", "started")

    def __init__(
        self,
        bundle: Bundle,
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        started: tuple[CodeType, int] | None,
    ) -> None:
        self.bundle = bundle
        self.function = function
        self.args = args
        self.kwargs = kwargs
        #: The instruction that started it; of which line is found when asked for.
        self.started = started

    def run(self) -> None:
        """As `Coroutine.run`: what escapes is kept by the bundle."""
        bundle = self.bundle
        bundle.running[self] = None
        if bundle.is_stopping or self.hub is not bundle.hub:
            bundle.admit(self)
        try:
            # Without a star, where it can be: that takes no C stack, which each switch
            # would have to copy.
            count = -1 if self.kwargs else len(self.args)
            if count == 0:
                result = self.function()
            elif count == 1:
                result = self.function(self.args[0])
            elif count == 2:
                result = self.function(self.args[0], self.args[1])
            else:
                result = self.function(*self.args, **self.kwargs)
            if result is not None and type(result) is CoroutineType:
                raise unawaited(result, ASYNC_ADVICE)
        except Canceled as error:
            if self.pending is None:
                bundle.fail(self, error)  # raised by hand: tell somebody
        except BaseException as error:  # noqa: BLE001 - kept for the waiter
            bundle.fail(self, error)
        finally:
            bundle.running.pop(self, None)  # a forked child has none
            # The hub may keep an ended coroutine for as long as nobody else runs.
            del self.function, self.args, self.kwargs
            if bundle.waiting or bundle.is_forgotten:
                bundle.tell()

    @property
    def origin(self) -> tuple[CodeType, int] | None:
        """As `Coroutine.origin`."""
        return self.started

    @property
    def name(self) -> str:
        """As `Coroutine.name`."""
        function = getattr(self, "function", None)  # None: it has just ended
        # Of a partial, whose repr would be that of all its arguments.
        function = getattr(function, "func", function)
        if isinstance(name := getattr(function, "__qualname__", None), str):
            return name
        from umbel.results import show  # as the census asks in another's call

        return show(function)


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
