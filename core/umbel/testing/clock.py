"""A clock that jumps to the next timer when all are blocked."""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import TypeVar

from umbel._kernel.current import current_hub
from umbel.coroutines.member import ASYNC_ADVICE
from umbel.errors import unawaited

T = TypeVar("T")


def run(main: Callable[[], T]) -> T:
    """Run *main* with a clock that jumps, so that an hour's deadline takes no time.

    Time stands still while any coroutine of this thread can run, or data is there to be
    received. When all of them wait, it jumps to the earliest deadline; if none has one,
    it waits for real events. While there is a deadline to jump to, it does not wait for
    other threads and processes: test those with real time. For `to_thread`, and the
    look-up of a host's name, it waits as long as the deadline is away.

    Args:
        main: what to run, without arguments.

    Returns:
        what *main* returned.

    Raises:
        TypeError: *main* is an async function.
        RuntimeError: a call of `umbel.aio`'s, in a loop that *main* runs.

    Source:
        own; trio's MockClock with autojump.
    """
    hub = current_hub()
    time_now = hub.clock()

    def jump(until: int) -> None:
        nonlocal time_now
        time_now = max(time_now, until)

    saved = hub.clock, hub.jump
    hub.clock, hub.jump = (lambda: time_now), jump
    try:
        result = main()
        if isinstance(result, CoroutineType):
            raise unawaited(result, ASYNC_ADVICE)
        return result
    finally:
        hub.clock, hub.jump = saved
