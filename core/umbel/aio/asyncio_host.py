"""asyncio, on any loop: its own, uvloop's, and others that can watch a descriptor."""

from __future__ import annotations

import asyncio
import sys
from _thread import get_ident
from asyncio import CancelledError, _get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from functools import partial
from typing import Final, TypeVar, cast

from umbel._kernel.hub import Hub
from umbel._kernel.loops import running_loop
from umbel.aio.aio_host import AioHost, drop
from umbel.aio.asyncio_backstage import Backstage
from umbel.aio.guest import FORGOTTEN, Guest, Sleep
from umbel.handle import open_handles

T = TypeVar("T")


_Future: Final = asyncio.Future[None]


class AsyncioHost(AioHost):
    """The asyncio loop that runs in this thread."""

    cancellation = CancelledError

    def __init__(self, hub: Hub, enter: Callable[[], AioHost]) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._hook: object = None
        #: Of the loop's calls here: an empty one, not that of the task which began.
        self._context: Final = Context()
        #: Faster than the loop's own way, which does the same.
        self.make_sleep = cast("Callable[[], Sleep]", partial(_Future, loop=self.loop))
        self._alarm: asyncio.TimerHandle | None = None
        self._backstage: Backstage | None = None
        #: By task of `begin` that has not ended.
        self._tells: dict[asyncio.Task[None], Callable[[], None]] = {}
        # Last: from then on a signal's handler may find us by the hub.
        super().__init__(hub, enter)
        if self.descriptor >= 0:
            self._context.run(self.loop.add_reader, self.descriptor, self.turn)

    def is_running(self) -> bool:
        """As `Host.is_running`."""
        # The hooks are the loop's while it runs, and cheap to look at: to ask asyncio
        # costs a system call, before Python 3.12.
        hook = sys.get_asyncgen_hooks()[0]
        if hook is self._hook and hook is not None:
            return self.hub.host is self
        if _get_running_loop() is not self.loop or self.hub.host is not self:
            return False
        if running_loop() != "asyncio":
            return False  # trio runs in one of its tasks
        self._hook = hook
        return True

    @property
    def backstage(self) -> Backstage:
        """Where tasks start that are not the program's."""
        if self._backstage is None:
            self._backstage = Backstage(self.loop)
        return self._backstage

    def is_over(self) -> bool:
        """As `Host.is_over`."""
        return self.loop.is_closed()

    def leave(self) -> None:
        """As `Host.leave`; if the loop runs again, the hub becomes its guest again."""
        if self.hub.host is self:
            if self.loop.is_closed():
                self._let_go()
            else:
                self._forget_hub()
                if not self.hub.is_abandoned:
                    self.loop.call_soon(self._come_back)
        super().leave()

    def _let_go(self) -> None:
        # What is open knows who uses it, and so keeps a task that never goes on, and
        # with it all that the task owns.
        for resource in list(open_handles.values()):
            for role in ("sender", "receiver", "accepter"):
                user = getattr(resource, role, None)
                if (
                    isinstance(user, Guest)
                    and user.hub is self.hub
                    and _is_of_closed_loop(user.sleep)
                ):
                    user.sleep = FORGOTTEN
        # And coroutines, which do go on, may wait for such a task.
        for tell in list(self._tells.values()):
            tell()

    def _forget_hub(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self.descriptor >= 0:
            self.loop.remove_reader(self.descriptor)
            self.descriptor = -1

    def _come_back(self) -> None:
        # Its tasks may wait, though none of them makes a call.
        if get_ident() == self.hub.thread and running_loop() == "asyncio":
            self.enter()

    def turn(self) -> None:
        """As `Host.turn`, if the loop runs in the hub's thread still."""
        if get_ident() == self.hub.thread:
            super().turn()
        else:
            self._go_without_hub()

    def ring(self) -> None:
        """As `Host.ring`, if the loop runs in the hub's thread still."""
        if get_ident() == self.hub.thread:
            super().ring()
        else:
            self._go_without_hub()

    def _go_without_hub(self) -> None:
        self._forget_hub()
        self.hub.post(super().leave)
        message = (
            "the loop runs in another thread than the one in which its tasks began to "
            "use umbel: those that have waited since then are not woken"
        )
        self.loop.call_exception_handler({"message": message})

    def call_turn_soon(self) -> None:
        """As `Host.call_turn_soon`."""
        if self.loop.is_closed():
            self.leave()
        else:
            self.loop.call_soon(self.turn, context=self._context)

    def wake_loop(self) -> None:
        """As `Host.wake_loop`: what is queued in its select is seen after that only."""
        if asyncio.current_task(self.loop) is None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(_do_nothing)

    def call_ring_at(self, when: int) -> None:
        """As `Host.call_ring_at`."""
        before = self._alarm
        if self.loop.is_closed():
            self.leave()
        else:
            late = (when - self.hub.clock()) / 1000
            self._alarm = self.loop.call_later(
                max(0, late), self.ring, context=self._context
            )
        if before is not None:  # last: it stays if that failed
            before.cancel()

    async def shield(self, sleep: Sleep) -> None:
        """As `AioHost.shield`."""
        assert isinstance(sleep, asyncio.Future)
        with once_canceled():
            while not sleep.done():
                try:
                    await asyncio.shield(sleep)
                except asyncio.CancelledError:
                    pass  # once is enough: it is raised when all has come to its end

    def is_canceled(self, cancellation: BaseException) -> bool:
        """As `AioHost.is_canceled`."""
        if not isinstance(cancellation, CancelledError):
            return True  # its loop is closed
        task = asyncio.current_task(self.loop)
        return task is None or task.cancelling() > 0

    async def pass_on(self) -> None:
        """As `AioHost.pass_on`."""
        await asyncio.sleep(0)

    async def check(self) -> None:
        """As `AioHost.check`: a cancellation is raised where a task sleeps, once."""

    def begin(
        self,
        awaitable: Awaitable[T],
        tell: Callable[[T | None, BaseException | None], None],
    ) -> Callable[[], object]:
        """As `AioHost.begin`."""
        outcome: tuple[T | None, BaseException | None] = None, CancelledError()
        has_begun = False

        async def wait() -> None:
            nonlocal outcome, has_begun
            has_begun = True
            try:
                outcome = await awaitable, None
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                outcome = None, error

        def end(task: asyncio.Task[None]) -> None:
            nonlocal outcome
            del self._tells[task]
            drop(awaitable)  # it may have been canceled before it could begin
            tell(*outcome)
            outcome = None, None  # or the error's traceback would refer to itself

        # Not by the loop's factory: an eager task would begin on our caller's stack.
        task = asyncio.Task(wait(), loop=self.loop)
        self._tells[task] = partial(tell, None, CancelledError())
        task.add_done_callback(end)

        def cancel() -> None:
            if self.loop.is_closed():
                tell(None, CancelledError())  # the task never goes on
            elif asyncio.isfuture(awaitable) and not has_begun:
                awaitable.cancel()  # ours would end now, without a look at it
            else:
                task.cancel()

        return cancel


def once_canceled() -> AbstractContextManager[object]:
    """Let a task be canceled once for each time that somebody cancels it.

    asyncio does so; but a scope of anyio's cancels the task in each round of the loop.
    """
    make_scope = getattr(sys.modules.get("anyio"), "CancelScope", None)
    return nullcontext() if make_scope is None else make_scope(shield=True)


def _do_nothing() -> None:
    pass


def _is_of_closed_loop(sleep: object) -> bool:
    return isinstance(sleep, asyncio.Future) and sleep.get_loop().is_closed()
