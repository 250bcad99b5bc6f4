"""Forked children, for behaviours that are about processes."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: Pids of those that have not been waited for.
_running: Final[set[int]] = set()


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Run *work* in a forked child; give a function that waits for its exit status."""
    with warnings.catch_warnings():
        # Python 3.12 warns of other threads: the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os._exit(_run(work))
    _running.add(pid)

    def wait() -> int:
        status = os.waitpid(pid, 0)[1]
        _running.discard(pid)
        return os.waitstatus_to_exitcode(status)

    try:
        yield wait
    finally:
        if pid in _running:
            os.kill(pid, signal.SIGKILL)
            wait()


def kill_all() -> None:
    """End those that run, since nobody is going to wait for them any more."""
    for pid in tuple(_running):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # waited for in this very moment


def _run(work: Callable[[], object]) -> int:
    """Run *work* in a thread; give the exit status.

    Where a loop forked, the child has a copy of it: in its own thread it seems to run.
    """
    status = 1

    def run() -> None:
        nonlocal status
        work()
        status = 0

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return status
