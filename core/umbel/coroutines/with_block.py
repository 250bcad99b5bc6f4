"""The `with` block of a bundle, whose code is interrupted once a coroutine has failed.

As in trio, anyio and asyncio's TaskGroup: code that waits for what the failed coroutine
was to do would wait for ever. Where the block waits next, `Canceled` is raised; the end
of the block takes that back, and raises what has failed.
"""

from __future__ import annotations

import itertools
from typing import Final, final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import current_hub, local
from umbel._kernel.hub import Hub
from umbel._kernel.loops import running_loop
from umbel.errors import BadHandleError, Canceled

_numbers: Final = itertools.count(1)


class Interruption(Canceled):
    """What is pending in a coroutine whose `with` block is to end."""

    block: WithBlock


@final
class WithBlock:
    """A `with` block, and the coroutine that is in it.

    Attributes:
        owner: that coroutine.
        failure: what it is to be interrupted for.
        has_ended: it is interrupted no more.
    """

    __slots__ = (
        "_interruption",
        "_is_in_task",
        "_is_listening",
        "_number",
        "_put_off",
        "failure",
        "has_ended",
        "owner",
    )

    def __init__(self, owner: Coroutine) -> None:
        self.owner = owner
        self.failure: BaseException | None = None
        self.has_ended = self._is_listening = False
        #: While it is pending: else each would keep the other.
        self._interruption: Interruption | None = None
        #: One within another has the larger number.
        self._number = next(_numbers)
        #: Those within it that have failed too, whose turn comes if it is told first.
        self._put_off: list[WithBlock] = []
        # Then it is not main's: after the loop, or between two runs, that is elsewhere.
        self._is_in_task = owner is owner.hub.main and bool(running_loop())

    def interrupt(self, failure: BaseException) -> None:
        """Raise `Canceled` where the block waits, now or later. From any thread."""
        self.failure = failure
        self.owner.hub.reach(self._interrupt)

    def _interrupt(self) -> None:
        owner = self.owner
        hub = owner.hub
        if self.has_ended or self._is_in_task or self._is_listening:
            return
        if self.failure is None:
            return  # it was told meanwhile
        if owner is hub.main and hub.host is not None and running_loop():
            # A loop can't be canceled: it is for what comes after.
            if self._displaces(hub.held_back):
                hub.held_back = self._make_interruption()
        elif self._displaces(owner.pending):
            hub.interrupt(owner, self._make_interruption())

    def _make_interruption(self) -> Interruption:
        self._interruption = made = Interruption()
        made.block = self
        return made

    def _displaces(self, pending: BaseException | None) -> bool:
        """Tell whether it comes first; the other of two blocks is put off."""
        if isinstance(pending, Interruption):
            other = pending.block
            if self._number < other._number:
                self._put_off.append(other)
                return True
            if self is not other:
                other._put_off.append(self)
            return False
        # A cancellation is for good, and what ends the program comes first.
        return pending is None or isinstance(pending, BadHandleError)

    def take_back(self) -> BaseException | None:
        """Interrupt it no more, as it is told now; give what the failure was."""
        owner = self.owner
        if owner.pending is self._interruption:
            owner.pending = None
        if owner.hub.held_back is self._interruption:
            owner.hub.held_back = None
        self._interruption = None
        failure, self.failure = self.failure, None
        put_off, self._put_off = self._put_off, []
        for block in put_off:
            block._interrupt()
        return failure

    def listen(self) -> BaseException | None:
        """As `take_back`, until `go_on`: it waits for the bundle, and is told."""
        self._is_listening = True
        return self.take_back()

    def go_on(self) -> None:
        """Be interrupted again, but not for what came meanwhile."""
        self._is_listening = False
        self.take_back()

    def end(self) -> BaseException | None:
        """As `take_back`, for good."""
        self.has_ended = True
        return self.take_back()


def lenient_checkpoint() -> Hub:
    """As `checkpoint`, but no interruption of a `with` block is raised.

    For what a block does with its bundle: how far it comes does not depend on how soon
    a coroutine fails.

    Returns:
        the calling thread's hub.
    """
    # Its code once more: the call would be a part of what starting costs.
    try:
        hub = local.hub
    except AttributeError:
        hub = current_hub()
    try:
        hub.budget -= 1
        if hub.budget < 0:
            hub.spend_budget()
        me = hub.current
        if me.pending is not None and not me.is_shielded:
            me.raise_pending()
    except Canceled:
        if not isinstance(hub.current.pending, Interruption):
            raise
    return hub
