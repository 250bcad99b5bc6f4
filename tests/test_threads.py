"""Ways between threads."""

from __future__ import annotations

import contextvars
import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import umbel
from tests.support import PATIENCE, lateness, run_python, wait_until
from umbel.handle import lookup
from umbel.listener import Listening
from umbel.loaded import is_open
from umbel.spi import ListenerAttempts, Stream


def test_another_thread_starts_a_coroutine_here() -> None:
    ran: list[tuple[object, ...]] = []
    here = threading.get_ident()

    def run(value: int, *, key: str) -> None:
        umbel.yield_()
        ran.append((value, key, threading.get_ident()))

    with umbel.bundle() as b:
        thread = threading.Thread(
            target=lambda: umbel.bundle_go_threadsafe(b, run, 5, key="x")
        )
        thread.start()
        while not ran:
            umbel.msleep(umbel.within(0.01))
    thread.join()

    assert ran == [(5, "x", here)]


def test_a_bundle_waits_for_what_another_thread_started() -> None:
    ran: list[str] = []

    def run() -> None:
        umbel.msleep(umbel.within(0.02))
        ran.append("yes")

    b = umbel.bundle()
    umbel.bundle_go_threadsafe(b, run)
    umbel.yield_()  # it was told
    umbel.bundle_wait(b)
    umbel.hclose(b)

    assert ran == ["yes"]


def test_a_failure_of_what_another_thread_started_is_told() -> None:
    b = umbel.bundle()

    def fail() -> None:
        raise ValueError("mine")

    umbel.bundle_go_threadsafe(b, fail)
    umbel.yield_()
    with pytest.raises(ExceptionGroup) as caught:
        umbel.bundle_wait(b)
    umbel.hclose(b)

    assert "another thread" in caught.value.exceptions[0].__notes__[0]


def test_a_bundle_that_was_closed_meanwhile_starts_nothing() -> None:
    ran: list[str] = []
    b = umbel.bundle()

    umbel.bundle_go_threadsafe(b, ran.append, "no")
    umbel.hclose(b)
    umbel.yield_()

    assert ran == []
    with pytest.raises(umbel.BadHandleError):
        umbel.bundle_go_threadsafe(b, ran.append, "no")


def test_a_bundle_whose_thread_has_ended_is_esrch(threads: ThreadPoolExecutor) -> None:
    made: list[umbel.BundleHandle] = []
    thread = threading.Thread(target=lambda: made.append(umbel.bundle()))
    thread.start()
    thread.join()
    wait_until(lambda: _is_refused(made[0]))

    umbel.hclose(made[0])


def test_closing_does_not_wait_for_coroutines_whose_thread_has_ended() -> None:
    made: list[umbel.BundleHandle] = []
    thread = threading.Thread(target=lambda: made.append(umbel.go(umbel.msleep, -1)))
    thread.start()
    thread.join()
    wait_until(lambda: _is_refused(made[0]))

    umbel.hclose(made[0])  # or it would wait for ever


def _is_refused(b: umbel.BundleHandle) -> bool:
    try:
        umbel.bundle_go_threadsafe(b, print)
    except ProcessLookupError as error:
        return error.errno == errno.ESRCH
    return False


def test_context_variables_follow_into_the_other_thread() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def tell(b: umbel.BundleHandle) -> None:
        variable.set("the other's")
        umbel.bundle_go_threadsafe(b, lambda: seen.append(variable.get()))

    with umbel.bundle() as b:
        thread = threading.Thread(target=tell, args=(b,))
        thread.start()
        while not seen:
            umbel.msleep(umbel.within(0.01))
    thread.join()

    assert seen == ["the other's"]


def test_blocking_work_holds_up_no_other_coroutine() -> None:
    order: list[str] = []
    gate = threading.Event()

    def work() -> str:
        gate.wait(20)
        return "worked"

    def other() -> None:
        umbel.yield_()
        order.append("other")
        gate.set()

    with umbel.bundle() as b:
        b.go(other)
        order.append(umbel.to_thread(work))

    assert order == ["other", "worked"]


def test_what_the_work_raises_is_raised_here() -> None:
    def fail() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        umbel.to_thread(fail)


def test_work_that_is_too_late_is_left_to_itself() -> None:
    gate = threading.Event()

    assert lateness(lambda until: umbel.to_thread(gate.wait, until)) <= 40

    gate.set()


def test_waiting_for_work_can_be_canceled() -> None:
    gate = threading.Event()

    umbel.hclose(umbel.go(umbel.to_thread, gate.wait))

    gate.set()


def test_context_variables_follow_into_the_worker() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("mine")

    assert umbel.to_thread(variable.get) == "mine"


def test_the_programs_end_does_not_wait_for_a_thread_that_was_ringing() -> None:
    # Python stops daemon threads where they are: here, with the doorbell's lock held.
    code = """
import threading, time
import umbel
from umbel._kernel.current import current_hub
doorbell = current_hub().inbox._doorbell
taken = threading.Event()
def hold():
    with doorbell._lock:
        taken.set()
        time.sleep(1000)
threading.Thread(target=hold, daemon=True).start()
taken.wait()
"""
    run_python(code)


def test_the_programs_end_does_not_wait_for_abandoned_work() -> None:
    code = """
import time
import umbel
try:
    umbel.to_thread(lambda: time.sleep(100), umbel.within(0.01))
except umbel.DeadlineError:
    pass
"""
    start = time.monotonic()
    run_python(code)

    assert time.monotonic() - start < 20


class Slowly:
    """Accepts, but is inside the system call until it may go on."""

    def __init__(self, accept: Callable[[], Stream | None]) -> None:
        self._accept = accept
        self.is_inside = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self) -> Stream | None:
        self.is_inside.set()
        self.may_go_on.wait(PATIENCE)
        return self._accept()


@pytest.mark.parametrize("close", [umbel.hclose, umbel.close], ids=["hard", "orderly"])
def test_a_listeners_descriptor_is_freed_once_another_thread_has_left_accept(
    tmp_path: Path, close: Callable[[int], object]
) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock")
    found = lookup(listener, Listening)
    assert found.attempts is not None
    fd = found.attempts.readiness.fd
    accepting = Slowly(found.attempts.accept)
    found.attempts = ListenerAttempts(accepting, found.attempts.readiness)

    def work() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.accept(listener)

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(work)
        assert accepting.is_inside.wait(PATIENCE)
        closing = pool.submit(close, listener)
        wait_until(lambda: found.is_closed)
        was_open = is_open(fd)
        accepting.may_go_on.set()
        working.result(PATIENCE)
        closing.result(PATIENCE)

    assert was_open
    assert not is_open(fd)


def test_what_another_thread_starts_is_complete_before_it_is_found() -> None:
    def look() -> None:
        while not stop.is_set():
            umbel.census()

    stop = threading.Event()
    with umbel.bundle() as b, ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for _ in range(500):
            umbel.bundle_go_threadsafe(b, umbel.yield_)
            umbel.yield_()
        stop.set()
        looking.result(PATIENCE)


def test_what_is_run_may_have_arguments_of_any_name() -> None:
    given: list[int] = []

    def run(*, handle: int, function: int) -> None:
        given.extend((handle, function))

    with umbel.bundle() as b, umbel.go(run, handle=1, function=2):
        umbel.bundle_go(b, run, handle=3, function=4)
        b.go(run, handle=5, function=6)
        umbel.bundle_go_threadsafe(b, run, handle=7, function=8)
        umbel.yield_()

    assert sorted(given) == list(range(1, 9))
