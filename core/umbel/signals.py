"""Signals that end the program in good order."""

from __future__ import annotations

import os
import signal
from _thread import get_ident
from types import FrameType
from typing import Final

from umbel._kernel.current import current_hub
from umbel._kernel.loops import upstairs


def exit_on_signal(*numbers: int) -> None:
    """Let signals raise SystemExit in the main coroutine. Call it in the main thread.

    A handler that raises does so wherever the program happens to be: perhaps in the
    middle of a switch between coroutines, or when a file has been made and the code
    that would remove it is not yet in place. This one interrupts the main coroutine
    only in its calls of umbel, where it waits or at the next call, so that every `with`
    and `finally` runs. Where an asyncio or trio loop runs in the main thread, the loop
    is ended, as by a task that raises SystemExit.

    It is for this process. What it forks, such as a worker of multiprocessing, has
    these signals' default actions, which end it at once, wherever it waits; to end in
    good order, it calls this as well.

    Args:
        numbers: of the signals; none: SIGTERM and SIGINT. The exit status is 128 plus
            the number.

    Raises:
        ValueError: this is not the main thread, or there is no such signal.
        OSError: EINVAL, a signal can't be handled, such as SIGKILL.

    Source:
        own; Python's signal documentation warns of handlers that raise.
    """
    hub = current_hub()  # now, lest a handler come in the middle of its making
    wanted = numbers or (signal.SIGTERM, signal.SIGINT)
    for number in wanted:
        signal.signal(number, _leave)
    hub.inbox.hear_signals()
    if not _numbers:
        os.register_at_fork(
            before=_hold_back, after_in_parent=_let_come, after_in_child=_begin_anew
        )
    _numbers.update(wanted)
    _join_loop()


def _leave(number: int, _frame: FrameType | None) -> None:
    error = SystemExit(128 + number)
    hub = current_hub()  # of the main thread, where handlers run
    hub.post(lambda: hub.interrupt(hub.main, error))
    _join_loop()


def _join_loop() -> None:
    # A loop that has not met umbel yet would not hear of it.
    if current_hub().is_stranger():
        upstairs("entry").enter_soon()


#: Which signals end the program; empty: none does.
_numbers: Final[set[int]] = set()
#: By thread that forks: which signals were held back there anyway.
_held: Final[dict[int, set[signal.Signals | int]]] = {}


# Fork. A child may never make a call of umbel, but wait for a queue, while its parent
# waits for its end. What a handler raised there would be lost wherever Python swallows
# errors, as in fork's own hooks; and just before a system call Python runs no handler.


def _hold_back() -> None:
    _held[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _numbers)


def _let_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.pop(get_ident()))


def _begin_anew() -> None:
    signal.set_wakeup_fd(-1)  # the parent's: it must not be told
    for number in _numbers:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_DFL)
    _let_come()
