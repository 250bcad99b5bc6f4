"""Waits of a signal's handler, in the midst of a wait of the coroutine it interrupted.

Both wait as the same coroutine. What ended the handler's wait may have been meant for
the other one: that is made to look once more, and an error that was meant for it is
kept for it (`Hub.to_look`). See docs/decisions/0008-exit-on-signal.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel._kernel.loops import running_loop
from umbel.errors import BadHandleError, DeadlineError, UmbelError

if TYPE_CHECKING:
    from umbel._kernel.coroutine import Coroutine
    from umbel._kernel.hub import Hub


def must_look_first(hub: Hub, me: Coroutine) -> bool:
    """Tell whether *me*, whose wait begins, is not to wait: something came just now."""
    me.must_look = False
    if me.pending is not None and not me.is_shielded:
        me.raise_pending()
    if hub.evictions.is_leaving(me):
        raise BadHandleError  # which the handler was told
    return me is not hub.main or not running_loop()  # there it must be refused


def try_once(hub: Hub, me: Coroutine) -> None:
    """Look at events, as `Hub.park` with a deadline that is over."""
    is_within = me.is_parked  # as in park
    to_look: dict[Coroutine, UmbelError | None] = {}
    if is_within:  # what it still owes that wait does not end this one
        to_look, hub.to_look = hub.to_look, to_look
    me.is_parked = True
    try:
        hub.collect(0)
    except BaseException:
        hub.end_wait(me)
        raise
    has_come = not me.is_parked
    if has_come:
        hub.ready.remove(me)
    if is_within:
        hub.to_look |= to_look
        if has_come or to_look:
            go_back_to_wait(hub, me)
            if isinstance(me.outcome, UmbelError):
                # Maybe of that wait's, which is told then; this one is over anyway.
                me.outcome, has_come = None, False
    if not has_come:
        me.is_parked = is_within
        raise DeadlineError
    me.must_look = True  # a handler: it may have come for a wait that was to begin
    if me.outcome is not None:
        me.raise_outcome()


def go_back_to_wait(hub: Hub, me: Coroutine) -> None:
    """Let a handler leave the wait of *me* in which it has waited."""
    # What was to end that wait may have ended this one: let it look, later on. Not at
    # once, as the handler may wait again.
    me.is_parked = True
    error = hub.to_look.get(me)
    if isinstance(me.outcome, UmbelError) and not hub.evictions.is_leaving(me):
        # Not ours: here we could only be evicted from what we use.
        error, me.outcome = me.outcome, None
    hub.to_look[me] = error
    hub.inbox.ring()


def let_all_look(hub: Hub) -> None:
    """Wake all in whose waits handlers have waited."""
    to_look, hub.to_look = hub.to_look, {}
    for coroutine, error in to_look.items():
        if hub.evictions.is_leaving(coroutine):
            hub.unpark(coroutine, BadHandleError())  # the handler has heard it
        else:
            hub.unpark(coroutine, error)
