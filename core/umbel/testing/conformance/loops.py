"""The drivers asyncio and trio: what each kind of loop does in its own way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Final

from umbel import aio
from umbel.testing.conformance.hosted import Event, HostedTrial, Limit

if TYPE_CHECKING:
    import trio


class AsyncioLimit:
    """As `Limit`."""

    def __init__(self, seconds: float) -> None:
        self._timeout: Final = asyncio.timeout(seconds)

    async def cuts_off(self, awaitable: Awaitable[object]) -> bool:
        """As `Limit.cuts_off`."""
        try:
            async with self._timeout:
                await awaitable
        except TimeoutError:
            if not self._timeout.expired():
                raise
        return self._timeout.expired()

    def end_now(self) -> None:
        """As `Limit.end_now`."""
        self._timeout.reschedule(0)


class AsyncioTrial(HostedTrial):
    """The loop is asyncio's."""

    driver = "asyncio"
    first = "made"
    cancellation = asyncio.CancelledError

    def run(self, work: Callable[[], None]) -> None:
        """As `Trial.run`."""
        self._tasks: set[asyncio.Task[None]] = set()
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            runner.run(aio.run_blocking(work))

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop; asyncio's own, but others will do."""
        return asyncio.new_event_loop()

    def new_event(self) -> Event:
        """As `HostedTrial.new_event`."""
        return asyncio.Event()

    def new_limit(self, seconds: float) -> Limit:
        """As `HostedTrial.new_limit`."""
        return AsyncioLimit(seconds)

    def start(
        self,
        work: Callable[[], Coroutine[object, object, None]],
        end: Callable[[bool], None],
    ) -> Callable[[], object]:
        """As `HostedTrial.start`."""
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)  # the loop itself keeps none

        def finish(_: object) -> None:
            self._tasks.discard(task)
            end(task.cancelled())

        task.add_done_callback(finish)
        return task.cancel

    async def pass_on(self) -> None:
        """As `HostedTrial.pass_on`."""
        await asyncio.sleep(0)


class TrioLimit:
    """As `Limit`."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope: Final = scope

    async def cuts_off(self, awaitable: Awaitable[object]) -> bool:
        """As `Limit.cuts_off`."""
        with self._scope:
            await awaitable
        return self._scope.cancelled_caught

    def end_now(self) -> None:
        """As `Limit.end_now`."""
        self._scope.deadline = -1


class TrioTrial(HostedTrial):
    """The loop is trio's, which is imported only where it is tried."""

    driver = "trio"
    is_level_triggered = True
    _nursery: trio.Nursery

    @classmethod
    def why_not(cls) -> str:
        """As `Trial.why_not`."""
        # Before the trial, which would be told that it left what is opened by that:
        # libffi keeps a descriptor of its own once ctypes was imported.
        try:
            import_module("trio")
        except ImportError:
            return "trio is not installed"
        return super().why_not()

    def run(self, work: Callable[[], None]) -> None:
        """As `Trial.run`."""
        import trio

        self.cancellation = trio.Cancelled

        async def main() -> None:
            async with trio.open_nursery() as self._nursery:
                await aio.run_blocking(work)

        trio.run(main)

    def new_event(self) -> Event:
        """As `HostedTrial.new_event`."""
        import trio

        return trio.Event()

    def new_limit(self, seconds: float) -> Limit:
        """As `HostedTrial.new_limit`."""
        import trio

        return TrioLimit(trio.CancelScope(deadline=trio.current_time() + seconds))

    def start(
        self,
        work: Callable[[], Coroutine[object, object, None]],
        end: Callable[[bool], None],
    ) -> Callable[[], object]:
        """As `HostedTrial.start`."""
        import trio

        scope = trio.CancelScope()

        async def task() -> None:
            with scope:
                await work()
            end(scope.cancelled_caught)

        self._nursery.start_soon(task)
        return scope.cancel

    async def pass_on(self) -> None:
        """As `HostedTrial.pass_on`."""
        import trio

        await trio.lowlevel.checkpoint()
