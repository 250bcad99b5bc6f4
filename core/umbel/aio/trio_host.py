"""trio as the host of a hub."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from typing import Final, NoReturn, TypeVar

import trio

from umbel._kernel.hub import Hub
from umbel._kernel.loops import running_loop
from umbel.aio.aio_host import AioHost
from umbel.aio.guest import Sleep
from umbel.aio.hosting import LOOK, NEVER
from umbel.errors import Canceled

T = TypeVar("T")

#: Of trio's first task: for calls from threads, for system tasks, and for the main one.
NURSERIES: Final = 3


class _Sleep:
    """The sleep of the task that awaits it; woken before, it returns at once."""

    __slots__ = ("_is_done", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._is_done = False

    def __await__(self) -> Generator[object, object, None]:
        self._task = trio.lowlevel.current_task()
        if self._is_done:
            self._task = None
        else:
            yield from trio.lowlevel.wait_task_rescheduled(self._stop).__await__()

    def _stop(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        self._is_done = True
        return trio.lowlevel.Abort.SUCCEEDED

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: None, /) -> None:
        self._is_done = True
        if self._task is None:
            return
        try:
            in_another = trio.lowlevel.current_task() is not self._task
        except RuntimeError:
            in_another = False
        if in_another:
            self._wake()
        else:
            # We are a signal's handler: trio sleeps, or is between two tasks; or ours
            # is about to sleep, and can't be woken yet.
            trio.lowlevel.current_trio_token().run_sync_soon(self._wake)

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


def _main_task() -> trio.lowlevel.Task | None:
    """Give the task that trio.run was called for; None once it is over."""
    root = trio.lowlevel.current_root_task()
    if root is None or len(root.child_nurseries) < NURSERIES:
        return None
    return next(iter(root.child_nurseries[-1].child_tasks), None)


def _is_time_real() -> bool:
    """Tell whether a deadline of trio's comes in real time, unlike a `MockClock`'s."""
    return type(trio.lowlevel.current_clock()).__name__ == "SystemClock"


class _RealAlarm:
    """Calls *ring* in trio's thread in real time, whatever trio's clock says."""

    def __init__(
        self, token: trio.lowlevel.TrioToken, ring: Callable[[], object]
    ) -> None:
        self._token = token
        self._ring = ring
        self._timer: threading.Timer | None = None

    def set(self, left: int) -> None:
        """Let it ring in *left* ms, and not when it would have before."""
        self.cancel()
        self._timer = threading.Timer(max(0, left) / 1000, self._tell)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Don't let it ring."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._ring)


class TrioHost(AioHost):
    """The trio loop that runs in this thread."""

    checks_each_call = True
    make_sleep = _Sleep
    cancellation = Canceled

    def __init__(self, hub: Hub, enter: Callable[[], AioHost]) -> None:
        self._token: Final = trio.lowlevel.current_trio_token()
        self._until_poked = _Sleep()
        self._must_turn = False
        #: KeyboardInterrupt or SystemExit of a coroutine, which main has yet to raise.
        self._last_words: BaseException | None = None
        self._alarm = trio.CancelScope()
        #: None: trio's own deadlines are as real as ours.
        self._clock = None if _is_time_real() else _RealAlarm(self._token, self.ring)
        #: Round all that watches in the hub's name.
        self._watching = trio.CancelScope()
        self._is_ending = False
        # Last: from then on a signal's handler may find us by the hub.
        super().__init__(hub, enter)
        if self.descriptor >= 0:
            trio.lowlevel.spawn_system_task(self._turn_when_readable)
        trio.lowlevel.spawn_system_task(self._turn_when_poked)
        trio.lowlevel.spawn_system_task(self._ring_when_due)

    def is_running(self) -> bool:
        """As `Host.is_running`."""
        if self.hub.host is not self or running_loop() != "trio":
            return False
        return trio.lowlevel.current_trio_token() is self._token

    def is_over(self) -> bool:
        """As `Host.is_over`: when trio ends, its system tasks have left before."""
        return False

    def turn(self) -> None:
        """As `Host.turn`; what is meant for the program is raised in its main task."""
        try:
            super().turn()
        except (KeyboardInterrupt, SystemExit) as error:
            self._last_words = self._last_words or error
        if self._last_words is not None:
            self._tell_main(self._last_words)

    def _tell_main(self, error: BaseException) -> None:
        # As trio does with Ctrl-C, by what only trio itself calls: there is no public
        # way to raise in a task. Out of here it would be an internal error of trio's.
        def raise_error() -> NoReturn:
            self._last_words = None
            raise error

        main = _main_task()
        if main is None or not hasattr(main, "_attempt_abort"):
            raise error  # better than to swallow it
        if main._abort_func is not None:
            main._attempt_abort(raise_error)
        if self._last_words is not None:
            # It is about to go on, or does not let itself be disturbed: try again.
            self.ring_at(self.hub.clock() + LOOK)

    def leave(self) -> None:
        """As `Host.leave`; if trio goes on, the hub becomes its guest again."""
        if self.hub.host is self:
            self._watching.cancel()
            if self._clock is not None:
                self._clock.cancel()
            if not self._is_ending:
                self._token.run_sync_soon(self._come_back)
        super().leave()

    def _come_back(self) -> None:
        # Ours have no hub to serve any more, and end.
        self._alarm.cancel()
        self.call_turn_soon()
        # The program's may wait, though none of them makes a call.
        if running_loop() == "trio":
            self.enter()

    async def _turn_when_readable(self) -> None:
        with self._watching:
            while True:
                # Not beside that of a host which has come after this one has left.
                await trio.lowlevel.checkpoint_if_cancelled()
                await trio.lowlevel.wait_readable(self.descriptor)
                self.turn()

    async def _ring_when_due(self) -> None:
        try:
            while self.hub.host is self:
                self.ring()
                with trio.CancelScope(deadline=self._due()) as self._alarm:
                    await trio.sleep_forever()
        finally:
            self._is_ending = True
            self.leave()

    async def _turn_when_poked(self) -> None:
        while True:
            self._until_poked = _Sleep()
            if not self._must_turn:
                await self._until_poked
            self._must_turn = False
            if self.hub.host is not self:
                return
            self.turn()
            await trio.lowlevel.cancel_shielded_checkpoint()

    def call_turn_soon(self) -> None:
        """As `Host.call_turn_soon`."""
        self._must_turn = True
        self._until_poked.set_result(None)

    def call_ring_at(self, when: int) -> None:
        """As `Host.call_ring_at`."""
        if self._clock is None:
            self._alarm.deadline = self._due()
        else:
            self._clock.set(when - self.hub.clock())

    def _due(self) -> float:
        if self.alarm_at == NEVER or self._clock is not None:
            return math.inf
        return trio.current_time() + (self.alarm_at - self.hub.clock()) / 1000

    async def shield(self, sleep: Sleep) -> None:
        """As `AioHost.shield`."""
        with trio.CancelScope(shield=True):
            await sleep

    def is_canceled(self, cancellation: BaseException) -> bool:
        """As `AioHost.is_canceled`."""
        if not isinstance(cancellation, trio.Cancelled):
            return True  # Ctrl-C
        return trio.current_effective_deadline() == -math.inf

    async def pass_on(self) -> None:
        """As `AioHost.pass_on`."""
        await trio.lowlevel.checkpoint()

    async def check(self) -> None:
        """As `AioHost.check`."""
        await trio.lowlevel.checkpoint_if_cancelled()

    def begin(
        self,
        awaitable: Awaitable[T],
        tell: Callable[[T | None, BaseException | None], None],
    ) -> Callable[[], object]:
        """As `AioHost.begin`."""
        scope = trio.CancelScope()

        async def wait() -> None:
            outcome: tuple[T | None, BaseException | None] = None, Canceled()
            try:
                with scope:
                    outcome = await awaitable, None
            except trio.Cancelled:
                raise  # trio comes to its end
            except BaseException as error:  # noqa: BLE001 - as in asyncio
                outcome = None, error  # without the cancellations of the scope
            finally:
                tell(*outcome)
                del outcome  # or the error's traceback would refer to itself

        trio.lowlevel.spawn_system_task(wait, context=copy_context())
        return scope.cancel
