"""Signals that end the program in good order."""

from __future__ import annotations

import signal
from types import FrameType

from umbel._kernel.hub import current_hub


def exit_on_signal(*numbers: int) -> None:
    """Let signals raise SystemExit in the main coroutine, where it waits or next calls.

    A handler that raises does so wherever the program happens to be: also in the middle
    of a switch between coroutines, or between the making of a file and of what would
    remove it. This one lets the main coroutine be interrupted at its calls of umbel
    alone, so that every `with` and `finally` is run.

    Args:
        numbers: of the signals; none: SIGTERM and SIGINT. The exit status is 128 and
            the number. To be called in the main thread.

    Raises:
        ValueError: this is not the main thread.

    Source:
        own; Python's signal documentation warns of handlers that raise.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        error = SystemExit(128 + number)
        hub = current_hub()  # of the main thread, where handlers run; a child's own
        hub.post(lambda: hub.interrupt(hub.main, error))

    for number in numbers or (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
