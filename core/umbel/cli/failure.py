"""What a failed command says, and the exit status that stands for its errno."""

from __future__ import annotations

import errno
from typing import Final

import umbel
from umbel.telling import say

#: From here on a shell's own meanings begin.
HIGHEST_STATUS: Final = 125

_LATE: Final = (
    "the deadline was reached: give a longer --deadline, or none to wait for ever"
)


def _leaf(error: BaseException) -> BaseException:
    # Of several coroutines that failed, the first one's failure brought the others'.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def status_of(error: BaseException) -> int:
    """Give the exit status for *error*: its errno, or 1 if it has none to show."""
    number = getattr(_leaf(error), "errno", None) or 1
    return number if 0 < number <= HIGHEST_STATUS else 1


def report_failure(what: str | None, error: BaseException) -> None:
    """Say on standard error what went wrong, by the errno's name."""
    cause = _leaf(error)
    name = errno.errorcode.get(getattr(cause, "errno", None) or 0)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if text == umbel.DeadlineError.advice and what in ("listen", "connect"):
        text = _LATE  # that one is for who writes a program
    filename = getattr(cause, "filename", None)
    place = f" ({filename})" if filename else ""
    start = f"{name}: " if name else ""
    command = f"umbel {what}" if what else "umbel"
    say(f"{command}: {start}{text}{place}")
