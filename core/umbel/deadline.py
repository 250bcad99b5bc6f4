"""Points in time.

A deadline is an `int`: milliseconds on the clock that `now` reads. -1 (`FOREVER`),
or any other negative number, waits for ever; 0, or any moment that has passed, tries
once without waiting. It holds for the whole call, however many system calls that takes.
"""

from __future__ import annotations

import math
from typing import Final

from umbel._kernel.current import current_hub
from umbel.errors import DeadlineError

#: The deadline that never comes.
FOREVER: Final = -1
#: Seconds that nobody waits for.
LONGEST: Final = 1e12
#: Pieces that a call may move without a wait before it lets others run.
FAIR: Final = 256


def now() -> int:
    """Read the clock of deadlines.

    Returns:
        milliseconds since an arbitrary moment; never goes back.

    Source:
        libdill now(3); CLOCK_MONOTONIC.
    """
    return current_hub().clock()


def within(seconds: float) -> int:
    """Make the deadline that comes *seconds* from now.

    Args:
        seconds: 0 or more; fractions are rounded up to the next millisecond, so
            that the deadline never comes early. `math.inf`, or more than anybody
            waits, gives `FOREVER`.

    Returns:
        a deadline.

    Raises:
        ValueError: *seconds* is negative or not a number.

    Source:
        own; libdill writes now() + 1000.
    """
    if seconds >= LONGEST:
        return FOREVER
    if not seconds >= 0:
        message = f"within({seconds!r}): give 0 or more seconds, or math.inf"
        raise ValueError(message)
    # One more for the part of the current millisecond that has passed already.
    return now() + math.ceil(seconds * 1000) + (1 if seconds else 0)


def soonest(first: int, second: int) -> int:
    """Give the deadline of the two that comes first."""
    if first < 0 or second < 0:  # for ever
        return max(first, second)
    return min(first, second)


def check_seconds(value: float, name: str) -> None:
    """Refuse what can't be a time to wait, before anything has begun.

    Args:
        value: of a parameter that is in seconds.
        name: of the parameter.

    Raises:
        ValueError: *value* is negative or not a number.

    Source:
        own.
    """
    if not value >= 0:
        message = f"{name} is {value!r}: give 0 or more seconds, or math.inf"
        raise ValueError(message)


def let_others_run(deadline: int) -> None:
    """Be fair amid a call whose stream gives piece after piece without a wait.

    Args:
        deadline: of that call.

    Raises:
        DeadlineError: ETIMEDOUT, it has passed.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        own.
    """
    hub = current_hub()
    if not hub.is_in_task():
        hub.yield_now()
    if 0 <= deadline <= hub.clock():
        raise DeadlineError
