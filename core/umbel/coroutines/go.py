"""Starting coroutines, waiting for them, and letting them rest: libdill's verbs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ParamSpec

from umbel._kernel.current import checkpoint, current_hub, local
from umbel.coroutines.bundle_handle import BundleHandle
from umbel.coroutines.bundles import Bundle
from umbel.coroutines.member import Member
from umbel.coroutines.with_block import lenient_checkpoint
from umbel.deadline import FOREVER
from umbel.errors import DeadlineError, require_deadline
from umbel.handle import lookup, open_handles, refusal, register

P = ParamSpec("P")


def bundle() -> BundleHandle:
    """Make a bundle in which nothing runs yet.

    Returns:
        its handle; `with bundle() as b:` waits at the end for what runs in it. When one
        of them fails, the rest is canceled at once, and so is the block where it waits
        next; its end raises what has failed. If the block fails, all are canceled; and
        if one of them fails then, its error is raised together with the block's.

    Raises:
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill bundle(3).
    """
    return register(Bundle(checkpoint().hub), BundleHandle)


def go(
    function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
) -> BundleHandle:
    """Start a coroutine, in a bundle of its own.

    It runs at once, until it first waits; the caller goes on after it.

    Args:
        function: what to run, no async one. What it returns is dropped, what it
            raises comes out of the bundle.
        *args: for it.
        **kwargs: for it.

    Returns:
        the bundle. Close it, or use it in a `with` block.

    Raises:
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill go(3).
    """
    hub = lenient_checkpoint()
    found = Bundle(hub)
    handle = register(found, BundleHandle)
    frame = sys._getframe(1)
    place = (frame.f_code, frame.f_lasti)
    hub.start(Member(found, function, args, kwargs, place))
    return handle


def bundle_go(
    handle: BundleHandle,
    function: Callable[P, object],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Start a coroutine in a bundle: at once, until it first waits.

    Args:
        handle: the bundle.
        function: what to run.
        *args: for it.
        **kwargs: for it.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a bundle.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill bundle_go(3).
    """
    hub = lenient_checkpoint()
    found = open_handles.get(handle)
    if type(found) is not Bundle:
        raise refusal(handle, Bundle)
    frame = sys._getframe(1)
    place = (frame.f_code, frame.f_lasti)
    hub.start(Member(found, function, args, kwargs, place))


def bundle_wait(handle: BundleHandle, deadline: int = FOREVER) -> None:
    """Wait until no coroutine runs in a bundle. It stays open and usable.

    Args:
        handle: the bundle.
        deadline: see `umbel.deadline`.

    Raises:
        ExceptionGroup: what escaped from its coroutines, and ESRCH for each whose
            thread has ended; a BaseExceptionGroup if one of them is not an Exception.
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a bundle.
        DeadlineError: ETIMEDOUT, something still runs.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: EDEADLK, the bundle can't end before the caller does.

    Source:
        libdill bundle_wait(3).
    """
    lenient_checkpoint()
    lookup(handle, Bundle).join(deadline)


def msleep(deadline: int) -> None:
    """Wait until *deadline*; -1 sleeps until canceled.

    Args:
        deadline: see `umbel.deadline`.

    Raises:
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill msleep(3).
    """
    hub = checkpoint().hub
    require_deadline(deadline)
    if 0 <= deadline <= hub.clock():
        hub.yield_now()
        return
    try:
        while True:
            hub.park(deadline)
    except DeadlineError:
        if hub.current.pending is not None:
            checkpoint()  # canceled in the moment in which it woke


def yield_() -> None:
    """Let the other coroutines that are ready run once.

    Raises:
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill yield(3).
    """
    # Hub.yield_now in one call, for it is what a switch costs.
    try:
        hub = local.hub
    except AttributeError:
        hub = current_hub()
    me = hub.current
    ready = hub.ready
    hub.budget -= 1
    if hub.budget <= 0 or not ready:
        hub.yield_now()
        return
    hub.is_switching = True  # from here on main may be in no place
    try:
        ready.append(me)
        # Not of `ready`: a host whose loop has ended may have left just now.
        target = hub.ready.popleft()
    finally:
        hub.is_switching = False
    hub.current = target
    target.carrier.switch()
    if me.pending is not None and not me.is_shielded:
        me.raise_pending()
