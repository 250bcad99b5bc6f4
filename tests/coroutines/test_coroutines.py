"""Coroutines and bundles: when they run, how they end, who is told."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

import umbel
from tests.support import (
    Ends,
    calls,
    lateness,
    python,
    run_python,
    soon,
    wait_until,
    wait_until_blocked,
)
from umbel._kernel.current import current_hub
from umbel._kernel.hub import BUDGET, Hub
from umbel.coroutines.bundles import Bundle
from umbel.coroutines.member import Member
from umbel.handle import lookup


def test_a_coroutine_runs_at_once_until_it_first_waits() -> None:
    order: list[str] = []

    def run() -> None:
        order.append("begins")
        umbel.yield_()
        order.append("goes on")

    with umbel.go(run):
        order.append("the caller")

    assert order == ["begins", "the caller", "goes on"]


def test_arguments_are_passed_on() -> None:
    got: list[object] = []

    def run(*args: int, key: str) -> None:
        got.append((args, key))

    with umbel.go(run, 1, 2, key="x"), umbel.bundle() as b:
        umbel.bundle_go(b, run, 3, key="y")
        b.go(run, 4, key="z")

    assert got == [((1, 2), "x"), ((3,), "y"), ((4,), "z")]


def test_coroutines_go_on_in_the_order_in_which_they_became_ready() -> None:
    order: list[int] = []
    gate, gated = umbel.chmake(int)

    def run(i: int) -> None:
        with pytest.raises(umbel.EndOfStreamError):
            gated.receive()
        for _ in range(3):
            order.append(i)
            umbel.yield_()

    with umbel.bundle() as b:
        for i in range(4):
            b.go(run, i)
        gate.done()  # all together, however long their starting took
    umbel.hclose(gate)
    umbel.hclose(gated)

    assert order == [0, 1, 2, 3] * 3


def test_bundle_wait_returns_once_nothing_runs() -> None:
    finished: list[int] = []

    def run(i: int) -> None:
        umbel.msleep(umbel.within(0.01 * i))
        finished.append(i)

    b = umbel.bundle()
    umbel.bundle_wait(b, 0)
    for i in (2, 1):
        b.go(run, i)
    b.wait()

    assert finished == [1, 2]
    b.go(run, 0)  # it is usable as before
    umbel.hclose(b)


def test_bundle_wait_ends_at_its_deadline_and_cancels_nothing() -> None:
    b = umbel.go(umbel.msleep, -1)

    assert lateness(lambda until: umbel.bundle_wait(b, until)) <= 20
    with pytest.raises(umbel.DeadlineError):
        b.wait(0)

    umbel.hclose(b)


def test_closing_a_bundle_cancels_in_order_and_waits() -> None:
    order: list[object] = []

    def run(i: int) -> None:
        try:
            umbel.msleep(-1)
        except umbel.Canceled as error:
            order.append((i, error.errno))
            raise

    b = umbel.bundle()
    for i in range(3):
        b.go(run, i)
    umbel.hclose(b)

    assert order == [(i, errno.ECANCELED) for i in range(3)]


def test_every_blocking_call_of_a_canceled_coroutine_is_ecanceled(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"there is data")
    caught: list[int] = []
    listener = umbel.listen("mem://x")
    other = umbel.bundle()

    class Thing:
        def query(self, kind: object) -> None:
            return None

        def close(self) -> None:
            pass

    def run() -> None:
        try:
            umbel.msleep(-1)
        except umbel.Canceled:
            for call in calls(
                lambda: umbel.msleep(0),
                umbel.yield_,
                lambda: umbel.bsend(left, b"x"),
                lambda: umbel.brecv(left, 1),
                lambda: umbel.brecv(left, 0),
                lambda: umbel.receive(left),
                lambda: umbel.accept(listener, 0),
                lambda: umbel.connect("mem://x"),
                lambda: umbel.listen("mem://y"),
                umbel.ipc_pair,
                lambda: umbel.fdin(left.fileno()),
                lambda: umbel.fdout(left.fileno()),
                lambda: umbel.flush(left),
                lambda: umbel.bundle_wait(other, 0),
                lambda: umbel.go(print),
                lambda: umbel.bundle_go(other, print),
                umbel.bundle,
                lambda: umbel.hmake(Thing()),
                lambda: umbel.ipc_sendfd(left, 0),
                lambda: umbel.ipc_recvfd(left),
            ):
                with pytest.raises(umbel.Canceled) as error:
                    call()
                caught.append(error.value.errno)
            umbel.done(left)  # what does not block still works
            umbel.hclose(listener)
            raise

    umbel.hclose(umbel.go(run))

    assert caught == [errno.ECANCELED] * 20
    assert umbel.receive(right) == b""
    umbel.hclose(other)


def test_an_except_exception_does_not_swallow_the_cancellation() -> None:
    survived: list[str] = []

    def run() -> None:
        while True:
            try:
                umbel.msleep(-1)
            except Exception:
                survived.append("swallowed")

    umbel.hclose(umbel.go(run))

    assert survived == []


def test_a_coroutine_canceled_while_ready_is_canceled_at_its_next_call() -> None:
    reached: list[str] = []

    def run() -> None:
        umbel.yield_()
        reached.append("too far")

    umbel.hclose(umbel.go(run))

    assert reached == []


def test_failures_come_out_of_bundle_wait_once() -> None:
    def fail(message: str) -> None:
        umbel.yield_()
        raise ValueError(message)

    b = umbel.bundle()
    b.go(fail, "one")
    b.go(fail, "two")

    with pytest.raises(ExceptionGroup) as caught:
        umbel.bundle_wait(b)

    assert [str(e) for e in caught.value.exceptions] == ["one", "two"]
    assert "fail" in caught.value.exceptions[0].__notes__[0]
    umbel.bundle_wait(b)
    umbel.hclose(b)


def test_bundle_wait_does_not_cancel_the_siblings_of_a_failure() -> None:
    finished: list[str] = []

    def fail() -> None:
        raise ValueError

    def finish() -> None:
        umbel.msleep(umbel.within(0.01))
        finished.append("yes")

    b = umbel.bundle()
    b.go(finish)
    b.go(fail)
    with pytest.raises(ExceptionGroup):
        umbel.bundle_wait(b)
    umbel.hclose(b)

    assert finished == ["yes"]


def test_in_a_with_block_a_failure_cancels_the_siblings() -> None:
    canceled: list[str] = []

    def wait() -> None:
        try:
            umbel.msleep(soon())  # or the test's own timeout would cancel it
        except umbel.Canceled:
            canceled.append("yes")
            raise

    def fail() -> None:
        umbel.yield_()
        raise ValueError("mine")

    def both() -> None:
        with umbel.bundle() as b:
            b.go(wait)
            b.go(fail)

    with pytest.raises(ExceptionGroup) as caught:
        both()

    assert canceled == ["yes"]
    assert [type(e) for e in caught.value.exceptions] == [ValueError]


def test_a_with_block_whose_bundle_is_closed_while_it_waits_just_ends() -> None:
    def close() -> None:
        umbel.yield_()
        umbel.hclose(b)

    with umbel.bundle() as b:
        b.go(umbel.msleep, -1)
        closing = umbel.go(close)

    umbel.hclose(closing)


def test_a_with_block_that_fails_cancels_what_runs() -> None:
    b = umbel.bundle()

    def work() -> None:
        with b:
            b.go(umbel.msleep, -1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()

    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(b)


def test_hclose_raises_what_nobody_was_told_yet() -> None:
    def fail() -> None:
        raise ValueError

    b = umbel.go(fail)

    with pytest.raises(ExceptionGroup):
        umbel.hclose(b)
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(b)


def test_a_failure_while_being_canceled_is_told() -> None:
    def run() -> None:
        try:
            umbel.msleep(-1)
        finally:
            raise ValueError("in cleaning up")

    b = umbel.go(run)

    with pytest.raises(ExceptionGroup) as caught:
        umbel.hclose(b)

    assert str(caught.value.exceptions[0]) == "in cleaning up"


def test_a_canceled_that_someone_raised_by_hand_is_told() -> None:
    def run() -> None:
        raise umbel.Canceled

    with pytest.raises(BaseExceptionGroup) as caught:
        umbel.hclose(umbel.go(run))

    assert isinstance(caught.value.exceptions[0], umbel.Canceled)


FORGOTTEN = """
import gc, sys, umbel
def fail(when):
    if when == "later":
        umbel.msleep(umbel.within(0.01))
    raise ValueError("lost?")
umbel.go(fail, sys.argv[1])
gc.collect()
umbel.msleep(umbel.within(0.05))
print("goes on")
"""


@pytest.mark.parametrize("when", ["at once", "later"])
def test_failures_of_a_forgotten_bundle_are_reported(when: str) -> None:
    with python(FORGOTTEN, when) as program:
        out, err = program.communicate(timeout=20)

    assert out == "goes on\n"
    assert "ValueError: lost?" in err


def test_so_are_those_of_what_another_thread_started_just_as_it_was_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ValueError("lost?")

    reported: list[object] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda told: reported.append(told.exc_value)
    )
    b = umbel.bundle()
    late = Member(lookup(b, Bundle), fail, (), {}, None)
    umbel.hclose(b)

    current_hub().start(late)  # which that thread had made before

    assert [str(error) for error in reported] == ["lost?"]


@dataclass(frozen=True)
class TakesNoNotes(Exception):
    code: int


class NoName:
    def __call__(self) -> None:
        umbel.yield_()
        raise TakesNoNotes(3)

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_a_failure_that_takes_no_notes_is_kept_like_any() -> None:
    b = umbel.go(NoName())
    umbel.yield_()

    with pytest.raises(ExceptionGroup) as caught:
        umbel.bundle_wait(b)

    assert caught.value.exceptions == (TakesNoNotes(3),)
    umbel.hclose(b)


def test_what_starts_as_its_bundle_closes_is_canceled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def run() -> None:
        try:
            umbel.msleep(umbel.within(20))
            seen.append("ran")
        except umbel.Canceled:
            seen.append("canceled")
            raise

    b = umbel.bundle()
    found = lookup(b, Bundle)
    umbel.hclose(b)
    # As in another thread, which had found it just before.
    current_hub().start(Member(found, run, (), {}, None))
    umbel.yield_()

    assert seen == ["canceled"]


def test_a_cancellation_that_comes_while_an_object_closes_is_kept() -> None:
    seen: list[str] = []

    class Holder:
        def __init__(self, inner: umbel.BundleHandle) -> None:
            self._inner = inner

        def query(self, kind: type[object]) -> None:
            return None

        def close(self) -> None:
            umbel.hclose(self._inner)

    def work() -> None:
        held = umbel.hmake(Holder(umbel.go(umbel.msleep, -1)))
        umbel.hclose(held)
        seen.append("closed")
        try:
            umbel.msleep(umbel.within(20))
        except umbel.Canceled:
            seen.append("canceled")
            raise

    b = umbel.go(work)
    umbel.yield_()  # it closes the object now, and waits for what that closes
    umbel.hclose(b)

    assert seen == ["closed", "canceled"]


def test_a_handlers_timeout_error_is_not_taken_for_the_deadlines() -> None:
    def ring(*_: object) -> None:
        raise TimeoutError("alarm")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(TimeoutError, match="alarm"):
            umbel.msleep(umbel.within(20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_a_coroutine_cannot_close_or_await_the_bundle_it_runs_in() -> None:
    caught: list[int | None] = []

    def run() -> None:
        for call in calls(lambda: umbel.bundle_wait(b), lambda: umbel.hclose(b)):
            with pytest.raises(OSError, match="bundle that it runs in") as error:
                call()
            caught.append(error.value.errno)

    with umbel.bundle() as b:
        with umbel.go(b.go, umbel.msleep, -1):
            pass
        b.go(run)

        # Nothing has happened: who runs beside it goes on.
        assert "with 1 running" in lookup(b, Bundle).describe()
        b.abort()

    assert caught == [errno.EDEADLK] * 2


def test_a_coroutine_cannot_close_or_await_what_waits_for_itself() -> None:
    caught: list[str] = []

    def inner() -> None:
        for call in calls(lambda: umbel.bundle_wait(b), lambda: umbel.hclose(b)):
            with pytest.raises(OSError, match="can't end before") as error:
                call()
            assert error.value.errno == errno.EDEADLK
        caught.append("inner")

    def late() -> None:
        umbel.yield_()
        inner()

    def outer() -> None:
        with umbel.bundle() as within:
            within.go(inner)  # while it is in the block
            within.go(late)  # while it waits at the end

    with umbel.bundle() as b:
        with umbel.go(b.go, outer):
            pass
        b.wait()

    assert caught == ["inner"] * 2


def test_of_two_who_close_each_others_bundles_the_second_is_told() -> None:
    told: list[int | None] = []

    def inner() -> None:
        umbel.yield_()
        umbel.hclose(b)  # which cancels outer

    def outer() -> None:
        within = umbel.go(inner)
        try:
            umbel.msleep(-1)
        finally:
            try:
                within.close()
            except OSError as error:
                told.append(error.errno)
            moved.append(within)

    moved: list[umbel.BundleHandle] = []
    b = umbel.go(outer)
    while not moved:
        umbel.yield_()
    umbel.bundle_wait(moved[0])  # inner went on
    umbel.hclose(moved[0])

    assert told == [errno.EDEADLK]
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(b)


def test_a_canceled_waiter_still_waits_for_the_bundles_it_closes() -> None:
    order: list[str] = []

    def inner() -> None:
        try:
            umbel.msleep(-1)
        finally:
            order.append("inner ended")

    def outer() -> None:
        try:
            with umbel.go(inner):
                umbel.msleep(-1)
        finally:
            order.append("outer ended")

    umbel.hclose(umbel.go(outer))

    assert order == ["inner ended", "outer ended"]


def test_exit_in_a_coroutine_reaches_the_main_program() -> None:
    def leave() -> None:
        raise SystemExit(3)

    def work() -> None:
        with umbel.bundle() as b:
            b.go(leave)
            umbel.msleep(-1)

    with pytest.raises(SystemExit) as caught:
        work()

    assert caught.value.code == 3


def test_msleep_returns_at_its_deadline_not_before() -> None:
    for _ in range(5):
        deadline = umbel.within(0.03)
        umbel.msleep(deadline)
        late = umbel.now() - deadline
        assert late >= 0
        if late <= 20:
            return
    pytest.fail("always more than 20 ms late")


def test_msleep_of_the_past_lets_others_run() -> None:
    order: list[str] = []

    def other() -> None:
        umbel.yield_()
        order.append("other")

    with umbel.go(other):
        umbel.msleep(0)
        order.append("me")

    assert order == ["other", "me"]


def test_within_never_comes_early() -> None:
    for seconds in (0, 0.0001, 0.001, 0.0015, 0.02):
        start = time.monotonic()
        deadline = umbel.within(seconds)
        while umbel.now() < deadline:
            pass
        assert time.monotonic() - start >= seconds


@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan")])
def test_within_takes_no_negative_time(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"math\.inf"):
        umbel.within(wrong)


def test_within_infinity_is_for_ever() -> None:
    assert umbel.within(float("inf")) == umbel.FOREVER == -1


def test_coroutines_that_never_block_are_fair_to_timers_and_others(
    ends: Ends,
) -> None:
    left, right = ends
    stop: list[str] = []

    def busy() -> None:
        while not stop:
            umbel.bsend(left, b"x")
            umbel.brecv(right, 1)

    def timer() -> None:
        umbel.msleep(umbel.within(0.01))
        stop.append("the timer came")

    with umbel.bundle() as b:
        b.go(timer)
        b.go(busy)

    assert stop == ["the timer came"]


def test_a_coroutine_that_has_just_started_is_never_made_to_yield() -> None:
    # Whatever the budget of the thread happens to be when it makes its first call.
    idle = umbel.bundle()
    order: list[str] = []

    def run() -> None:
        umbel.bundle_wait(idle, 0)
        order.append("ran")
        umbel.yield_()

    for i in range(300):
        for _ in range(i % 7):
            idle.wait(0)
        order.clear()
        with umbel.go(run):
            assert order == ["ran"]
    umbel.hclose(idle)


def test_yielding_for_ever_does_not_starve_descriptors(ends: Ends) -> None:
    left, right = ends
    received: list[bytes] = []

    def spin() -> None:
        while not received:
            umbel.yield_()

    with umbel.bundle() as b:
        b.go(lambda: received.append(umbel.receive(right)))
        b.go(spin)
        b.go(spin)
        umbel.bsend(left, b"x")

    assert received == [b"x"]


def test_carriers_are_used_again() -> None:
    def run() -> None:
        umbel.yield_()

    for _ in range(100):
        umbel.hclose(umbel.go(umbel.now))
    before = len(current_hub()._idle)
    for _ in range(1000):
        with umbel.go(run):
            pass

    assert len(current_hub()._idle) == before


def test_a_finished_coroutine_keeps_nothing_alive() -> None:
    class Large:
        pass

    large = Large()
    reference = weakref.ref(large)

    with umbel.go(lambda _: umbel.yield_(), large):
        pass
    del large

    assert reference() is None


def test_nor_do_the_context_variables_that_it_set() -> None:
    import contextvars

    class Large:
        pass

    variable = contextvars.ContextVar[Large]("variable")
    seen: list[weakref.ref[Large]] = []

    def run() -> None:
        variable.set(large := Large())
        seen.append(weakref.ref(large))

    with umbel.go(run):
        pass

    assert seen[0]() is None


def test_nor_does_one_that_ends_while_its_thread_then_idles() -> None:
    class Large:
        pass

    reference = weakref.ref(large := Large())
    seen: list[object] = []
    hub = current_hub()

    def hold(_: Large) -> None:
        umbel.msleep(umbel.within(0.01))

    def look() -> None:
        hub.post(lambda: seen.append(reference()))

    with umbel.bundle() as b:
        b.go(hold, large)
        del large
        # While main waits, the ended coroutine's carrier is what polls.
        timer = threading.Timer(0.1, look)
        timer.start()
        umbel.msleep(umbel.within(0.3))
        timer.join()

    assert seen == [None]


def test_ten_thousand_coroutines_at_once() -> None:
    finished: list[int] = []

    def run(i: int) -> None:
        umbel.msleep(umbel.within(0.001))
        finished.append(i)

    with umbel.bundle() as b:
        for i in range(10_000):
            b.go(run, i)

    assert len(finished) == 10_000


def test_a_bundle_can_be_closed_from_another_thread(
    threads: ThreadPoolExecutor,
) -> None:
    ended: list[umbel.BundleHandle] = []

    def run() -> None:
        b = umbel.bundle()
        b.go(umbel.msleep, -1)
        ended.append(b)
        with pytest.raises(umbel.BadHandleError):
            umbel.bundle_wait(b)

    waiting = threads.submit(run)
    wait_until(lambda: ended)
    umbel.hclose(ended[0])

    waiting.result(20)


def test_of_two_threads_that_close_each_others_bundles_at_once_one_is_refused() -> None:
    code = """
import os
import threading
import umbel
from umbel.coroutines import bundles
running, both = threading.Barrier(2), threading.Barrier(2)
look = bundles.require_outside
def look_at_once(bundle, me):
    look(bundle, me)
    if me is not me.hub.main:
        try:
            both.wait(0.5)
        except threading.BrokenBarrierError:
            pass
bundles.require_outside = look_at_once
def close(other):
    running.wait()
    try:
        umbel.hclose(other)
    except OSError as error:
        print(error.errno)
first, second = umbel.bundle(), umbel.bundle()
def work(mine, other):
    mine.go(close, other)
    umbel.msleep(umbel.within(1))
threads = [
    threading.Thread(target=work, args=both_ways, daemon=True)
    for both_ways in ((first, second), (second, first))
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(10)
    print(thread.is_alive(), flush=True)
for handle in (first, second):
    try:
        umbel.bundle_wait(handle, umbel.within(1))
    except umbel.BadHandleError:
        pass
    except umbel.DeadlineError:
        print("hangs", flush=True)
        os._exit(0)
    else:
        umbel.hclose(handle)
"""
    assert run_python(code) == f"{errno.EDEADLK}\nFalse\nFalse\n"


def test_context_variables_are_those_of_the_coroutine() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def run(value: str) -> None:
        variable.set(value)
        umbel.yield_()
        seen.append(variable.get())

    with umbel.bundle() as b:
        b.go(run, "one")
        b.go(run, "two")

    assert seen == ["one", "two"]
    assert variable.get() == "unset"


def test_a_coroutine_starts_with_its_starters_context_variables() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def child() -> None:
        seen.append(variable.get())
        variable.set("the child's")

    def parent() -> None:
        variable.set("the parent's")
        with umbel.go(child):
            pass
        seen.append(variable.get())

    for _ in range(3):  # on carriers that were used before
        with umbel.go(parent):
            pass
        with umbel.go(child):
            pass

    assert seen == ["the parent's", "the parent's", "unset"] * 3


def test_a_failure_says_where_its_coroutine_was_started() -> None:
    def fail() -> None:
        raise ValueError

    line = fail.__code__.co_firstlineno + 4
    b = umbel.go(fail)
    with pytest.raises(ExceptionGroup) as caught:
        umbel.hclose(b)

    (note,) = caught.value.exceptions[0].__notes__
    assert f"{__file__}:{line}" in note


def test_several_coroutines_can_wait_for_one_bundle() -> None:
    finished: list[str] = []
    b = umbel.go(umbel.msleep, umbel.within(0.01))

    def wait() -> None:
        umbel.bundle_wait(b)
        finished.append("waited")

    with umbel.bundle() as waiting:
        waiting.go(wait)
        waiting.go(wait)
        umbel.bundle_wait(b)
    umbel.hclose(b)

    assert finished == ["waited", "waited"]


def test_who_has_waited_for_a_bundle_is_not_kept() -> None:
    with umbel.bundle() as b:
        b.go(umbel.yield_)

    assert current_hub().main not in Hub.onlookers


def test_nested_bundles_are_canceled_inwards() -> None:
    order: list[str] = []

    def leaf(name: str) -> None:
        try:
            umbel.msleep(-1)
        finally:
            order.append(name)

    def branch(name: str) -> None:
        try:
            with umbel.bundle() as inner:
                inner.go(leaf, f"{name}.1")
                inner.go(leaf, f"{name}.2")
        finally:
            order.append(name)

    b = umbel.bundle()
    b.go(branch, "a")
    b.go(branch, "b")
    umbel.yield_()  # all have started
    umbel.yield_()
    umbel.hclose(b)

    assert sorted(order) == [
        "a",
        "a.1",
        "a.2",
        "b",
        "b.1",
        "b.2",
    ]
    assert order.index("a") > order.index("a.2") > order.index("a.1")
    assert order.index("b") > order.index("b.2") > order.index("b.1")


def test_a_hundred_thousand_timers_mostly_canceled_are_quick() -> None:
    def wait() -> None:
        umbel.msleep(umbel.within(3600))

    start = time.monotonic()
    b = umbel.bundle()
    for _ in range(20_000):
        b.go(wait)
    for _ in range(100_000):
        try:
            umbel.bundle_wait(b, 0)
        except umbel.DeadlineError:
            pass
    umbel.hclose(b)

    assert time.monotonic() - start < 20
    assert len(current_hub().timers) == 0


def test_ctrl_c_at_the_end_of_a_block_stops_all_that_runs_in_it() -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            umbel.msleep(umbel.FOREVER)
        finally:
            ended.append("work")

    def interrupt() -> None:
        umbel.yield_()
        raise KeyboardInterrupt

    def run() -> None:
        with umbel.bundle() as bundle:
            bundle.go(work)
            bundle.go(interrupt)

    with pytest.raises(KeyboardInterrupt):
        run()

    assert ended == ["work"]


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
@pytest.mark.parametrize("call", ["umbel.msleep", "umbel.go(umbel.msleep, -1).wait"])
def test_a_child_that_is_forked_in_a_task_may_wait(kind: str, call: str) -> None:
    pytest.importorskip(kind)
    code = f"""
import os
import {kind} as loop
import umbel
from umbel import aio
async def main():
    await aio.msleep(0)
    if not os.fork():
        try:
            {call}(umbel.within(0.01))
        except umbel.DeadlineError:
            pass
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
loop.run({"main()" if kind == "asyncio" else "main"})
"""
    with python(code) as process:
        out, err = process.communicate(timeout=30)

    assert out == "7\n", err


@pytest.mark.parametrize("start", ["go", "run_blocking"])
@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(5)", 5, ""),
        ("sys.exit('sorry')", 1, "sorry\n"),
        ("raise ValueError('oops')", 1, "ValueError: oops\n"),
    ],
)
def test_a_child_that_is_forked_in_a_coroutine_ends_as_python_would(
    start: str, end: str, status: int, told: str
) -> None:
    code = f"""
import asyncio, os, sys
import umbel
from umbel import aio
def fork():
    umbel.yield_()
    child = os.fork()
    if not child:
        print("the child")
        {end}
        return
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
statuses = []
if "{start}" == "go":
    with umbel.go(fork):
        pass
else:
    asyncio.run(aio.run_blocking(fork))
print(*statuses)
"""
    with python(code, PYTHONUNBUFFERED="") as process:
        out, err = process.communicate(timeout=30)

    assert out == f"the child\n{status}\n"
    assert err.endswith(told)
    assert bool(err) == bool(told)


def test_a_child_that_is_forked_in_a_coroutine_ends_though_it_cannot_say_why() -> None:
    code = """
import os, sys
import umbel
def fork():
    child = os.fork()
    if not child:
        print("the child")
        sys.stderr.close()
        sys.exit("sorry")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    with umbel.go(fork):
        pass
finally:
    print("the end")
"""
    assert run_python(code, PYTHONUNBUFFERED="") == "the child\n1\nthe end\n"


def test_blocks_within_blocks_are_looked_through_without_comparing_each_to_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def compare(task: Member, other: object) -> bool:
        nonlocal compared
        compared += 1
        return task is other

    def nest(depth: int) -> None:
        with umbel.bundle() as b:
            b.go(nest, depth - 1) if depth else b.go(umbel.msleep, umbel.within(0.01))

    monkeypatch.setattr(Member, "__eq__", compare)
    nest(100)

    assert compared <= 100


def test_a_generator_function_that_would_never_run_is_told() -> None:
    def generate() -> Iterator[int]:
        yield 1

    with pytest.raises(ExceptionGroup) as caught, umbel.go(generate):
        pass

    (error,) = caught.value.exceptions
    assert isinstance(error, TypeError)
    assert "generate is a generator function" in str(error)


def test_who_never_blocks_lets_the_one_who_waits_for_a_descriptor_go_on() -> None:
    left, right = umbel.pair()
    busy = umbel.pair()  # which is never waited for
    came: list[bytes] = []

    def wait() -> None:
        came.append(umbel.receive(left))

    with umbel.go(wait):
        umbel.bsend(right, b"x")
        for _ in range(4 * BUDGET):
            umbel.bsend(busy[0], b"-")
            umbel.brecv(busy[1], 1)
        assert came == [b"x"]
    for stream in (left, right, *busy):
        umbel.hclose(stream)


def test_a_deadline_that_no_poller_takes_is_waited_for(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends

    def send() -> None:
        wait_until_blocked(left)
        umbel.bsend(right, b"x")

    sending = threads.submit(send)

    assert umbel.receive(left, 1, umbel.within(60 * 86400)) == b"x"  # two months
    sending.result()
