"""What async handles have in common, and the verbs on any handle."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

import umbel.handle as blocking
from umbel.aio.hosts import run_blocking
from umbel.deadline import FOREVER, within
from umbel.handle import CLOSE_GRACE, AnyHandle, open_handles
from umbel.report import CloseReport

A = TypeVar("A", bound="AsyncHandle")


class AsyncHandle(AnyHandle):
    """A handle whose methods are awaited."""

    async def close(self, deadline: int = FOREVER) -> CloseReport:
        """Close in good order, as `close`."""
        return await close(self, deadline)

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self not in open_handles:
            return
        if kind is None:
            await close(self, within(CLOSE_GRACE))
        else:
            self.abort()


async def close(
    handle: int, deadline: int = FOREVER, *, drain_limit: int | None = None
) -> CloseReport:
    """Close in good order, as `umbel.close`; closed also when canceled."""
    return await run_blocking(blocking.close, handle, deadline, drain_limit=drain_limit)
