"""Ways between threads."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import umbel
from tests.support import (
    PATIENCE,
    Ends,
    lateness,
    run_python,
    soon,
    wait_until,
    wait_until_blocked,
)
from umbel.coroutines.bundles import Bundle
from umbel.fd import is_open
from umbel.handle import lookup
from umbel.spi import ListenerAttempts
from umbel.streams.connection import find_connection
from umbel.streams.listener import Listening


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


def test_a_coroutine_that_never_waits_is_canceled_from_another_thread(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends
    bundles: list[umbel.BundleHandle] = []
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            umbel.bsend(left, b"x")
            umbel.brecv(right, 1)

    def work() -> None:
        bundles.append(umbel.bundle())
        bundles[0].go(spin)
        umbel.bundle_wait(bundles[0])  # nobody is ready, no timer, nothing is watched

    working = threads.submit(work)
    wait_until(lambda: bundles and lookup(bundles[0], Bundle).waiting)
    closing = threads.submit(umbel.hclose, bundles[0])
    try:
        closing.result(PATIENCE)
    finally:
        is_over.set()

    with suppress(umbel.BadHandleError):
        working.result()


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


def test_an_argument_that_is_taken_for_a_deadline_is_refused() -> None:
    with pytest.raises(TypeError, match="'x'"):
        umbel.to_thread(repr, "x")  # type: ignore[arg-type]  # as asyncio's takes it


def test_without_room_for_a_thread_it_is_eagain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", start)

    with pytest.raises(BlockingIOError, match=r"pids\.max") as told:
        umbel.connect("tcp://localhost:1", umbel.within(PATIENCE))
    assert told.value.errno == errno.EAGAIN


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


def test_the_error_of_abandoned_work_keeps_nothing_alive() -> None:
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []
    gate = threading.Event()

    def work() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        gate.wait(PATIENCE)
        raise ValueError(large)

    gc.disable()
    try:
        with pytest.raises(umbel.DeadlineError):
            umbel.to_thread(work, umbel.within(0.01))
        gate.set()
        wait_until(lambda: seen and seen[0]() is None, "its end")
    finally:
        gc.enable()


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


# Closed while another thread is in a call.


class Held:
    """A call that stands still, as if within the system, until it `may_go_on`."""

    def __init__(self, call: Callable[..., object]) -> None:
        self.call = call
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, *arguments: object) -> object:
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE)
        return self.call(*arguments)


def hold(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> Held:
    held = Held(getattr(target, name))
    monkeypatch.setattr(target, name, held)
    return held


def call_and_go_on(call: Callable[[], object]) -> None:
    """Make a call that may be told of a close, and others that must not be."""
    with suppress(umbel.BadHandleError):
        call()
    umbel.msleep(0)
    umbel.yield_()


def test_a_hard_close_frees_the_descriptor_once_the_last_call_has_ended(
    ends: Ends, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    fd = left.fileno()
    umbel.bsend(right, b"x")
    receive = hold(monkeypatch, find_connection(left), "try_receive")
    send = hold(monkeypatch, find_connection(left), "try_send")
    receiving = threads.submit(call_and_go_on, partial(umbel.receive, left))
    sending = threads.submit(call_and_go_on, partial(umbel.bsend, left, b"y"))
    assert receive.has_begun.wait(PATIENCE)
    assert send.has_begun.wait(PATIENCE)

    umbel.hclose(left)
    states = [is_open(fd)]
    for held, call in ((receive, receiving), (send, sending)):
        held.may_go_on.set()
        call.result()
        states.append(is_open(fd))

    assert states == [True, True, False]


def test_an_orderly_close_begins_once_the_call_has_ended(
    ends: Ends, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    umbel.bsend(right, b"x")
    umbel.done(right)
    held = hold(monkeypatch, find_connection(left), "try_receive")
    receiving = threads.submit(call_and_go_on, partial(umbel.receive, left))
    assert held.has_begun.wait(PATIENCE)

    closing = umbel.go(umbel.close, left, soon())
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(right, 1, umbel.within(0.02))  # no end has come
    held.may_go_on.set()
    receiving.result()

    umbel.bundle_wait(closing, soon())
    umbel.hclose(closing)


def test_who_has_accepted_as_the_listener_closed_fails_in_no_other_call(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock")
    client = umbel.ipc_connect(tmp_path / "x.sock")
    found = lookup(listener, Listening)
    assert found.attempts is not None
    held = Held(found.attempts.accept)
    found.attempts = ListenerAttempts(
        held,  # type: ignore[arg-type]  # it gives what accept does
        found.attempts.readiness,
    )

    def accept() -> None:
        umbel.hclose(umbel.accept(listener))

    accepting = threads.submit(call_and_go_on, accept)
    assert held.has_begun.wait(PATIENCE)
    umbel.hclose(listener)
    held.may_go_on.set()

    accepting.result()
    umbel.hclose(client)


@pytest.mark.parametrize("close", [umbel.hclose, umbel.close], ids=["hard", "orderly"])
def test_a_listeners_descriptor_is_freed_once_another_thread_has_left_accept(
    tmp_path: Path, close: Callable[[int], object]
) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock")
    found = lookup(listener, Listening)
    assert found.attempts is not None
    fd = found.attempts.readiness.fd
    held = Held(found.attempts.accept)
    found.attempts = ListenerAttempts(
        held,  # type: ignore[arg-type]  # it gives what accept does
        found.attempts.readiness,
    )

    def work() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.accept(listener)

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(work)
        assert held.has_begun.wait(PATIENCE)
        closing = pool.submit(close, listener)
        wait_until(lambda: found.is_closed)
        was_open = is_open(fd)
        held.may_go_on.set()
        working.result(PATIENCE)
        closing.result(PATIENCE)

    assert was_open
    assert not is_open(fd)


def test_a_listener_is_closed_at_once_though_its_accepter_is_kept_from_going_on(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock")
    lock = threading.Lock()

    def accept() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.accept(listener)

    def accept_and_lock() -> None:
        with umbel.go(accept):
            is_waiting.set()
            with lock:
                pass

    is_waiting = threading.Event()
    with lock:
        accepting = threads.submit(accept_and_lock)
        assert is_waiting.wait(PATIENCE)
        umbel.close(listener)
        assert not (tmp_path / "x.sock").exists()

    accepting.result(PATIENCE)


def test_a_canceled_coroutine_closes_a_listener_that_another_thread_accepts_from(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock")
    reports: list[umbel.CloseReport] = []

    def accept() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.accept(listener)

    def hold() -> None:
        try:
            umbel.msleep(-1)
        finally:
            reports.append(umbel.close(listener))

    accepting = threads.submit(accept)
    wait_until_blocked(listener)
    umbel.hclose(umbel.go(hold))

    assert len(reports) == 1
    accepting.result(PATIENCE)


def test_a_task_closes_a_listener_that_another_thread_accepts_from(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock")

    def accept() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.accept(listener)

    async def main() -> None:
        umbel.close(listener)  # it need not wait

    accepting = threads.submit(accept)
    wait_until_blocked(listener)
    asyncio.run(main())

    accepting.result(PATIENCE)
