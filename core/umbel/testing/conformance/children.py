"""Forked children, for behaviours that are about processes."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Run *work* in a forked child; give a function that waits for its exit status."""
    with warnings.catch_warnings():
        # Python 3.12 warns of other threads: the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os._exit(_run(work))
    is_running = True

    def wait() -> int:
        nonlocal is_running
        is_running = False
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    try:
        yield wait
    finally:
        if is_running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


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
