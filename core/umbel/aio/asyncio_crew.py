"""The tasks of a server in asyncio; contracts as of `umbel.aio.serving.Crew`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeAlias

from umbel.aio.asyncio_host import once_canceled
from umbel.coroutines.bundles import PROGRAM_ENDS

CreateTask: TypeAlias = Callable[
    [Coroutine[object, object, None]], "asyncio.Task[None]"
]

FOR_LOOP: Final = (*PROGRAM_ENDS, asyncio.CancelledError)


class AsyncioCrew:
    """Tasks of the running loop, each canceled by itself.

    Args:
        create_task: how one is started; None: as the loop does.
    """

    def __init__(self, create_task: CreateTask | None = None) -> None:
        self._create_task = create_task or asyncio.get_running_loop().create_task
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> AsyncioCrew:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is GeneratorExit:
            return  # the loop was closed with them
        canceled: asyncio.CancelledError | None = None
        with self.held_up():
            while self._tasks:
                try:
                    await asyncio.wait(self._tasks)
                except asyncio.CancelledError as error:
                    canceled = error  # once is enough: raised when all have ended
        try:
            if canceled is not None:
                raise canceled
        finally:
            del canceled

    def start(
        self, work: Coroutine[object, object, None], ended: Callable[[], None]
    ) -> None:
        """As `Crew.start`."""

        # Not in the task itself: one canceled before its first step never begins.
        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # the loop has raised it, and need not log it
            ended()

        task = self._create_task(work)
        self._tasks.add(task)
        task.add_done_callback(end)

    def scope(self) -> AbstractContextManager[object]:
        """As `Crew.scope`: a task is its own."""
        return nullcontext()

    def cancel(self) -> None:
        """As `Crew.cancel`."""
        for task in self._tasks:
            task.cancel()

    def is_for_loop(self, error: BaseException) -> bool:
        """As `Crew.is_for_loop`."""
        return isinstance(error, FOR_LOOP)

    def held_up(self) -> AbstractContextManager[object]:
        """As `Crew.held_up`."""
        return once_canceled()
