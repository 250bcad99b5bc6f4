"""The way back: a coroutine of umbel's waits for something of its host's."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel.aio.aio_host import AioHost, drop
from umbel.aio.hosting import LOOK
from umbel.coroutines.future import Future
from umbel.deadline import FOREVER
from umbel.errors import Canceled, DeadlineError

T = TypeVar("T")


def wait(awaitable: Awaitable[T], deadline: int = FOREVER) -> T:
    """Await something of the loop's, in a coroutine of umbel's that the loop hosts.

    It also works in code that `run_blocking` runs. A task uses `await` instead.

    Args:
        awaitable: a coroutine of async/await, a future, a task.
        deadline: see `umbel.deadline`.

    Returns:
        what it gave.

    Raises:
        DeadlineError: ETIMEDOUT. *awaitable* was canceled, and has stopped.
        Canceled: ECANCELED, the calling coroutine is being canceled. Likewise.
        BaseException: what it raised, also in place of its cancellation.
        RuntimeError: no loop hosts the calling coroutine, or the caller is a task.

    Source:
        own; asgiref's async_to_sync without its threads.
    """
    me = current_hub().current
    try:
        host = _host_of(me)
    except BaseException:
        drop(awaitable)
        raise
    future = Future[T](me)
    cancel = host.begin(awaitable, future.end)
    try:
        checkpoint()  # only now: if we are being canceled, so is what we wait for
        future.wait(deadline)
    except BaseException as error:
        cancel()
        was_shielded, me.is_shielded = me.is_shielded, True
        try:
            while not future.is_over:
                if me.hub.main.is_parked or me.hub.host is not host:
                    raise  # the loop is stopped until we are gone: it ends without us
                try:
                    future.wait(me.hub.clock() + LOOK)
                except DeadlineError:
                    pass  # look again
        finally:
            me.is_shielded = was_shielded
        # What it gave all the same counts, lest bytes be lost: see Future.wait. So does
        # an error that it met as it ended, which nobody else would be told of.
        if not isinstance(error, (DeadlineError, Canceled)) or isinstance(
            future.error, host.cancellation
        ):
            raise
    return future.result()


def _host_of(me: Coroutine) -> AioHost:
    hub = me.hub
    host = hub.host
    if isinstance(host, AioHost) and host.is_running() and me is not hub.main:
        return host
    advice = "await it instead" if me is hub.main else "no loop hosts this thread"
    message = f"umbel.aio.wait is for coroutines of umbel's in a host loop: {advice}"
    raise RuntimeError(message)
