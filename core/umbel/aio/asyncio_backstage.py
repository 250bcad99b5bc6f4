"""Tasks in asyncio that are not the program's: those behind a transport.

A program that ends cancels all tasks, and what they do in their `finally` may still
need its transports. asyncio's own are no tasks, so that they go on; ours must not be
among `asyncio.all_tasks()` either. They end with the loop, which closes asynchronous
generators after all tasks: one of ours waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from types import AsyncGeneratorType

#: Rounds in which who reads from a transport can see its end, and end too.
ROUNDS: Final = 3


class Backstage:
    """The unseen tasks of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._sentinel = cast(
            "AsyncGeneratorType[None, None]", _cancel_at_the_end(self._tasks)
        )
        try:
            self._sentinel.asend(None).send(None)  # or the loop does not know of it
        except StopIteration:
            pass  # it has come to its yield

    def start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task that nobody else finds, canceled when the loop shuts down."""
        task = self._loop.create_task(work)
        if self._sentinel.ag_frame is None:
            return task  # the loop has shut down, and goes on: others must cancel it
        # For tasks of other makes; asyncio's own may be taken out as well.
        asyncio.tasks._unregister_task(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _cancel_at_the_end(tasks: set[asyncio.Task[None]]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
