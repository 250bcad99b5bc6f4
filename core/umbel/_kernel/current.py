"""The calling thread's hub: made on first use, gone with the thread or after a fork."""

from __future__ import annotations

import os
import sys
from _thread import _local as _thread_local  # threading takes as long as the kernel
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.hub import Hub

if TYPE_CHECKING:

    class _Local(Protocol):
        """What each thread has of its own."""

        hub: Hub
        closer: _Closer


class _Closer:
    """Ends a thread's hub when the thread ends and its locals go."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At exit a daemon thread may have been stopped for good while it held the
        # doorbell's lock; and what is open then is freed all the same.
        # Abandoned: it was closed by a fork.
        if not is_finalizing() and not self._hub.is_abandoned:
            _hubs.remove(self._hub)
            self._hub.end()


#: Where each thread keeps its hub; the fastest verbs look there themselves, in
#: its `__dict__`: any other attribute is found more slowly.
# Not a subclass of it: attributes of its instances are found more slowly.
local: Final = cast("_Local", _thread_local())
_forked_away: Final[list[Hub]] = []
_hubs: Final[list[Hub]] = []


def all_hubs() -> list[Hub]:
    """List the hubs of all threads that have one."""
    return list(_hubs)


def current_hub() -> Hub:
    """Give the calling thread's hub, made on first use."""
    try:
        return local.hub
    except AttributeError:
        return _make_hub()


def _make_hub() -> Hub:
    _require_plain_python()
    made = Hub()
    # A signal's handler may have made one meanwhile, and posted to it.
    hub = cast("Hub", local.__dict__.setdefault("hub", made))
    if hub is made:
        for other in all_hubs():
            if other.thread == hub.thread:
                # Made by a finalizer as that thread ended, and no closer came after it.
                _hubs.remove(other)
                other.end(may_switch=False)
        _hubs.append(hub)
        local.closer = _Closer(hub)
    else:
        made.close()
    return hub


def _require_plain_python() -> None:
    # gevent's sockets wait where the kernel's say EAGAIN, for ever, and what is local
    # to a thread is with it local to a greenlet, such as each coroutine's.
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(map(monkey.is_module_patched, ("socket", "thread"))):
        message = (
            "gevent has patched the standard library (monkey.patch_all), under which "
            "umbel can't work: use it in a process, or a worker, without gevent"
        )
        raise RuntimeError(message)


def checkpoint() -> Coroutine:
    """Begin a call that may block: be fair, and be canceled if that is pending.

    Returns:
        the calling coroutine.
    """
    try:
        hub = local.hub
    except AttributeError:
        hub = current_hub()
    hub.budget -= 1
    if hub.budget < 0:
        hub.spend_budget()
    me = hub.current
    if me.pending is not None and not me.is_shielded:
        me.raise_pending()
    return me


def _after_fork_in_child() -> None:
    # The child's coroutines are copies that must never run: their hub is kept, so
    # that nothing unwinds them, and a fresh one is made on first use.
    hub = local.__dict__.pop("hub", None)
    _hubs.clear()
    Hub.onlookers.clear()
    if hub is not None:
        _forked_away.append(hub)
        hub.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
