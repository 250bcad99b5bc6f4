"""Ways between threads: into another thread's hub, and out to a worker thread."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from umbel._kernel.current import checkpoint, current_hub
from umbel.coroutines.bundles import Bundle
from umbel.coroutines.future import Future
from umbel.coroutines.member import ASYNC_ADVICE, Member
from umbel.deadline import FOREVER
from umbel.errors import require_deadline, system_error, unawaited
from umbel.handle import lookup, open_handles

if TYPE_CHECKING:
    from umbel.coroutines.bundle_handle import BundleHandle

P = ParamSpec("P")
R = TypeVar("R")


def bundle_go_threadsafe(
    handle: BundleHandle,
    function: Callable[P, object],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Start a coroutine in a bundle that another thread has made; from any thread.

    It runs in the bundle's thread, when that thread next waits in a call of umbel, with
    a copy of the caller's context variables. Never blocks.

    Args:
        handle: the bundle. If it is closed before it has heard of the coroutine, that
            never runs; if just after, it is canceled at its first wait.
        function: what to run.
        *args: for it.
        **kwargs: for it.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a bundle.
        OSError: ESRCH, the thread that made it has ended.

    Source:
        own; asyncio's call_soon_threadsafe with a bundle to live in.
    """
    bundle = lookup(handle, Bundle)
    hub = bundle.hub
    if hub.is_abandoned:
        message = f"the thread that made bundle {int(handle)} has ended"
        raise system_error(errno.ESRCH, message)
    context = copy_context()

    def start() -> None:
        # By its present number: hown may have given it a new one.
        is_open = open_handles.get(bundle.number) is bundle
        if is_open and not hub.is_abandoned:
            member = Member(bundle, function, args, kwargs, None)
            # Complete, before another thread can find it in the bundle.
            hub.prepare(member, context)
            bundle.running[member] = None
            hub.ready.append(member)

    hub.post(start)


def to_thread(function: Callable[[], R], deadline: int = FOREVER) -> R:
    """Run blocking work in a thread of its own, while other coroutines go on.

    A thread can't be stopped: after ETIMEDOUT or ECANCELED it runs on to its end, what
    it returns or raises is dropped, and the program's end does not wait for it.

    Args:
        function: the work, without arguments (for others use a lambda, or
            functools.partial). It has a copy of the caller's context variables.
        deadline: see `umbel.deadline`.

    Returns:
        what *function* returned.

    Raises:
        DeadlineError: ETIMEDOUT, it was not ready in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: EAGAIN, the system has no room for another thread.
        TypeError: *function* is async, or *deadline* is no int: arguments are not given
            here.
        BaseException: what *function* raised.

    Source:
        own; asyncio.to_thread with a deadline.
    """
    # The look is for programs that no type checker reads.
    require_deadline(deadline)
    future = Future[R](checkpoint())
    thread = threading.Thread(
        target=_work,
        args=(future, copy_context(), function),
        name="umbel.to_thread",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError as error:  # which is what Python makes of EAGAIN
        message = f"{error}: raise ulimit -u, or the cgroup's pids.max"
        raise system_error(errno.EAGAIN, message) from None
    hub = current_hub()
    hub.working += 1
    try:
        future.wait(deadline)
    finally:
        hub.working -= 1
    return future.result()


def _work(future: Future[R], context: Context, function: Callable[[], R]) -> None:
    try:
        value = context.run(function)
        if isinstance(value, CoroutineType):
            raise unawaited(value, ASYNC_ADVICE)
    except BaseException as error:  # noqa: BLE001 - raised in the coroutine
        future.end(None, error)
    else:
        future.end(value, None)
    finally:
        del future  # or an error that nobody waits for would refer to itself
