"""Which loop runs in this thread: the hub becomes its guest at the first call."""

from __future__ import annotations

from _thread import _local as _thread_local
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar, cast

from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel._kernel.loops import running_loop
from umbel.aio.aio_host import AioHost
from umbel.errors import unawaited

if TYPE_CHECKING:

    class _Here(Protocol):
        """What each thread has of its own."""

        host: AioHost


P = ParamSpec("P")
R = TypeVar("R")


def enter() -> AioHost:
    """Give the host of this thread's hub, which is its guest from the first call on.

    Raises:
        RuntimeError: no loop runs here, or it does not run in the main program.
    """
    try:
        host = _here.host
    except AttributeError:
        return _attach()
    return host if host.is_running() else _attach()


def _attach() -> AioHost:
    hub = current_hub()
    hub.is_switching = True
    try:
        return _move_in(hub)
    finally:
        hub.is_switching = False


def _move_in(hub: Hub) -> AioHost:
    host: AioHost | None = getattr(_here, "host", None)
    if host is not None and host.is_running():
        return host  # a signal's handler has entered meanwhile
    if hub.host is not None:
        cast("AioHost", hub.host).leave()  # a loop that does not run any more
    loop = running_loop()
    if not loop:
        message = "umbel.aio needs a running asyncio or trio loop in this thread"
        raise RuntimeError(message)
    if hub.current is not hub.main:
        message = (
            f"the {loop} loop runs in a coroutine of umbel's, which it would never let "
            "others run beside: run it in the thread's main program"
        )
        raise RuntimeError(message)
    if loop == "trio":
        from umbel.aio.trio_host import TrioHost

        host = TrioHost(hub, enter)
    else:
        from umbel.aio.asyncio_host import AsyncioHost

        host = AsyncioHost(hub, enter)
    # What began before the loop goes on in it.
    host.poke()
    host.set_alarm()
    _here.host = host
    return host


def enter_soon() -> None:
    """Enter in the loop's next round; also from a signal's handler, amid whatever."""
    if running_loop() == "trio":
        import trio

        trio.lowlevel.current_trio_token().run_sync_soon(enter)
    else:
        import asyncio

        asyncio.get_running_loop().call_soon_threadsafe(enter)


async def begin() -> AioHost:
    """Begin a verb that may wait: be fair, and be canceled if each call must be."""
    host = enter()
    hub = host.hub
    hub.must_ask = host.checks_each_call
    hub.budget -= 1
    if hub.budget < 0 or host.checks_each_call:
        await host.pause()
    return host


async def run_blocking(
    function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run blocking umbel code in the calling task, while the loop goes on. No thread.

    It runs on a stack of its own: whatever it calls, at any depth, may use umbel's
    blocking verbs, which let the loop's other tasks run while they wait. Anything else
    that blocks, such as time.sleep, stops the loop as usual. It runs in the task's own
    context: context variables that it sets stay set.

    Args:
        function: what to run, such as a library written for umbel's blocking verbs.
        *args: for it.
        **kwargs: for it.

    Returns:
        what it returned.

    Raises:
        BaseException: what it raised. When the task is canceled, a blocking call in it
            raises `Canceled`, and so does each later one; once it has ended, the loop's
            own cancellation goes on in the task.
        RuntimeError: no asyncio or trio loop runs in this thread.
        TypeError: *function* is an async one, which is to be awaited as it is.

    Source:
        own; greenback's idea, with umbel's scheduler for its portal.
    """
    host = await begin()
    result = await host.run(partial(function, *args, **kwargs))
    if isinstance(result, CoroutineType):
        raise unawaited(result, "await it as it is")
    return result


async def run_undoable(call: Callable[[], R], undo: Callable[[R], object]) -> R:
    """Run blocking code, and *undo* what it gave just as the task was canceled."""
    host = await begin()
    return await host.run(call, undo)


# Not a subclass of it: attributes of its instances are found more slowly.
_here: Final = cast("_Here", _thread_local())
