"""The hub of a thread: it decides which coroutine runs next.

Theory of operation. There is no scheduler coroutine. Whoever must wait parks
itself, takes the next coroutine from the ready queue and switches straight to
it; if the queue is empty, it polls for events on its own stack. So a plain
thread, whose main coroutine is alone, waits in poll like any program, and a
hand-over between two coroutines costs one switch, not two.

Rules that hold between any two statements here:

* `current` is the coroutine that runs. It is not parked and not in `ready`.
* A coroutine is in exactly one place: current, in `ready`, or parked.
* Whoever unparks a coroutine puts it into `ready` and sets its `outcome`: None,
  or the error to raise where it waits. The first to do so wins.
* `pending` is an error that has yet to reach the coroutine. `Canceled` stays
  there for good; any other is raised once.
* Only `post`, `reach` and `wake` may be called from another thread.

What is not here: bundles, channels, handles. They are built on `park`,
`unpark` and `interrupt`.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, ClassVar, Final

from umbel._kernel.carriers import Carriers
from umbel._kernel.coroutine import Coroutine
from umbel._kernel.evictions import Evictions
from umbel._kernel.inbox import Inbox
from umbel._kernel.interludes import (
    go_back_to_wait,
    let_all_look,
    must_look_first,
    try_once,
)
from umbel._kernel.loops import loop_error, running_loop, upstairs
from umbel._kernel.poller import BATCH, make_poller
from umbel._kernel.switch import (
    Carrier,
    current_carrier,
    frame_of,
    inherit_context,
)
from umbel._kernel.timers import Timers
from umbel._kernel.watches import Watches
from umbel.errors import (
    EXHAUSTED,
    Canceled,
    DeadlineError,
    no_deadline,
)

if TYPE_CHECKING:
    from umbel._kernel.loops import Host
    from umbel._kernel.poller import Poller
    from umbel.errors import UmbelError

#: Calls of a thread's coroutines between two looks at descriptors and timers; one
#: that never has to wait lets others run after twice as many.
BUDGET: Final = 128
#: Ms of one poll at most: pollers take no more than some 24 days.
LONGEST_POLL: Final = 3_600_000


def _read_clock() -> int:
    return monotonic_ns() // 1_000_000


class Hub:
    """The coroutines, timers and watched descriptors of one thread."""

    #: How many threads have ended that had one.
    ended: ClassVar[int] = 0
    #: Who waits for coroutines of whatever thread: woken to look again when one ends.
    onlookers: ClassVar[set[Coroutine]] = set()

    def __init__(self) -> None:
        self.main = Coroutine()
        self._equip(self.main, current_carrier())
        self.current = self.main
        self.ready: deque[Coroutine] = deque()
        self.clock: Callable[[], int] = _read_clock
        #: For test clocks: told when all wait, and until when, instead of waiting.
        self.jump: Callable[[int], None] | None = None
        #: Threads that work for coroutines of ours, over which nothing jumps.
        self.working = 0
        self.polled_at = monotonic_ns()
        #: The last poll told of one descriptor at most.
        self.saw_one = True
        self.thread = get_ident()
        self.timers: Timers[Coroutine] = Timers()
        self.budget = BUDGET
        #: Who was the current one when the budget was spent last.
        self._spender: Coroutine | None = None
        self.poller: Poller = make_poller()
        #: Here too, since attributes of classes are found more slowly.
        self.needs_arming = self.poller.needs_arming
        self.watches = Watches(self)
        #: Events whose dispatching was broken off.
        self._undone: Sequence[tuple[int, int]] = ()
        #: In a poll that waits, or has a host: who has news must ring. Without a host,
        #: whoever calls in this thread then is a signal's handler.
        self._is_asleep = False
        #: In a poll, without a host: who polls once more is a signal's handler, or runs
        #: while one waits.
        self._is_polling = False
        #: Whose wait a handler has waited in: they look, once the handler has left; and
        #: the errors that were meant for them. See `umbel._kernel.interludes`.
        self.to_look: dict[Coroutine, UmbelError | None] = {}
        #: The loop that runs in main and calls `turn`; see `umbel.aio.hosting`.
        self.host: Host | None = None
        #: For `umbel.aio`: there is none yet, or it must be asked before each call.
        self.must_ask = True
        self.is_turning = False
        #: Who runs next is being taken from the queue, and does not run yet; or the hub
        #: is about to become a loop's guest. A signal's handler must not switch then.
        self.is_switching = False
        #: What main is canceled with once no loop runs in it any more.
        self.held_back: Canceled | None = None
        self.is_abandoned = False
        self.evictions = Evictions()
        try:
            self.inbox = Inbox(self)
        except BaseException:
            self.poller.close()  # as EMFILE: we are referred to by what we refer to
            raise
        # Last: what is on a carrier of a thread that has ended could never be freed.
        self._carriers = Carriers(self, self.main.carrier)
        self._idle = self._carriers.idle

    # Waiting and waking.

    def park(  # noqa: C901, PLR0912, PLR0915 - the data path, in few calls
        self, deadline: int
    ) -> None:
        """Let others run until the current coroutine is unparked.

        Raises:
            DeadlineError: ETIMEDOUT, *deadline* (ms, -1: never) came first.
            Canceled: ECANCELED, or whatever else it was interrupted with.
            RuntimeError: it is the main program, and a host's loop runs in it.
        """
        me = self.current
        if me.pending is not None and not me.is_shielded:
            me.raise_pending()
        try:
            # Not chained: Python compares faster if a jump follows at once.
            is_over = deadline <= self.clock() if deadline >= 0 else False
        except TypeError:
            raise no_deadline(deadline) from None
        if is_over:
            if type(deadline) is float:  # most likely seconds
                raise no_deadline(deadline)
            try_once(self, me)
            return
        is_within = me.is_parked  # we are a signal's handler, in the midst of a wait
        me.is_parked = True
        # From here on a handler finds us in the midst of a wait. What came to it before
        # that, after the caller has looked, must not be slept over.
        if me.must_look or (me.pending is not None and not me.is_shielded):
            me.is_parked = is_within
            if must_look_first(self, me):
                return
            me.is_parked = True
        me.parked_at = self.polled_at
        ready = self.ready
        timer = None
        try:
            if deadline >= 0:
                timer = self.timers.add(deadline, me)
            target = ready.popleft() if ready else self.next_ready()
            if target is not me:
                self.current = target
                target.carrier.switch()
        except BaseException:
            self.end_wait(me)
            if timer is not None:
                self.timers.cancel(timer)
            raise
        if timer is not None:
            self.timers.cancel(timer)
        if is_within:
            go_back_to_wait(self, me)
        if me.outcome is not None:
            me.raise_outcome()
        if me.pending is not None and not me.is_shielded:
            me.raise_pending()

    def end_wait(self, me: Coroutine) -> None:
        """Undo a wait of *me*, in which something raised that may have woken it."""
        me.is_parked = False
        me.outcome = None
        if me in self.ready:
            self.ready.remove(me)

    def unpark(
        self, coroutine: Coroutine, outcome: BaseException | None = None
    ) -> None:
        """Make a parked *coroutine* ready; nothing happens if it is not parked."""
        if coroutine.is_parked:
            coroutine.is_parked = False
            coroutine.outcome = outcome
            try:
                self.ready.append(coroutine)
            except EXHAUSTED:  # or nothing could wake it any more
                coroutine.is_parked = True
                coroutine.outcome = None
                raise
            if self._is_asleep and self.host is None:
                self.inbox.ring()  # we are a signal's handler: poll would go on
        elif coroutine is self.current:  # in its midst, by a signal's handler
            coroutine.must_look = True

    def interrupt(self, coroutine: Coroutine, error: BaseException) -> None:
        """Raise *error* where *coroutine* waits, or at its next blocking call."""
        is_canceled = isinstance(error, Canceled)
        if is_canceled:
            coroutine.pending = error  # it stays, so that itself it is never raised
        if coroutine.is_parked and not coroutine.is_shielded:
            self.unpark(coroutine, Canceled() if is_canceled else error)
        elif coroutine.pending is None or not isinstance(error, Exception):
            coroutine.pending = error  # what ends the program comes first

    def yield_now(self) -> None:
        """Let every other coroutine that is ready run once, and look at events."""
        self.budget = BUDGET
        me = self.current
        if me.pending is not None and not me.is_shielded:
            me.raise_pending()
        self.collect(0)  # before queueing: a signal may raise out of it
        self.is_switching = True
        try:
            self.ready.append(me)
            target = self.ready.popleft()
        finally:
            self.is_switching = False
        if target is not me:
            self.current = target
            target.carrier.switch()
        if me.pending is not None and not me.is_shielded:
            me.raise_pending()

    def spend_budget(self) -> None:
        """Be fair: look at events, and yield if the same one was here last time.

        So a coroutine that has just started or gone on is not made to wait.
        """
        is_interrupted = self.is_switching or self._carriers.is_making
        if is_interrupted or self.current.is_parked or self.is_in_task():
            return
        # A task's errand may end before its next call: then its task pays, awaiting.
        if not self.current.is_guest:
            self.budget = BUDGET
        if not (self.ready or self.timers or len(self.watches) > 1 or self.inbox.calls):
            return
        if self._spender is self.current:
            self._spender = None
            self.yield_now()
        else:
            self._spender = self.current
            self.collect(0)

    def next_ready(self) -> Coroutine:
        """Give who is to run next, waiting until there is somebody."""
        while not self.ready:
            loop = running_loop()
            if not loop or self.main.is_shielded:
                # Shielded: it closes a bundle, whose coroutines need but a moment.
                if self.host is not None and not loop:
                    self.host.leave_if_over()
                if self.inbox.hears_signals and "asyncio" in sys.modules:
                    self.inbox.hear_signals()
                timers = self.timers
                self.collect((timers.soonest() or 1) if timers.heap else -1)
                self.budget = BUDGET  # all waited: nobody was kept from anything
            else:
                self.collect(0)  # what it waits for may be there
                if not self.ready:
                    frame = frame_of(self.main.carrier) or sys._getframe()
                    self.interrupt(self.main, loop_error(loop, frame))
                    del frame
        return self.ready.popleft()

    # Coroutines.

    def start(self, coroutine: Coroutine) -> None:
        """Run a new *coroutine*, at once, until it first waits."""
        modules = sys.modules
        if self.current is self.main and (
            "asyncio" in modules or "trio.lowlevel" in modules
        ):
            self._become_guest()
        is_waiting = self._is_asleep if self.host is None else self.current.is_parked
        if is_waiting or self.is_switching or self._carriers.is_making:
            # We are a signal's handler, and what it interrupted must go on first.
            self.post(partial(self.start_soon, coroutine, copy_context()))
            return
        carrier = self._idle.pop() if self._idle else self._carriers.make()
        inherit_context(carrier)
        # As _equip, whose call would be a part of what starting costs.
        coroutine.carrier = carrier
        coroutine.hub = self
        coroutine.is_parked = coroutine.is_shielded = coroutine.must_look = False
        coroutine.outcome = coroutine.pending = None
        self.ready.append(self.current)
        self.current = coroutine
        carrier.switch()

    def is_in_task(self) -> bool:
        """Tell whether a task of a loop calls: others run when it next awaits."""
        # A host's loop may have stopped for now, as between two runs of a Runner.
        return (
            self.host is not None and self.current is self.main and bool(running_loop())
        )

    def is_stranger(self) -> bool:
        """Tell whether a loop runs in this thread whose guest the hub is not."""
        host = self.host
        return (host is None or not host.is_running()) and bool(running_loop())

    def _become_guest(self) -> None:
        # A loop that runs here must call `turn`, or the coroutine would never go on.
        if self.is_stranger() and not self.is_switching:
            upstairs("entry").enter()

    def start_soon(self, coroutine: Coroutine, context: Context | None = None) -> None:
        """Run a new *coroutine* after those that are ready.

        It does not switch, so that a posted call may use it.

        Args:
            coroutine: a new one.
            context: its context variables; None: a copy of ours.
        """
        self.prepare(coroutine, context)
        self.ready.append(coroutine)

    def prepare(self, coroutine: Coroutine, context: Context | None) -> None:
        """Give a new *coroutine* a carrier, for who switches to it; as `start_soon`."""
        carrier = self._idle.pop() if self._idle else self._carriers.make()
        inherit_context(carrier, context)
        self._equip(coroutine, carrier)

    def _equip(self, coroutine: Coroutine, carrier: Carrier) -> None:
        coroutine.carrier = carrier
        coroutine.hub = self
        coroutine.is_parked = coroutine.is_shielded = coroutine.must_look = False
        coroutine.outcome = coroutine.pending = None

    # Descriptors and timers.

    def collect(self, until: int) -> None:  # noqa: C901, PLR0912, PLR0915 - each poll pays for calls
        """Take in events and timers; wait until *until* (0: don't, -1: for ever)."""
        timeout = 0.0
        inbox = self.inbox
        is_within = self._is_polling
        if self.host is not None and not self.is_turning:
            self._look_at_host(self.host)
        if until:
            self._is_asleep = True
            is_idle = not (inbox.calls or self.ready or self._undone)
            if is_idle and (self.jump is None or until < 0 or self.working):
                timeout = -1
                if until > 0:
                    left = max(0, until - self.clock())
                    timeout = min(left, LONGEST_POLL) / 1000
        self._is_polling = self.host is None
        try:
            events = self.poller.poll(timeout, BATCH)
        except BaseException as error:
            self._is_polling = is_within
            self._is_asleep = is_within or self.host is not None
            if isinstance(error, EXHAUSTED):
                raise
            # Ctrl-C, or what else a signal handler raised. It belongs to main.
            if self.current is self.main and not self.main.is_shielded:
                raise
            self.interrupt(self.main, error)
            return
        self._is_polling = is_within
        self._is_asleep = is_within or self.host is not None
        if self._undone:
            events = [*self._undone, *events]
            self._undone = ()
        try:
            self.saw_one = len(events) < 2
            if events:
                if self.host is not None and not self.is_turning:
                    self.host.leave_if_over()  # now, not in the middle, with its queue
                self.watches.dispatch(events)
        except BaseException:
            # Who called may be at the limit of recursion, where any call fails: others
            # must be told all the same.
            self._undone = events
            raise
        if until > 0 and not events and self.jump is not None and not inbox.calls:
            self.jump(until)
        # Also for who rang late: an answered doorbell is what the next one needs.
        if (inbox.calls or inbox.ringing.readable) and not self._carriers.is_making:
            inbox.answer()
        self.polled_at = monotonic_ns()
        if self.timers.heap:
            self._wake_due()
        if self.to_look and not is_within:
            let_all_look(self)
        if is_within and (self.ready or self.needs_arming):
            inbox.ring()  # that poll goes on, and must look at who is ready, or armed

    def _wake_due(self) -> None:
        now = self.clock()
        while (sleeper := self.timers.pop_due(now)) is not None:
            # As `unpark`, without its call, which could fail at the limit of recursion.
            if sleeper.is_parked:
                sleeper.is_parked = False
                sleeper.outcome = DeadlineError
                try:
                    self.ready.append(sleeper)
                except EXHAUSTED:
                    sleeper.is_parked = True
                    sleeper.outcome = None
                    raise

    def _look_at_host(self, host: Host) -> None:
        """Let main, in a verb that others keep from waiting, go back to its loop."""
        host.leave_if_over()
        main, loop = self.main, running_loop()
        if not loop:
            self.must_ask = True  # it has stopped: another one may run next
            self._cancel_main()
        elif main.is_parked and not main.is_shielded and self.current is not main:
            self.interrupt(main, loop_error(loop, frame_of(main.carrier)))
        if self.host is host:
            host.poke()  # to go on with the events, should the caller be too deep down

    def hold_back(self) -> None:
        """Keep what main is canceled with for after a loop, which can't be canceled."""
        if isinstance(self.main.pending, Canceled):
            self.held_back, self.main.pending = self.main.pending, None

    def _cancel_main(self) -> None:
        held = self.held_back
        if held is not None and self.main.pending is None:
            self.held_back = None
            self.interrupt(self.main, held)

    # Other threads, and host loops.

    def post(self, call: Callable[[], None]) -> None:
        """Have *call* run in this hub's thread, soon. From any thread.

        If the thread ends before, it runs as that happens; if it has ended, at once.
        """
        self.inbox.calls.append(call)
        self.wake()
        if self.is_abandoned:
            self.inbox.run_all()

    def wake(self) -> None:
        """Let the hub look at events anew, if it sleeps. From any thread."""
        # A guest may not have had its first turn yet, in which it falls asleep.
        if self._is_asleep or self.host is not None:
            self.inbox.ring()

    def reach(self, call: Callable[[], None]) -> None:
        """Have *call* run in this hub's thread: at once, if that is the caller's."""
        if self.thread == get_ident():
            call()
        else:
            self.post(call)

    def fileno(self) -> int:
        """Give the descriptor that is readable when `turn` has something to do."""
        return self.poller.fileno()

    def turn(self) -> int:
        """Run what can run now, without waiting; for a host loop to call.

        Returns:
            when to call again at the latest, in ms of the clock: 0 at once, -1 not
            before `fileno` is readable.
        """
        self.is_turning = True
        try:
            self.collect(0)
            if self.ready:
                self.ready.append(self.main)
                self.current = self.ready.popleft()
                self.current.carrier.switch()
        finally:
            self.is_turning = False
        self._is_asleep = True
        if self.main.pending is not None:
            self.hold_back()  # from before, if the loop had stopped and runs again
            if self.main.pending is not None:
                # KeyboardInterrupt or SystemExit: it ends the loop, as a task's would.
                self.main.raise_pending()
        if self.ready or self.inbox.calls:
            return 0
        return self.timers.soonest()

    def leave_host(self) -> None:
        """Be on its own again."""
        self.host = None
        self.must_ask = True
        self._is_asleep = False
        if self.held_back is not None:
            self.post(self._cancel_main)  # main may be just about to park

    def close(self) -> None:
        """Free the hub's own descriptors: its thread ends, or was forked away."""
        self.is_abandoned = True
        self._is_asleep = False
        self.inbox.close()
        self.poller.close()

    def end(self, *, may_switch: bool = True) -> None:
        """Close with the thread: nothing is waited for that can't come any more.

        Args:
            may_switch: the thread has yet to end.
        """
        if self.host is not None and not self.inbox.is_inherited:
            self.host.leave()  # whose loop may go on in another thread
        self.close()
        if self.inbox.is_inherited:
            return  # forked away, with its thread: what it had to do is the parent's
        if may_switch:
            self._carriers.drop()
        Hub.ended += 1
        self.inbox.run_all()
        self.evictions.stand_in_for_all()
        for coroutine in tuple(Hub.onlookers):
            coroutine.hub.post(partial(coroutine.hub.unpark, coroutine))
