"""Somebody else's event loop in this thread, which waiting would stop."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from umbel.errors import as_refusal
from umbel.values.frames import is_ours

if TYPE_CHECKING:  # as that of a poller
    from typing import Protocol

    class Host(Protocol):
        """The event loop whose guest a hub is."""

        def is_running(self) -> bool:
            """Tell whether this very loop is the one that runs in this thread now."""

        def leave_if_over(self) -> None:
            """Let the hub be on its own again, if the loop has ended for good."""

        def leave(self) -> None:
            """Let the hub be on its own again. Again: no effect."""

        def poke(self) -> None:
            """Have a turn come soon."""


def upstairs(name: str) -> ModuleType:
    """Give the module *name* of `umbel.aio`, for those below it.

    It knows loops, and is imported only where one runs. This is the one door to a layer
    above, which import-linter does not see; a house test sees to it.
    """
    return import_module(f"umbel.aio.{name}")


#: Of a run of trio's that a fork has left to the parent.
_parents_token: object = None


def running_loop() -> str:
    """Name the event loop that runs in this thread, and that waiting would stop."""
    modules = sys.modules
    asyncio = modules.get("asyncio")
    loop: object = None
    if asyncio is not None:
        # Another thread may be in the middle of importing it.
        find = getattr(asyncio, "_get_running_loop", None)
        loop = None if find is None else find()
    lowlevel = modules.get("trio.lowlevel")
    if lowlevel is not None and _is_in_trio(lowlevel) and not _is_parents(lowlevel):
        # Both: one runs in a task of the other, and the inner one's hooks are set.
        hook = sys.get_asyncgen_hooks().firstiter
        is_asyncio = loop is not None and getattr(hook, "__self__", None) is loop
        return "asyncio" if is_asyncio else "trio"
    return "" if loop is None else "asyncio"


def _is_in_trio(lowlevel: ModuleType) -> bool:
    is_running = getattr(lowlevel, "in_trio_run", None)
    if is_running is not None:
        return bool(is_running())
    # Before trio 0.29 only what needs a run tells; or it is half imported, as above.
    find = getattr(lowlevel, "current_trio_token", None)
    try:
        return find is not None and find() is not None
    except RuntimeError:
        return False


def _is_parents(lowlevel: ModuleType) -> bool:
    # trio takes it for the child's; asyncio sees to this itself.
    token = _parents_token
    return token is not None and lowlevel.current_trio_token() is token


def _after_fork_in_child() -> None:
    global _parents_token  # noqa: PLW0603 - one fork leaves one run
    lowlevel = sys.modules.get("trio.lowlevel")
    if lowlevel is not None and _is_in_trio(lowlevel):
        _parents_token = lowlevel.current_trio_token()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def loop_error(loop: str, frame: FrameType | None) -> RuntimeError:
    """Make the error for who would stop *loop*, and stands in *frame*."""
    # The verb is what the program called: the outermost public function of ours. What
    # it called in turn may be a transport's, which may have called a verb itself: that
    # of tcp looks up names in a thread.
    public = sys.modules["umbel"].__all__
    verb = ""
    while frame is not None:
        if not is_ours(frame):
            if verb:
                break
        elif frame.f_code.co_name in public:
            verb = frame.f_code.co_name
        frame = frame.f_back
    # No function of ours: only at the end of a bundle's `with` block.
    what, verb = verb or "the end of a bundle's block", verb or "bundle_wait"
    message = (
        f"{what} would have to wait, and stop the {loop} loop of this thread: "
        f"await umbel.aio.{verb}, or umbel.aio.run_blocking for all that calls it, or "
        "make the call in a thread of its own"
    )
    return as_refusal(RuntimeError(message))
