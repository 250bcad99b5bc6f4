"""The tasks of a server in trio; contracts as of `umbel.aio.serving.Crew`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

import trio

from umbel.server_rules import ends_program


class TrioCrew:
    """Tasks of a nursery, which outlive a cancellation of the server for the grace."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None
        self._scopes: set[trio.CancelScope] = set()
        self._is_canceled = False

    async def __aenter__(self) -> TrioCrew:
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)

    def start(
        self, work: Coroutine[object, object, None], ended: Callable[[], None]
    ) -> None:
        """As `Crew.start`."""
        assert self._nursery is not None
        self._nursery.start_soon(self._run, work, ended)

    async def _run(
        self, work: Coroutine[object, object, None], ended: Callable[[], None]
    ) -> None:
        try:
            await work
        finally:
            ended()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """As `Crew.scope`."""
        with trio.CancelScope(shield=True) as scope:
            if self._is_canceled:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def cancel(self) -> None:
        """As `Crew.cancel`."""
        self._is_canceled = True
        for scope in self._scopes:
            scope.cancel()

    def is_for_loop(self, error: BaseException) -> bool:
        """As `Crew.is_for_loop`."""
        return ends_program(error) or isinstance(error, trio.Cancelled)

    def held_up(self) -> AbstractContextManager[object]:
        """As `Crew.held_up`: trio would cancel each call anew."""
        return trio.CancelScope(shield=True)
