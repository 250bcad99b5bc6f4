"""A thread that ends while its coroutines wait: nobody waits for them, nothing is lost.

What such a coroutine was in the middle of is as if it had left. It never goes on.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import umbel
from tests.support import (
    PATIENCE,
    Ends,
    open_descriptors,
    python,
    run_python,
    wait_until,
    wait_until_blocked,
)
from umbel import aio
from umbel._kernel.current import all_hubs, current_hub
from umbel._kernel.hub import Hub
from umbel.coroutines.bundles import Bundle
from umbel.handle import open_handles
from umbel.streams.connection import find_connection


@contextmanager
def thread_that_starts(
    call: Callable[[], object], *, hears: bool = False
) -> Iterator[umbel.BundleHandle]:
    """Give the bundle of a coroutine of a thread that ends with the block.

    What others ask of it the thread *hears* just before its end, with no time left for
    the coroutine to go on, or never.
    """
    made: list[umbel.BundleHandle] = []
    may_end = threading.Event()

    def work() -> None:
        made.append(umbel.go(call))
        started.set()
        may_end.wait()
        if hears:
            current_hub().collect(0)

    started = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    try:
        yield made[0]
    finally:
        may_end.set()
        thread.join()
        if made[0] in open_handles:
            umbel.hclose(made[0])


@pytest.fixture
def closer() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_a_stream_that_it_received_from_can_be_closed_hard(ends: Ends) -> None:
    left, right = ends

    with thread_that_starts(lambda: umbel.receive(left)):
        pass
    umbel.hclose(left)

    assert umbel.receive(right, 1, umbel.within(10)) == b""


def test_a_stream_that_it_was_closing_in_good_order_is_closed(ends: Ends) -> None:
    left, right = ends
    descriptor = left.fileno()

    with thread_that_starts(lambda: umbel.close(left)):
        assert umbel.receive(right, 1, umbel.within(10)) == b""  # our end so far

    assert descriptor not in open_descriptors()
    with pytest.raises(OSError, match="Broken pipe"):
        os.write(right.fileno(), b"x")


@pytest.mark.filterwarnings("ignore:.*was destroyed but it is pending")
def test_so_is_one_that_a_task_of_a_closed_loop_was_closing(ends: Ends) -> None:
    left, right = ends
    descriptor = left.fileno()

    # Kept, since in a thread that ends asyncio's own complaint leaves a trace of it.
    tasks: list[asyncio.Task[None]] = []

    async def close() -> None:
        await aio.close(left)

    def work() -> None:
        # A loop that is stopped and closed amid the close, as some test suites do.
        events = asyncio.new_event_loop()
        tasks.append(events.create_task(close()))
        events.call_soon(events.call_soon, events.stop)
        events.run_forever()
        events.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert not tasks.pop().done()
    assert descriptor not in open_descriptors()
    assert umbel.receive(right, 1, umbel.within(10)) == b""


def test_a_stream_that_it_received_from_can_be_closed_in_good_order(
    ends: Ends, closer: ThreadPoolExecutor
) -> None:
    left, right = ends

    with thread_that_starts(lambda: umbel.receive(left)):
        pass
    peer = closer.submit(umbel.close, right, umbel.within(10))

    umbel.close(left, umbel.within(10))
    peer.result()


@pytest.mark.parametrize("hears", [False, True])
def test_an_orderly_close_that_waits_for_it_goes_on(
    ends: Ends, closer: ThreadPoolExecutor, *, hears: bool
) -> None:
    left, right = ends

    with thread_that_starts(lambda: umbel.receive(left), hears=hears):
        closing = closer.submit(umbel.close, left, umbel.within(10))
        wait_until(lambda: left not in open_handles, "the close")
    umbel.close(right, umbel.within(10))

    closing.result()


@pytest.mark.parametrize("hears", [False, True])
def test_a_hard_close_that_it_did_not_act_upon_frees_the_descriptor(
    ends: Ends, *, hears: bool
) -> None:
    left, right = ends

    with thread_that_starts(lambda: umbel.receive(left), hears=hears):
        umbel.hclose(left)  # the descriptor is left to that thread

    assert umbel.receive(right, 1, umbel.within(10)) == b""


@pytest.mark.parametrize("is_over", [True, False], ids=["ended", "ending"])
@pytest.mark.parametrize("hears", [False, True])
def test_a_listener_that_it_accepted_from_is_closed(
    tmp_path: Path, *, is_over: bool, hears: bool
) -> None:
    listener = umbel.listen(f"ipc:{tmp_path}/s")
    before = open_descriptors()

    with thread_that_starts(lambda: umbel.accept(listener), hears=hears):
        if not is_over:
            umbel.hclose(listener)
    if is_over:
        umbel.hclose(listener)

    assert not (tmp_path / "s").exists()
    wait_until(lambda: len(open_descriptors()) == len(before) - 1, "the freed one")


def test_who_waits_for_its_bundle_is_told(closer: ThreadPoolExecutor) -> None:
    with thread_that_starts(lambda: umbel.msleep(-1)) as b:
        bundle = open_handles[b]
        assert isinstance(bundle, Bundle)
        own = umbel.hown(b)
        waiting = closer.submit(umbel.bundle_wait, own, umbel.within(10))
        wait_until(lambda: bundle.waiting, "the wait")

    with pytest.raises(ExceptionGroup) as caught:
        waiting.result()
    (error,) = caught.value.exceptions
    assert isinstance(error, ProcessLookupError)
    assert error.errno == errno.ESRCH
    assert "<lambda>" in str(error)
    umbel.hclose(own)


def test_who_waits_for_its_bundle_is_told_though_a_handler_has_waited_for_another() -> (
    None
):
    code = """
import signal
import threading
import umbel
lost, extra = umbel.bundle(), umbel.bundle()
extra.go(umbel.msleep, -1)
def handler(number, frame):
    try:
        extra.wait(0)
    except umbel.DeadlineError:
        may_end.set()
signal.signal(signal.SIGALRM, handler)
def work():
    lost.go(umbel.msleep, -1)
    started.set()
    may_end.wait()
started, may_end = threading.Event(), threading.Event()
threading.Thread(target=work).start()
started.wait()
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    lost.wait(umbel.within(10))
except ExceptionGroup as group:
    print(group.exceptions[0].errno)
lost.close()
extra.close()
"""
    assert run_python(code) == f"{errno.ESRCH}\n"


@pytest.mark.parametrize("hears", [False, True])
def test_who_closes_its_bundle_goes_on(
    closer: ThreadPoolExecutor, *, hears: bool
) -> None:
    with thread_that_starts(lambda: umbel.msleep(-1), hears=hears) as b:
        bundle = open_handles[b]
        assert isinstance(bundle, Bundle)
        closing = closer.submit(umbel.hclose, b)
        wait_until(lambda: bundle.waiting, "the close")

    closing.result(10)


def test_who_asks_after_its_end_is_told() -> None:
    with thread_that_starts(lambda: umbel.msleep(-1)) as b:
        own = umbel.hown(b)

    with pytest.raises(ExceptionGroup) as caught:
        umbel.bundle_wait(own, umbel.within(10))
    assert isinstance(caught.value.exceptions[0], ProcessLookupError)
    umbel.hclose(own)


def test_it_wakes_nobody_who_waits_for_coroutines_of_one_other_thread_only() -> None:
    waiting = umbel.bundle()
    with umbel.go(umbel.msleep, umbel.within(10)) as others:
        waiting.go(umbel.bundle_wait, others)

        onlookers = len(Hub.onlookers)
        others.abort()
    with pytest.raises(ExceptionGroup):
        umbel.hclose(waiting)

    assert not onlookers


def test_who_waits_already_as_it_starts_one_is_told() -> None:
    with umbel.bundle() as b:
        starting = threading.Thread(target=umbel.bundle_go, args=(b, umbel.msleep, -1))

        def start_once_it_is_waited_for() -> None:
            umbel.yield_()
            starting.start()
            starting.join()

        b.go(start_once_it_is_waited_for)

        with pytest.raises(ExceptionGroup) as caught:
            b.wait(umbel.within(10))

    assert isinstance(caught.value.exceptions[0], ProcessLookupError)


def test_so_is_who_asks_for_one_that_was_just_to_leave_a_block() -> None:
    def fail_soon() -> None:
        umbel.yield_()
        raise ValueError

    def wait_in_block() -> None:
        with inner:
            inner.go(fail_soon)
            umbel.msleep(-1)

    def start() -> None:
        b.go(wait_in_block)
        umbel.yield_()  # it fails, and the thread ends before the block does

    b, inner = umbel.bundle(), umbel.bundle()
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    with pytest.raises(ExceptionGroup) as caught:
        umbel.bundle_wait(b, umbel.within(10))
    assert isinstance(caught.value.exceptions[0], ProcessLookupError)
    umbel.hclose(b)
    with pytest.raises(ExceptionGroup):
        umbel.hclose(inner)


def test_what_is_started_there_too_late_never_runs(closer: ThreadPoolExecutor) -> None:
    ran: list[str] = []

    with thread_that_starts(lambda: None) as b:
        umbel.bundle_go_threadsafe(b, ran.append, "no")
        own = umbel.hown(b)
    umbel.bundle_wait(own, umbel.within(10))
    umbel.hclose(own)

    assert ran == []


def test_its_hub_leaves_nothing(ends: Ends) -> None:
    left, _ = ends
    hubs, descriptors = len(all_hubs()), len(open_descriptors())

    with thread_that_starts(lambda: umbel.receive(left)):
        assert len(all_hubs()) == hubs + 1
    umbel.hclose(left)

    assert len(all_hubs()) == hubs
    wait_until(lambda: len(open_descriptors()) == descriptors - 1)


def test_finalizers_that_need_a_hub_as_their_thread_ends_pile_up_none() -> None:
    code = """
import os
import threading
import umbel
class Client:
    def __del__(self):
        umbel.now()
mine = threading.local()
def work():
    umbel.now()
    mine.client = Client()
def work_often():
    for _ in range(30):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    return len(os.listdir("/proc/self/fd"))
few = work_often()
print(work_often() < few + 10)
"""
    assert run_python(code) == "True\n"


def test_streams_that_many_threads_used_keep_none_of_their_hubs(ends: Ends) -> None:
    left, right = ends
    readiness = find_connection(left).readiness
    with umbel.go(umbel.receive, left):
        umbel.bsend(right, b"x")  # so that its first watch is this thread's

    for _ in range(5):
        with ThreadPoolExecutor(1) as threads:
            receiving = threads.submit(umbel.receive, left)
            wait_until_blocked(left)
            umbel.bsend(right, b"x")
            assert receiving.result() == b"x"
        wait_until(lambda: len(all_hubs()) == 1, "the end of the thread's hub")

    assert readiness._elsewhere is not None
    assert len(readiness._elsewhere) == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells")
def test_what_its_coroutines_ran_on_is_freed() -> None:
    code = """
import threading
import umbel
def work():
    with umbel.bundle() as b:
        for _ in range(50):
            b.go(umbel.msleep, umbel.within(0.0001))
def kilobytes_after(count):
    for _ in range(count):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    return int(open("/proc/self/statm").read().split()[1]) * 4
before = kilobytes_after(50)
print(kilobytes_after(100) - before)
"""
    grown = int(run_python(code))

    assert grown < 8_000, (
        "of 100 threads with 50 coroutines each: some 6 KiB a coroutine"
    )


def test_what_an_error_ran_on_is_freed_as_well() -> None:
    def fail() -> None:
        try:
            umbel.hclose(0)
        except umbel.BadHandleError as error:
            kept.append(error)

    def work() -> None:
        hubs.append(weakref.ref(current_hub()))
        with umbel.go(fail):
            pass

    kept: list[umbel.BadHandleError] = []
    hubs: list[weakref.ref[Hub]] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    kept.clear()
    gc.collect()

    assert hubs[0]() is None


SERVE = """
def echo(s):
    for chunk in s:
        s.send(chunk)
def work():
    listener = umbel.listen("mem://x")
    has_begun.set()
    umbel.serve(listener, echo)
def begin():
    for _ in range(5):
        clients.append(umbel.connect("mem://x"))
        clients[-1].send(b"-")
        clients[-1].receive_exactly(1)
"""
DOZE = """
def nap():
    while True:
        umbel.msleep(umbel.within(0.0002))
def work():
    with umbel.bundle() as b:
        for _ in range(3):
            b.go(nap)
        has_begun.set()
def begin():
    time.sleep(0.05)
"""


@pytest.mark.parametrize("code", [SERVE, DOZE], ids=["serve", "doze"])
def test_a_daemon_thread_that_runs_coroutines_survives_the_programs_end(
    code: str,
) -> None:
    program = f"""
import threading, time
import umbel
has_begun = threading.Event()
clients = []
{code}
threading.Thread(target=work, daemon=True).start()
has_begun.wait()
begin()
"""
    for _ in range(3):
        run_python(program)


@pytest.mark.parametrize(
    "step",
    ["time.sleep(0.005)", "sum(range(1000))", "swallow()"],
    ids=["sleeps", "computes", "swallows its cancellation"],
)
def test_so_does_one_whose_coroutine_runs_on_and_on(step: str) -> None:
    code = f"""
import threading, time
import umbel

def swallow():
    try:
        umbel.msleep(-1)
    except umbel.Canceled:
        time.sleep(0.005)

def run_on():
    umbel.msleep(umbel.within(0.01))  # so that others have been there on its stack
    while True:
        {step}

def work():
    bundle = umbel.go(run_on)
    if "swallow" in {step!r}:
        umbel.hclose(bundle)
    umbel.bundle_wait(bundle)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("done")
"""
    for _ in range(3):
        assert run_python(code) == "done\n"


def test_a_listener_of_a_daemon_thread_leaves_no_file_where_warnings_are_errors(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    code = """
import os, sys, threading, time, warnings
import umbel
def work():
    listener = umbel.ipc_listen(sys.argv[1])
    umbel.accept(listener)
threading.Thread(target=work, daemon=True).start()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
time.sleep(0.1)  # it accepts
warnings.simplefilter("error")
"""
    with python(code, str(path)) as process:
        _, err = process.communicate(timeout=30)

    assert "ResourceWarning: a listener" in err
    assert not path.exists()


def test_a_server_in_a_daemon_thread_ends_quietly_and_leaves_no_file(
    tmp_path: Path,
) -> None:
    address = f"ipc:{tmp_path / 'x.sock'}"
    code = f"""
import threading
import umbel
{SERVE.replace("mem://x", address)}
has_begun = threading.Event()
clients = []
threading.Thread(target=work, daemon=True).start()
has_begun.wait()
begin()
"""
    with python(code) as process:
        out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out, err) == (0, "", "")
    assert not os.listdir(tmp_path)
