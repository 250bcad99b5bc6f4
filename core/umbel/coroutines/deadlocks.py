"""Who would wait for itself: a coroutine for a bundle that can't end before it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from umbel._kernel.coroutine import Coroutine
from umbel.coroutines.member import Member
from umbel.errors import system_error

if TYPE_CHECKING:
    from umbel.coroutines.bundles import Bundle


def require_outside(bundle: Bundle, me: Coroutine) -> None:
    """Refuse to let *me* wait for what can't end before *me* does: EDEADLK."""
    held_up, seen = [me], {me}
    for one in held_up:  # which grows
        if one in bundle.running:
            break
        if isinstance(one, Member):
            found = [other for other in one.bundle.bound() if other not in seen]
            held_up += found
            seen.update(found)
    else:
        return
    if one is me:
        message = (
            f"coroutine {me.name} waits for the bundle that it runs in itself: "
            "return from it instead, or let another coroutine close the bundle"
        )
    else:
        message = (
            f"coroutine {me.name} waits for a bundle whose coroutine {one.name} "
            f"can't end before {me.name} does: return from it instead, or let a "
            "coroutine outside of both close the bundle"
        )
    raise system_error(errno.EDEADLK, message)
