"""asyncio, on any loop: its own, uvloop's, and others that can watch a descriptor."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

from umbel._kernel.hosting import Guest
from umbel._kernel.hub import Hub
from umbel.aio.host import AioHost

T = TypeVar("T")

Sleep = asyncio.Future[None]


class AsyncioHost(AioHost):
    """The asyncio loop that runs in this thread."""

    cancellation = asyncio.CancelledError

    def __init__(self, hub: Hub) -> None:
        descriptor = hub.fileno()
        super().__init__(hub)
        self._loop: Final = asyncio.get_running_loop()
        self._make_future: Final = self._loop.create_future
        self._alarm: asyncio.TimerHandle | None = None
        self._loop.add_reader(descriptor, self.turn)

    def is_running(self) -> bool:
        """As `Host.is_running`."""
        return _get_running_loop() is self._loop and self.hub.host is self

    def is_over(self) -> bool:
        """As `Host.is_over`."""
        return self._loop.is_closed()

    def leave(self) -> None:
        """As `Host.leave`."""
        if self.hub.host is self and not self._loop.is_closed():
            self._loop.remove_reader(self.hub.fileno())
        super().leave()

    def call_turn_soon(self) -> None:
        """As `Host.call_turn_soon`."""
        if self._loop.is_closed():
            self.leave()
        else:
            self._loop.call_soon(self.turn)

    def call_turn_at(self, when: int) -> None:
        """As `Host.call_turn_at`."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._loop.is_closed():
            self.leave()
        else:
            late = (when - self.hub.clock()) / 1000
            self._alarm = self._loop.call_later(max(0, late), self.turn)

    def suspend(self, guest: Guest) -> Sleep:
        """As `AioHost.suspend`."""
        guest.sleep = sleep = self._make_future()
        return sleep

    def wake(self, guest: Guest) -> None:
        """As `Host.wake`."""
        sleep = cast("Sleep | None", guest.sleep)
        if sleep is None:
            guest.is_due = True
        elif not sleep.done():  # done: its task was canceled
            sleep.set_result(None)

    async def suspend_shielded(self, guest: Guest) -> None:
        """As `AioHost.suspend_shielded`."""
        sleep = self.suspend(guest)
        while not sleep.done():
            try:
                await asyncio.shield(sleep)
            except asyncio.CancelledError:
                pass  # once is enough: it is raised when all has come to its end

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

        async def wait() -> None:
            try:
                value = await awaitable
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                tell(None, error)
            else:
                tell(value, None)

        return self._loop.create_task(wait()).cancel
