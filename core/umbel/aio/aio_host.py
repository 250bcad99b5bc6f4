"""A loop of asyncio or trio as the host of a hub, and how its tasks wait."""

from __future__ import annotations

from abc import abstractmethod
from collections import abc
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar, cast

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.hub import BUDGET, Hub
from umbel._kernel.timers import Timer
from umbel.aio.guest import Errand, Guest, Sleep
from umbel.aio.hosting import Host
from umbel.coroutines.bundles import PROGRAM_ENDS
from umbel.deadline import FOREVER
from umbel.errors import Canceled, DeadlineError, no_deadline

if TYPE_CHECKING:
    from umbel._kernel.watch import Watch
    from umbel.fd import Readiness


R = TypeVar("R")

#: What a canceled task raises in place of its cancellation: a failure of coroutines, of
#: which nobody else is told, and what ends the program.
OVER_CANCELLATION: Final = (BaseExceptionGroup, *PROGRAM_ENDS)


WRONG_SCOPE: Final = (
    "blocking code is canceled by umbel.Canceled, which a cancel scope within it does "
    "not catch: give its calls a deadline, or put the scope into what umbel.aio.wait "
    "awaits"
)


class AioHost(Host):
    """A loop whose tasks await umbel's verbs."""

    make_sleep: Callable[[], Sleep]
    """Make what the calling task can await until its guest is woken."""

    cancellation: ClassVar[type[BaseException]]
    """What `begin` tells of an awaitable that was canceled, and met no other error."""

    def __init__(self, hub: Hub, enter: Callable[[], AioHost]) -> None:
        #: Makes the hub the guest of the loop that runs in this thread.
        self.enter = enter
        super().__init__(hub)

    @abstractmethod
    async def shield(self, sleep: Sleep) -> None:
        """Await *sleep*, whatever happens to the task."""

    @abstractmethod
    def is_canceled(self, cancellation: BaseException) -> bool:
        """Tell whether the calling task is canceled still, after *cancellation*."""

    @abstractmethod
    async def pass_on(self) -> None:
        """Let the loop's other tasks run once, and the calling one be canceled."""

    @abstractmethod
    async def check(self) -> None:
        """Raise the loop's cancellation if the calling task is canceled."""

    @abstractmethod
    def begin(
        self,
        awaitable: Awaitable[R],
        tell: Callable[[R | None, BaseException | None], None],
    ) -> Callable[[], object]:
        """Start a task that awaits *awaitable*, and tells what came of it.

        Returns:
            what cancels it.
        """

    async def pause(self) -> None:
        """Be fair if the budget is spent; be canceled if each call must be."""
        if self.hub.budget < 0:
            self.hub.budget = BUDGET
            await self.pass_on()
        else:
            await self.check()

    # The awaitable twins of Hub.park, Watch.wait_in and Watch.wait_out.

    def new_guest(self) -> Guest:
        """Make a guest that is to `park`, and can be unparked from now on.

        So what comes before its task sleeps is not lost: to a signal's handler, say.
        """
        guest = Guest(self.hub)
        guest.sleep = self.make_sleep()
        guest.is_parked = True
        return guest

    async def park(self, guest: Guest, deadline: int) -> None:
        """Let the calling task sleep until *guest*, a new one, is unparked.

        Raises:
            DeadlineError: ETIMEDOUT, *deadline* came first.
            OSError: EBADF, or whatever else the guest was interrupted with.
        """
        assert guest.sleep is not None
        timer = None
        try:
            if deadline != FOREVER:
                timer = self.arm(guest, deadline)
            await guest.sleep
        finally:
            guest.is_parked = False
            guest.sleep = None
            if timer is not None:
                self.hub.timers.cancel(timer)
        guest.raise_outcome()

    def begin_to_wait(self, guest: Guest, watch: Watch) -> Sleep:
        """Let *guest* be the reader that waits; give what its task is to await.

        Raises:
            BusyError: EBUSY, somebody waits there.
        """
        hub = self.hub
        if watch.reader is not None:
            watch.require_no_reader()
        if hub.needs_arming:
            watch.arm_in()  # first: at the limit of recursion it may fail
        guest.sleep = sleep = self.make_sleep()
        guest.is_parked = True
        watch.reader = guest
        # A signal's handler may have met what we wait for, just now.
        if guest.pending is not None or watch.readable:
            hub.unpark(guest, guest.pending)
        return sleep

    def arm(self, guest: Guest, deadline: int) -> Timer[Coroutine] | None:
        """Have *guest*, which is parked, unparked at *deadline*.

        Raises:
            DeadlineError: ETIMEDOUT, it has come, and nothing else with it.
        """
        hub = self.hub
        try:
            is_to_come = deadline > hub.clock()
        except TypeError:
            raise no_deadline(deadline) from None
        if is_to_come:
            return hub.timers.add(deadline, guest)
        if deadline < 0:  # for ever, too
            return None
        if type(deadline) is float:  # most likely seconds
            raise no_deadline(deadline)
        hub.collect(0)
        if guest.is_parked:
            raise DeadlineError
        return None

    async def wait_in(
        self, readiness: Readiness, deadline: int, claim: Callable[[Guest], None]
    ) -> None:
        """Return once there may be something to receive.

        Args:
            readiness: of what is waited for.
            deadline: see `umbel.deadline`.
            claim: makes the guest known to those who may interrupt it, and raises if
                another thread has closed the handle meanwhile.
        """
        watch = readiness.watch_in(self.hub)
        if readiness.must_yield:
            readiness.must_yield = False
            guest = Guest(self.hub)
            claim(guest)
            self.hub.budget = BUDGET
            await self.pass_on()
            if guest.pending is not None:
                guest.raise_pending()
            if 0 <= deadline <= self.hub.clock():
                raise DeadlineError
            return
        if watch.readable or (watch.has_ended and watch.is_over()):
            watch.readable = readiness.is_drained = False
            return
        watch.require_no_reader()
        guest = self.new_guest()
        claim(guest)
        if self.hub.needs_arming:
            watch.arm_in()
        watch.reader = guest
        try:
            if watch.readable:  # just now, to a signal's handler
                watch.readable = False  # type: ignore[unreachable]  # as mypy sees it
                self.hub.unpark(guest)
            await self.park(guest, deadline)
        except BaseException:
            # Canceled just as the edge came: the next one needs it.
            watch.readable |= watch.reader is not guest
            raise
        finally:
            if watch.reader is guest:
                watch.reader = None
        readiness.is_drained = False

    async def wait_out(
        self, readiness: Readiness, deadline: int, claim: Callable[[Guest], None]
    ) -> None:
        """Return once there may be room to send; as `wait_in`."""
        watch = readiness.watch_in(self.hub)
        if watch.writable:
            watch.writable = False
            return
        watch.require_no_writer()
        guest = self.new_guest()
        claim(guest)
        if self.hub.needs_arming:
            watch.arm_out()
        watch.writer = guest
        try:
            if watch.writable:  # as in wait_in
                watch.writable = False  # type: ignore[unreachable]  # as there
                self.hub.unpark(guest)
            await self.park(guest, deadline)
        except BaseException:
            watch.writable |= watch.writer is not guest
            raise
        finally:
            if watch.writer is guest:
                watch.writer = None

    # Blocking code in a task.

    async def run(
        self, call: Callable[[], R], undo: Callable[[R], object] | None = None
    ) -> R:
        """Run *call*, which may block, on a carrier, while the loop goes on.

        When the task is canceled, so is what it runs: a blocking call in it raises
        `Canceled`, and once it has ended, the loop's own cancellation goes on.

        Args:
            call: what to run.
            undo: takes back what *call* gave though the task had been canceled.

        Returns:
            what *call* returned.
        """
        if self.hub.current is not self.hub.main:
            await self.pass_on()  # an eager task, on the stack of who has started it
        errand = Errand(self.hub, call)
        errand.start()
        canceled: BaseException | None = None
        while not errand.is_over:
            try:
                await self._sleep(errand, is_shielded=canceled is not None)
            except BaseException as error:  # noqa: BLE001 - raised below
                canceled = error
                if isinstance(error, GeneratorExit):
                    errand.abandon()  # closed with its loop: it can't wait any more
                    break
                self.hub.interrupt(errand, Canceled())
            errand.times_due = 0
            errand.sleep = None
            errand.go_on()
        failure, errand.error = errand.error, None  # it refers to the errand
        try:
            if isinstance(failure, OVER_CANCELLATION):
                raise failure
            if canceled is not None and self.is_canceled(canceled):
                if undo is not None and errand.is_over and failure is None:
                    undo(cast("R", errand.value))
                _tell(canceled, failure)
                raise canceled
            if canceled is not None and isinstance(failure, Canceled):
                # Nobody would catch it: the scope that it was for is gone.
                raise RuntimeError(WRONG_SCOPE) from failure
            if failure is not None:
                raise failure
            return cast("R", errand.value)
        finally:
            # Their tracebacks must not refer to themselves.
            del canceled, errand, failure

    async def _sleep(self, errand: Errand, *, is_shielded: bool) -> None:
        errand.sleep = sleep = self.make_sleep()
        if errand.times_due:
            await self.pass_on()
            return
        if is_shielded:
            await self.shield(sleep)
        else:
            await sleep


def drop(awaitable: Awaitable[object]) -> None:
    """Close what may never be awaited, or Python would warn of it."""
    # Others may have a close of another meaning, as pools and connections do.
    if isinstance(awaitable, abc.Coroutine):
        awaitable.close()


def _tell(canceled: BaseException, error: BaseException | None) -> None:
    """Let the loop's cancellation carry what umbel's knows of bytes and of the peer."""
    if isinstance(error, Canceled):
        canceled.bytes_done = error.bytes_done  # type: ignore[attr-defined]
        canceled.report = error.report  # type: ignore[attr-defined]
