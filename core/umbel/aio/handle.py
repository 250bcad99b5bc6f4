"""What async handles have in common, and the verbs on any handle."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

import umbel.handle as blocking
from umbel.aio.entry import begin
from umbel.deadline import FOREVER, within
from umbel.handle import CLOSE_GRACE, AnyHandle, hclose_if_open, open_handles
from umbel.report import CloseReport

if TYPE_CHECKING:
    from umbel.aio.stream import AnyStream
    from umbel.streams.stream import StreamHandle

A = TypeVar("A", bound="AsyncHandle")


class AsyncHandle(AnyHandle):
    """A handle whose methods are awaited.

    They return the function's own coroutine, without another one around it. Its `async
    with` block ends as the `with` block of a blocking handle.
    """

    __slots__ = ()

    def close(self, deadline: int = FOREVER) -> Coroutine[object, object, CloseReport]:
        """Close in good order, as `close`."""
        return close(self, deadline)

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
            await run_close(partial(_close_if_open, self), self)
        else:
            self.abort()


def _close_if_open(handle: int) -> CloseReport:
    # Others may have closed it since the block ended: beginning may let them run.
    if handle not in open_handles:
        return CloseReport()
    return blocking.close(handle, within(CLOSE_GRACE))


async def close(
    handle: int, deadline: int = FOREVER, *, drain_limit: int | None = None
) -> CloseReport:
    """Close in good order, as `umbel.close`. It is closed even if canceled."""
    call = partial(blocking.close, handle, deadline, drain_limit=drain_limit)
    return await run_close(call, handle)


async def run_close(call: Callable[[], CloseReport], handle: int) -> CloseReport:
    """Run what closes *handle*; close it hard if the task was canceled before."""
    try:
        host = await begin()
        return await host.run(call)
    except Exception:
        raise  # *call* has begun, or there is no loop to begin in
    except BaseException:
        hclose_if_open(handle)
        raise


def as_stream(handle: AnyStream) -> StreamHandle:
    """Type *handle* for a blocking verb, whose types keep async handles from users."""
    return cast("StreamHandle", handle)
