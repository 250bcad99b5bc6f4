"""The only module that knows greenlet.

A carrier is a greenlet on which one coroutine after another runs. Making one
costs several times more than a switch (its data stack is mapped anew), so a
carrier is used again: it asks for the next coroutine when one ends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from types import FrameType
from typing import Final, TypeAlias

from greenlet import getcurrent, greenlet

Carrier: TypeAlias = greenlet

#: The carrier that the caller runs on.
current_carrier: Final = getcurrent


def current_context() -> Context:
    """Give the caller's context variables themselves, not a copy."""
    context = getcurrent().gr_context  # one without variables is false
    return copy_context() if context is None else context


def frame_of(carrier: Carrier) -> FrameType | None:
    """Give the frame in which *carrier* waits; None if it runs, or never has."""
    return carrier.gr_frame


def inherit_context(carrier: Carrier, context: Context | None = None) -> None:
    """Give *carrier*, which does not run, its context variables: a copy of ours."""
    carrier.gr_context = copy_context() if context is None else context


def make_carrier(body: Callable[[], object], parent: Carrier) -> Carrier:
    """Make a carrier that will run *body* from the first switch to it.

    Args:
        body: runs coroutines until its hub is gone.
        parent: where control goes should *body* ever return.

    Returns:
        the carrier, not started.
    """
    return greenlet(body, parent)


def unwind(carrier: Carrier) -> None:
    """End *carrier*, which does not run, by an exception where it waits."""
    carrier.parent = getcurrent()  # that is where control comes back to
    carrier.throw()
