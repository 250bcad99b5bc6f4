"""asyncio, on any loop: its own, uvloop's, and others that can watch a descriptor."""

from __future__ import annotations

import asyncio
import sys
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar, cast

from umbel._kernel.hub import Hub
from umbel.aio.aio_host import AioHost
from umbel.aio.guest import Sleep

T = TypeVar("T")


_Future: Final = asyncio.Future[None]


class AsyncioHost(AioHost):
    """The asyncio loop that runs in this thread."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.loop: Final = asyncio.get_running_loop()
        self._hook: object = None
        #: Faster than the loop's own way, which does the same.
        self.make_sleep = cast("Callable[[], Sleep]", partial(_Future, loop=self.loop))
        self._alarm: asyncio.TimerHandle | None = None
        if self.descriptor >= 0:
            self.loop.add_reader(self.descriptor, self.turn)

    def is_running(self) -> bool:
        """As `Host.is_running`."""
        # The hooks are the loop's while it runs, and cheap to look at: to ask asyncio
        # costs a system call, before Python 3.12.
        hook = sys.get_asyncgen_hooks()[0]
        if hook is self._hook and hook is not None:
            return self.hub.host is self
        if _get_running_loop() is self.loop and self.hub.host is self:
            self._hook = hook
            return True
        return False

    def is_over(self) -> bool:
        """As `Host.is_over`."""
        return self.loop.is_closed()

    def leave(self) -> None:
        """As `Host.leave`."""
        if self.hub.host is self and not self.loop.is_closed() and self.descriptor >= 0:
            self.loop.remove_reader(self.descriptor)
        super().leave()

    def call_turn_soon(self) -> None:
        """As `Host.call_turn_soon`."""
        if self.loop.is_closed():
            self.leave()
        else:
            self.loop.call_soon(self.turn)

    def call_ring_at(self, when: int) -> None:
        """As `Host.call_ring_at`."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self.loop.is_closed():
            self.leave()
        else:
            late = (when - self.hub.clock()) / 1000
            self._alarm = self.loop.call_later(max(0, late), self.ring)

    async def shield(self, sleep: Sleep) -> None:
        """As `AioHost.shield`."""
        assert isinstance(sleep, asyncio.Future)
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

        return self.loop.create_task(wait()).cancel
