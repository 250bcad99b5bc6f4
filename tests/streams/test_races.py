"""Races between threads, signals and forks, each brought about on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest

import umbel
from tests.support import Ends, python, run_python, soon, wait_until
from umbel import aio
from umbel._kernel import hub as hub_module
from umbel._kernel.current import current_hub
from umbel._kernel.doorbell import Doorbell
from umbel._kernel.loops import running_loop
from umbel._kernel.poller import EpollPoller
from umbel._kernel.watch import Watch
from umbel.coroutines.bundles import Bundle
from umbel.errors import Canceled
from umbel.handle import lookup
from umbel.streams.connection import find_connection

USES_POLL = os.environ.get("UMBEL_POLLER") == "poll"

# Who wakes whom.


def test_two_threads_that_first_wait_on_a_stream_at_once_are_both_remembered(
    ends: Ends,
) -> None:
    readiness = find_connection(ends[0]).readiness
    readiness.watch_in(current_hub())
    watches: list[Watch] = []
    asked: list[None] = []

    def watch() -> None:
        watches.append(readiness.watch_in(current_hub()))

    class Hub:  # of an earlier thread, at which the first of the two looks
        @property
        def is_abandoned(self) -> bool:
            asked.append(None)
            if len(asked) == 1:
                second.submit(watch).result()
            return True

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        readiness._elsewhere = [cast("Watch", SimpleNamespace(hub=Hub()))]
        first.submit(watch).result()

        assert set(readiness._elsewhere) == set(watches)
        assert len(watches) == 2


@pytest.mark.skipif(USES_POLL, reason="poll(2) has no descriptor to watch")
def test_a_guest_is_told_what_is_posted_before_its_first_turn(ends: Ends) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(ends[0], 1, umbel.within(0.001))  # there is nothing new in it now

    async def main() -> None:
        receiving = asyncio.create_task(aio.receive(ends[0]))
        await asyncio.sleep(0)
        closer = threading.Thread(target=umbel.hclose, args=(ends[0],))
        closer.start()
        closer.join()
        with pytest.raises(umbel.BadHandleError):
            await asyncio.wait_for(receiving, 20)

    asyncio.run(main())


@pytest.mark.skipif(USES_POLL, reason="poll(2) has no descriptor to watch")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("way", ["sleeps", "is ready"])
def test_what_began_before_a_loop_goes_on_in_it(loop: str, way: str) -> None:
    hosted = pytest.importorskip(loop)
    told: list[Callable[[], object]] = []

    def work() -> None:
        if way == "sleeps":
            umbel.msleep(umbel.within(0.02))
        else:
            umbel.yield_()
        told[0]()

    async def main() -> None:
        over = hosted.Event()
        told.append(over.set)
        left, right = umbel.pair("mem")
        await aio.bsend(left, b"")  # from now on umbel is the loop's guest
        umbel.hclose(left)
        umbel.hclose(right)
        with suppress(TimeoutError):
            if loop == "asyncio":
                await asyncio.wait_for(over.wait(), 20)
            else:
                with hosted.fail_after(20):
                    await over.wait()
        assert over.is_set()

    b = umbel.go(work)
    hosted.run(main()) if loop == "asyncio" else hosted.run(main)
    umbel.hclose(b)


@pytest.mark.skipif(USES_POLL, reason="poll(2) has no descriptor to watch")
@pytest.mark.parametrize("way", ["yields", "receives"])
def test_a_loop_that_has_ended_takes_nobody_along(ends: Ends, way: str) -> None:
    async def main() -> None:
        await aio.bsend(ends[0], b"x")

    def work(stream: umbel.StreamHandle) -> None:
        if way == "yields":
            umbel.yield_()
        else:
            umbel.receive(stream)

    asyncio.run(main())
    umbel.receive(ends[1])
    with umbel.bundle() as b:
        b.go(work, ends[0])
        b.go(work, ends[1])
        umbel.bsend(ends[0], b"x")
        umbel.bsend(ends[1], b"x")
        umbel.yield_()
        umbel.bundle_wait(b, umbel.within(20))

    assert not current_hub().ready


def test_a_doorbell_that_was_rung_too_late_can_be_rung_again() -> None:
    code = """
import time
import umbel
from umbel._kernel.current import current_hub
current_hub().inbox._doorbell.ring()  # as who saw it asleep when it was about to wake
umbel.yield_()
start = umbel.now()
umbel.to_thread(lambda: time.sleep(0.05), umbel.within(10))
assert umbel.now() - start < 5000
"""
    for poller in ("", "poll"):
        run_python(code, UMBEL_POLLER=poller)


def test_who_waits_elsewhere_takes_no_edge_of_what_it_waited_for_before(
    ends: Ends,
) -> None:
    left, right = ends
    got: list[bytes] = []

    def read() -> None:
        got.append(umbel.receive(right))
        umbel.msleep(umbel.within(0.05))
        find_connection(right).waits_left = 255  # without a look it needs its edge
        got.append(umbel.receive(right, 10, umbel.within(20)))

    b = umbel.go(read)
    (reader,) = lookup(b, Bundle).running
    current_hub().unpark(reader)  # a wait may end for no reason
    umbel.bsend(left, b"1")
    umbel.yield_()  # it reads, and waits elsewhere; the edge is yet to be seen
    umbel.bsend(left, b"2")
    umbel.bundle_wait(b)
    umbel.hclose(b)

    assert got == [b"1", b"2"]


def test_a_cancellation_that_comes_while_a_call_is_fair_ends_its_wait(
    ends: Ends,
) -> None:
    hub = current_hub()

    def work() -> None:
        hub.budget = 0  # so that the receive looks at events first
        hub.post(partial(hub.interrupt, hub.current, Canceled()))
        umbel.receive(ends[0])

    working = umbel.go(work)

    umbel.bundle_wait(working, soon())
    umbel.hclose(working)


def test_who_waits_for_a_bundle_is_told_of_an_end_that_came_while_it_looked(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[umbel.BundleHandle] = []

    def work() -> None:
        made.append(umbel.go(umbel.brecv, ends[0], 1))
        umbel.bundle_wait(made[0])

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: made and lookup(made[0], Bundle).waiting)
    bundle = lookup(made[0], Bundle)

    def end(_: Bundle, __: object) -> None:
        umbel.bsend(ends[1], b"x")
        wait_until(lambda: not bundle.running)

    monkeypatch.setattr("umbel.coroutines.bundles.require_outside", end)
    umbel.bundle_wait(made[0], umbel.within(20))
    thread.join()
    umbel.hclose(made[0])


def test_all_who_wait_for_a_bundle_are_told_though_the_first_leaves_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    b = umbel.bundle()
    bundle = lookup(b, Bundle)
    waiting = [current_hub().main, current_hub().main]
    bundle.waiting[:] = waiting
    told: list[object] = []

    def leave(waiter: object) -> None:
        told.append(waiter)
        bundle.waiting.pop()

    monkeypatch.setattr("umbel.coroutines.bundles.unpark", leave)
    bundle.tell()
    umbel.hclose(b)

    assert told == waiting


def test_what_another_thread_starts_runs_though_the_bundle_has_a_new_handle() -> None:
    ran: list[str] = []
    b = umbel.bundle()
    thread = threading.Thread(
        target=umbel.bundle_go_threadsafe, args=(b, ran.append, "yes")
    )
    thread.start()
    thread.join()

    b = umbel.hown(b)
    umbel.yield_()
    umbel.hclose(b)

    assert ran == ["yes"]


def test_a_descriptor_can_be_forgotten_by_a_poller_that_was_just_closed() -> None:
    poller = EpollPoller()
    poller.close()

    poller.remove(0)


@pytest.mark.parametrize("way", ["receive", "send", "choose"])
def test_a_value_that_passes_as_the_program_is_interrupted_is_not_lost(
    way: str,
) -> None:
    hub = current_hub()
    ours, theirs = umbel.chmake(int)
    got: list[object] = []

    def pass_it() -> None:
        umbel.yield_()  # now main waits
        hub.interrupt(hub.main, KeyboardInterrupt())
        if way == "send":
            got.append(theirs.receive(0))
        else:
            theirs.send(5, 0)

    passing = umbel.go(pass_it)
    if way == "send":
        ours.send(5)
    elif way == "receive":
        got.append(ours.receive())
    else:
        got.append(umbel.choose([umbel.Recv(ours)])[1])
    with pytest.raises(KeyboardInterrupt):
        umbel.bundle_wait(passing)  # the next call is interrupted instead
    for handle in (passing, ours, theirs):
        umbel.hclose(handle)

    assert got == [5]


# Signals.


def _status(code: str) -> int:
    with python(code) as process:
        process.communicate(timeout=20)
        return process.returncode


def test_a_signal_that_comes_to_another_thread_ends_the_sleep_of_the_main_one() -> None:
    # As one that comes to the main thread just before it sleeps, which none can time.
    code = """
import signal, threading
import umbel
from tests.support import wait_until
from umbel._kernel.current import current_hub
umbel.exit_on_signal()
hub = current_hub()
def kill():
    wait_until(lambda: hub.main.is_parked and hub._is_asleep)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=kill).start()
umbel.msleep(umbel.within(30))
"""
    assert _status(code) == 128 + signal.SIGTERM


def test_a_signal_while_another_ones_handler_rings_is_no_deadlock() -> None:
    code = """
import os, signal, threading
import umbel
from tests.support import wait_until
from umbel._kernel.current import current_hub
umbel.exit_on_signal()
hub = current_hub()
write = os.write
def interrupted(fd, data):
    os.write = write
    signal.raise_signal(signal.SIGINT)
    return write(fd, data)
def kill():
    wait_until(lambda: hub.main.is_parked and hub._is_asleep)
    os.write = interrupted
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=kill).start()
umbel.msleep(umbel.within(30))
"""
    assert _status(code) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_a_signal_while_a_hub_is_made_is_not_lost() -> None:
    code = """
import signal
from umbel._kernel import current, hub
made = []
def leave(*_):
    made.append(current.current_hub())
make = hub.make_poller
def interrupted():
    hub.make_poller = make
    signal.raise_signal(signal.SIGTERM)
    return make()
hub.make_poller = interrupted
signal.signal(signal.SIGTERM, leave)
assert current.current_hub() is made[0]
assert current.all_hubs() == made
"""
    run_python(code)


def test_a_signal_that_comes_to_a_child_while_it_is_forked_is_not_lost() -> None:
    code = """
import os, signal
# Before umbel's own hooks: the child has its parent's hub still.
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
import umbel
umbel.exit_on_signal()
pid = os.fork()
if not pid:
    umbel.msleep(umbel.within(30))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
"""
    run_python(code)


def test_a_forked_child_is_woken_by_its_own_signals_and_not_the_parent() -> None:
    code = """
import os, signal, threading
import umbel
from tests.support import wait_until
from umbel._kernel.current import current_hub
umbel.exit_on_signal()
umbel.yield_()  # all that has come is seen
parent = current_hub().inbox.ringing
pid = os.fork()
if not pid:
    umbel.exit_on_signal()
    hub = current_hub()
    def kill():
        wait_until(lambda: hub.main.is_parked and hub._is_asleep)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Thread(target=kill).start()
    umbel.msleep(umbel.within(30))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM
assert [fd for fd, _ in current_hub().poller.poll(0, 9)].count(parent.fd) == 0
"""
    run_python(code)


def test_what_a_handler_brings_just_before_the_sleep_is_not_slept_over(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(ends[0], 1, umbel.within(0.001))  # there is nothing new in it now

    def strike() -> str:
        monkeypatch.undo()
        umbel.hclose(ends[0])  # as a handler would, just then
        return running_loop()

    monkeypatch.setattr(hub_module, "running_loop", strike)
    start = umbel.now()
    with pytest.raises(umbel.BadHandleError):
        umbel.receive(ends[0], 1, umbel.within(20))

    assert umbel.now() - start < 10_000


@pytest.mark.skipif(USES_POLL, reason="poll(2) has no descriptor to watch")
@pytest.mark.parametrize("way", ["a coroutine", "a signal"])
def test_what_ends_the_program_ends_a_loop_too(way: str) -> None:
    code = """
import asyncio, os, signal, sys
import umbel
from umbel import aio
def leave():
    umbel.msleep(umbel.within(0.01))
    if sys.argv[1] == "a signal":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        sys.exit(128 + signal.SIGTERM)
async def main():
    umbel.exit_on_signal()
    b = umbel.go(leave)
    try:
        await asyncio.sleep(30)
    finally:
        print("cleaned up", flush=True)
        umbel.hclose(b)
asyncio.run(main())
"""
    with python(code, way) as process:
        out, _ = process.communicate(timeout=20)

    assert (process.returncode, out) == (128 + signal.SIGTERM, "cleaned up\n")


def test_exiting_on_signals_may_be_asked_for_again() -> None:
    code = """
import signal
import umbel
umbel.exit_on_signal(signal.SIGTERM)
umbel.exit_on_signal(signal.SIGUSR1)
button = signal.set_wakeup_fd(-1)
assert button >= 0
signal.set_wakeup_fd(button)
"""
    run_python(code)


def test_a_loop_that_hears_signals_itself_is_not_robbed_of_them() -> None:
    code = """
import os, signal
import umbel
theirs, button = os.pipe()
os.set_blocking(button, False)
signal.set_wakeup_fd(button)
umbel.exit_on_signal()
assert signal.set_wakeup_fd(-1) == button
"""
    run_python(code)


def test_a_doorbell_that_is_closed_leaves_signals_to_who_took_them_over() -> None:
    bell = Doorbell(hears_signals=True)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)  # as a loop that starts

    bell.close()
    hearing = signal.set_wakeup_fd(-1)

    assert hearing == writing
    os.close(reading)
    os.close(writing)


def test_a_doorbell_that_hears_signals_can_be_closed_in_another_thread(
    threads: ThreadPoolExecutor,
) -> None:
    bell = Doorbell(hears_signals=True)

    threads.submit(bell.close).result()
    signal.set_wakeup_fd(-1)

    assert bell.fd == -1


# Forks.


def test_a_process_can_fork_while_a_doorbell_is_being_rung() -> None:
    code = """
import os, threading, time
import umbel
from umbel._kernel.current import current_hub
hubs = [current_hub()]
taken, over = threading.Event(), threading.Event()
def sleep():
    hubs.append(current_hub())
    taken.set()
    over.wait()
def hold():
    with hubs[0].inbox._doorbell._lock, hubs[1].inbox._doorbell._lock:
        taken.set()
        over.wait()
threads = []
for target in (sleep, hold):
    threads.append(threading.Thread(target=target))
    threads[-1].start()
    taken.wait()
    taken.clear()
pid = os.fork()
if not pid:
    os._exit(0)
give_up = time.monotonic() + 10
while os.waitpid(pid, os.WNOHANG) == (0, 0):
    if time.monotonic() > give_up:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        over.set()
        raise SystemExit("the child hangs")
    time.sleep(0.001)
over.set()
"""
    run_python(code, PYTHONWARNINGS="ignore::DeprecationWarning")


def test_a_fork_disturbs_no_loop_of_another_thread() -> None:
    code = """
import asyncio, os, threading, umbel
from tests.support import is_blocked, soon
from umbel import aio
left, right = umbel.pair("mem")
ready = threading.Event()
got = []
async def main():
    try:
        await aio.receive(left, deadline=umbel.within(0.001))
    except umbel.DeadlineError:
        pass
    receiving = asyncio.create_task(aio.receive(left, deadline=soon()))
    while not is_blocked(left):
        await asyncio.sleep(0)
    ready.set()
    got.append(await receiving)
thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
ready.wait()
pid = os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
start = umbel.now()
umbel.bsend(right, b"x")
thread.join()
assert got == [b"x"] and umbel.now() - start < 10_000, umbel.now() - start
umbel.hclose(left)
umbel.hclose(right)
"""
    run_python(code, PYTHONWARNINGS="ignore::DeprecationWarning")
