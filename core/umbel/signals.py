"""Signals that end the program in good order."""

from __future__ import annotations

import os
import signal
from _thread import get_ident
from importlib import import_module
from types import FrameType
from typing import Final, cast

from umbel._kernel.current import current_hub
from umbel._kernel.hub import BUDGET, UNUSED
from umbel._kernel.loops import running_loop


def exit_on_signal(*numbers: int) -> None:
    """Let signals raise SystemExit in the main coroutine. Call it in the main thread.

    A handler that raises does so wherever the program happens to be: perhaps in the
    middle of a switch between coroutines, or when a file has been made and the code
    that would remove it is not yet in place. This one interrupts the main coroutine
    only in its calls of umbel, where it waits or at the next call, so that every `with`
    and `finally` runs. Where an asyncio or trio loop runs in the main thread, the loop
    is ended, as by a task that raises SystemExit. A forked child that has made no call
    of umbel yet, such as a worker of multiprocessing, is interrupted wherever it is.

    Args:
        numbers: of the signals; none: SIGTERM and SIGINT. The exit status is 128 plus
            the number.

    Raises:
        ValueError: this is not the main thread.

    Source:
        own; Python's signal documentation warns of handlers that raise.
    """
    hub = current_hub()  # now, lest a handler come in the middle of its making
    hub.budget = min(hub.budget, BUDGET)  # a child that asks for it is no mere copy
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
    hub = current_hub()  # of the main thread, where handlers run; a child's own
    hub.post(lambda: hub.interrupt(hub.main, error))
    _join_loop()
    if hub.budget == UNUSED and not running_loop():
        # It may never make a call, but wait for a queue of multiprocessing's, while its
        # parent waits for its end. Beside the post: fork's own hooks swallow errors.
        raise error


def _join_loop() -> None:
    # A loop that has not met umbel yet would not hear of it.
    if current_hub().is_stranger():
        # By name: this is below what knows loops.
        import_module("umbel.aio.entry").enter_soon()


#: Which signals end the program; empty: none does.
_numbers: Final[set[int]] = set()
#: By thread that forks: which signals were held back there anyway.
_held: Final[dict[int, set[signal.Signals | int]]] = {}


# Fork. A child's signal that came before the child has a hub of its own would be told
# to the parent's.


def _hold_back() -> None:
    _held[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _numbers)


def _let_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.pop(get_ident()))


def _begin_anew() -> None:
    signal.set_wakeup_fd(-1)  # the parent's: it must not be told
    try:
        try:
            hub = current_hub()
            hub.inbox.hear_signals()
            hub.budget = UNUSED
        finally:  # also if no descriptor is left: nobody else would ever let them come
            _let_come()
    except SystemExit as error:
        os._exit(cast("int", error.code))  # nothing was begun, and nothing is to end
