"""The runtime beneath: pollers, timers, host loops, threads, signals and forks."""

from __future__ import annotations

import errno
import itertools
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, strategies as st

import umbel
from tests.support import (
    PATIENCE,
    Ends,
    at_each_loop_back,
    open_descriptors,
    python,
    run_python,
    wait_until,
)
from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel._kernel.poller import (
    BATCH,
    IN,
    OUT,
    READABLE,
    EpollPoller,
    PollPoller,
    make_poller,
)
from umbel._kernel.timers import Timer, Timers

if TYPE_CHECKING:
    from umbel._kernel.poller import Poller

USES_POLL = os.environ.get("UMBEL_POLLER") == "poll"


@pytest.fixture(params=[EpollPoller, PollPoller], ids=["epoll", "poll"])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


def _arm(poller: Poller, fd: int, direction: int) -> None:
    if poller.needs_arming:
        poller.arm(fd, direction)


def test_a_poller_reports_each_change_once(poller: Poller) -> None:
    a, b = socket.socketpair()
    with a, b:
        poller.add(a.fileno())
        poller.poll(0, BATCH)  # an edge-triggered one tells what it finds first
        _arm(poller, a.fileno(), IN)
        assert poller.poll(0, BATCH) == []

        b.send(b"x")
        ((fd, events),) = poller.poll(1, BATCH)
        again = poller.poll(0, BATCH)

        assert (fd, events & IN) == (a.fileno(), IN)
        assert again == []
        poller.remove(a.fileno())


def test_a_poller_reports_room_and_data_at_once(poller: Poller) -> None:
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        poller.add(a.fileno())
        _arm(poller, a.fileno(), IN)
        _arm(poller, a.fileno(), OUT)

        ((_, events),) = poller.poll(1, BATCH)

        assert events & IN
        assert events & OUT
        poller.remove(a.fileno())


def test_a_poller_reports_the_end(poller: Poller) -> None:
    a, b = socket.socketpair()
    with a:
        poller.add(a.fileno())
        poller.poll(0, BATCH)
        _arm(poller, a.fileno(), IN)
        b.close()

        ((_, events),) = poller.poll(1, BATCH)

        assert events & READABLE
        poller.remove(a.fileno())


def test_a_poller_forgets_what_was_closed_before(poller: Poller) -> None:
    a, b = socket.socketpair()
    fd = a.fileno()
    poller.add(fd)
    _arm(poller, fd, IN)
    a.close()
    b.close()

    poller.remove(fd)
    poller.remove(fd)

    assert poller.poll(0, BATCH) == []


def test_poll_forgets_what_another_thread_closes_just_as_it_is_disarmed() -> None:
    poller = PollPoller()
    wrapped = poller._poll
    raised: list[BaseException] = []

    def remove() -> None:
        try:
            poller.remove(a.fileno())
        except KeyError as error:
            raised.append(error)

    class Poll:
        def unregister(self, fd: int) -> None:
            if removing.ident is None:
                removing.start()
                removing.join(0.05)
            wrapped.unregister(fd)

        def __getattr__(self, name: str) -> object:
            return getattr(wrapped, name)

    a, b = socket.socketpair()
    removing = threading.Thread(target=remove)
    with a, b:
        poller.add(a.fileno())
        poller.arm(a.fileno(), IN)
        b.send(b"x")
        poller._poll = cast("select.poll", Poll())

        assert poller.poll(1, BATCH) == [(a.fileno(), IN)]
        removing.join()

    assert not raised


def test_a_poller_refuses_a_closed_descriptor(poller: Poller) -> None:
    a, b = socket.socketpair()
    fd = a.fileno()
    a.close()
    b.close()

    with pytest.raises(OSError, match="Bad file"):
        poller.add(fd)


def test_poll_waits_in_milliseconds_rounded_up() -> None:
    poller = PollPoller()
    start = time.monotonic()

    poller.poll(0.0009, BATCH)  # rounded down it would not wait at all

    assert time.monotonic() - start >= 0.0009


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=300))
def test_timers_come_out_soonest_first_without_the_canceled(
    plan: list[tuple[int, bool]],
) -> None:
    timers: Timers[int] = Timers()
    made: list[tuple[Timer[int], int, int]] = []
    for index, (when, _) in enumerate(plan):
        made.append((timers.add(when, index), when, index))
    for (timer, _, _), (_, is_canceled) in zip(made, plan, strict=True):
        if is_canceled:
            timers.cancel(timer)
            timers.cancel(timer)  # twice is once

    live = sorted((w, i) for (_, w, i), (_, c) in zip(made, plan, strict=True) if not c)
    assert len(timers) == len(live)
    assert timers.soonest() == (live[0][0] if live else -1)
    came = []
    while (item := timers.pop_due(50)) is not None:
        came.append(item)

    assert came == [i for _, i in live]


def test_a_timer_is_not_due_before_its_time() -> None:
    timers: Timers[str] = Timers()
    timers.add(10, "x")

    assert timers.pop_due(9) is None
    assert timers.pop_due(10) == "x"


@pytest.mark.parametrize("seed", range(5))
def test_timers_stay_in_order_when_canceled_ones_are_thrown_away(seed: int) -> None:
    draw = random.Random(seed)
    timers: Timers[int] = Timers()
    made = [(when, timers.add(when, when)) for when in draw.sample(range(1000), 300)]
    draw.shuffle(made)

    for _, timer in made[:200]:
        timers.cancel(timer)
    came = []
    while (item := timers.pop_due(1000)) is not None:
        came.append(item)

    assert came == sorted(when for when, _ in made[200:])


def test_timers_that_are_taken_over_are_counted_without_the_canceled() -> None:
    old: Timers[str] = Timers()
    new: Timers[str] = Timers()
    old.add(10, "stays")
    old.cancel(old.add(20, "canceled"))

    new.take_over(old)
    old.add(30, "later")

    assert (len(new), len(old)) == (1, 1)


def test_canceled_timers_take_no_memory() -> None:
    timers: Timers[int] = Timers()
    timers.add(10**9, 0)

    for i in range(100_000):
        timers.cancel(timers.add(10**9, i))

    assert len(timers.heap) < 1000


def test_timers_that_a_signals_handler_uses_in_their_midst_are_all_there() -> None:
    timers: Timers[int] = Timers()
    numbers = itertools.count()
    kept: list[int] = []
    came: list[int] = []

    def add_some(when: int, count: int) -> list[Timer[int]]:
        made = [next(numbers) for _ in range(count)]
        kept.append(made[0])  # the others are canceled
        return [timers.add(when, number) for number in made]

    def take_due(now: int) -> None:
        while (item := timers.pop_due(now)) is not None:
            came.append(item)

    def handler(*_: object) -> None:
        for number in range(3):
            add_some(number % 2, 1)
        due = [timers.pop_due(0), timers.pop_due(0)]  # no more: so some stay
        came.extend(item for item in due if item is not None)

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        give_up = time.monotonic() + 0.5
        while time.monotonic() < give_up:
            for timer in add_some(10, 200)[1:]:
                timers.cancel(timer)
            take_due(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    take_due(10)

    assert sorted(came) == sorted(kept)
    assert len(timers) == 0


def test_a_handler_as_a_loop_goes_back_takes_no_timer_too_many() -> None:
    timers: Timers[int] = Timers()
    came: list[int] = []

    def handler() -> None:
        while (item := timers.pop_due(0)) is not None:
            came.append(item)
        timers.soonest()

    def add_due() -> None:
        for timer in [timers.add(0, number) for number in range(3)][:2]:
            timers.cancel(timer)

    add_due()
    late = timers.add(10, 10)
    with at_each_loop_back(Timers.pop_due.__code__, handler):
        assert timers.pop_due(0) is None  # the handler took it
    add_due()
    timers.cancel(late)
    with at_each_loop_back(Timers.soonest.__code__, handler):
        assert timers.soonest() == -1
    assert came == [2, 2]


def test_deadlines_follow_the_hubs_own_clock(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = current_hub()
    time_now = [umbel.now()]
    monkeypatch.setattr(hub, "clock", lambda: time_now[0])
    deadline = umbel.within(3600)

    with umbel.bundle() as b:

        def receive() -> None:
            with pytest.raises(umbel.DeadlineError):
                umbel.receive(ends[0], 1, deadline)

        b.go(receive)
        umbel.yield_()
        time_now[0] += 3_600_100


def test_a_change_of_the_wall_clock_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = umbel.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert umbel.now() - before < 1000


# Host loops.


@pytest.mark.skipif(USES_POLL, reason="poll(2) has no descriptor to watch")
def test_a_host_loop_can_drive_a_hub(ends: Ends) -> None:
    left, right = ends
    hub = current_hub()
    echoed: list[bytes] = []

    def echo() -> None:
        for _ in range(3):
            umbel.bsend(right, umbel.receive(right))
        umbel.msleep(umbel.within(0.01))
        echoed.append(b"slept")

    b = umbel.go(echo)
    raw = socket.socket(fileno=os.dup(left.fileno()))
    host = select.poll()
    host.register(hub.fileno(), select.POLLIN)
    host.register(raw.fileno(), select.POLLIN)
    raw.send(b"0")
    give_up = time.monotonic() + 20
    while len(echoed) < 4:
        until = hub.turn()
        pause = 1000 if until < 0 else max(0, until - umbel.now())
        for fd, _ in host.poll(pause):
            if fd == raw.fileno():
                echoed.append(raw.recv(10))
                raw.send(b"%d" % len(echoed))
        assert time.monotonic() < give_up

    assert echoed == [b"0", b"1", b"2", b"slept"]
    raw.close()
    umbel.hclose(b)


@pytest.mark.skipif(USES_POLL, reason="poll(2) has no descriptor to watch")
def test_another_thread_wakes_a_hub_in_a_host_loop() -> None:
    hub = current_hub()
    came: list[str] = []
    hub.turn()

    poster = threading.Thread(target=hub.post, args=(lambda: came.append("yes"),))
    poster.start()
    poster.join()

    assert select.select([hub.fileno()], [], [], 20)[0]
    hub.turn()
    assert came == ["yes"]


def test_a_turn_in_which_something_is_posted_asks_for_another() -> None:
    hub = current_hub()
    came: list[str] = []

    def work() -> None:
        umbel.yield_()
        hub.post(lambda: came.append("yes"))
        umbel.msleep(-1)

    working = umbel.go(work)
    until = hub.turn()
    hub.turn()
    umbel.hclose(working)

    assert until == 0
    assert came == ["yes"]


def test_poll_says_that_it_has_no_descriptor() -> None:
    with pytest.raises(umbel.NotSupportedError, match="UMBEL_POLLER"):
        PollPoller().fileno()


# Threads.


def test_each_thread_has_a_hub_which_ends_with_it() -> None:
    before = len(os.listdir("/dev/fd"))
    hubs: list[Hub] = []

    def work() -> None:
        umbel.msleep(umbel.within(0.001))
        hubs.append(current_hub())

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(hub) for hub in [*hubs, current_hub()]}) == 6
    wait_until(lambda: len(os.listdir("/dev/fd")) == before)


@pytest.mark.skipif(
    not hasattr(os, "eventfd") or os.environ.get("UMBEL_POLLER") == "poll",
    reason="how many a hub needs differs by system, and by poller",
)
def test_a_hub_that_finds_too_few_descriptors_leaves_none_open() -> None:
    code = """
import resource
import umbel
from tests.support import open_descriptors
before = open_descriptors()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for _ in range(2):
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 2, hard))
    try:
        umbel.msleep(umbel.within(1))
    except OSError as error:
        assert "Too many open files" in str(error)
    else:
        raise SystemExit("one descriptor was enough")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_descriptors() == before
umbel.msleep(umbel.now() + 1)
"""
    run_python(code)


def test_a_doorbell_that_can_not_be_watched_takes_no_ones_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # max_user_watches

    hub = current_hub()
    before = open_descriptors()

    with monkeypatch.context() as patch:
        patch.setattr(hub.poller, "add", refuse)
        with pytest.raises(OSError, match="No space"):
            hub.inbox.hear_signals()

    assert open_descriptors() == before
    rings = threading.Timer(0.05, hub.post, [lambda: None])
    rings.start()
    hub.collect(umbel.within(PATIENCE))
    rings.join()
    assert not hub.inbox.calls


def test_a_handle_can_move_between_threads(ends: Ends) -> None:
    left, right = ends
    for _ in range(3):
        received: list[bytes] = []
        thread = threading.Thread(
            target=lambda found=received: found.append(umbel.receive(right, 10))
        )
        thread.start()
        umbel.bsend(left, b"x")
        thread.join()
        assert received == [b"x"]
    umbel.bsend(left, b"y")
    assert umbel.receive(right, 10) == b"y"


def test_a_posted_call_wakes_a_sleeping_thread() -> None:
    hubs: list[Hub] = []
    bundles: list[umbel.BundleHandle] = []

    def sleep() -> None:
        hubs.append(current_hub())
        bundles.append(umbel.go(umbel.msleep, -1))
        with pytest.raises(umbel.BadHandleError):
            umbel.bundle_wait(bundles[0])

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_until(lambda: hubs and hubs[0]._is_asleep)
    start = time.monotonic()
    umbel.hclose(bundles[0])
    thread.join(20)

    assert not thread.is_alive()
    assert time.monotonic() - start < 2


# Signals.

_INTERRUPTED = """
import signal, sys, time
import umbel
left, right = umbel.ipc_pair()
if sys.argv[1] == "poll elsewhere":
    b = umbel.bundle()
    b.go(umbel.msleep, -1)
    b.go(umbel.receive, left)
print("ready", flush=True)
try:
    if sys.argv[1] == "sleep":
        umbel.msleep(-1)
    else:
        umbel.receive(right)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
import os
os._exit(0)
"""


@pytest.mark.parametrize("how", ["sleep", "receive", "poll elsewhere"])
def test_ctrl_c_wakes_the_main_coroutine_within_100_ms(how: str) -> None:
    took = []
    for _ in range(3):
        with python(_INTERRUPTED, how) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.01)  # it may be a step short of its wait; either is a case
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            took.append(float(process.stdout.readline()) - start)
        if took[-1] < 0.1:
            break

    assert min(took) < 0.1


def test_ctrl_c_in_a_coroutine_reaches_the_main_program() -> None:
    code = """
import os, signal
import umbel
def work():
    os.kill(os.getpid(), signal.SIGINT)
    umbel.msleep(-1)
try:
    with umbel.bundle() as b:
        b.go(work)
        umbel.msleep(-1)
except KeyboardInterrupt:
    print("main was told")
"""
    assert run_python(code) == "main was told\n"


def test_a_signal_handler_that_returns_changes_no_deadline(ends: Ends) -> None:
    code = """
import signal
import umbel
count = 0
def tick(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
deadline = umbel.within(0.1)
umbel.msleep(deadline)
assert 0 <= umbel.now() - deadline < 2000
assert count >= 2
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    run_python(code)


# Fork.


def test_a_forked_child_has_a_hub_of_its_own() -> None:
    code = """
import os
import umbel
from umbel._kernel.current import current_hub
mine = current_hub()
waiting = umbel.go(umbel.msleep, umbel.within(0.2))
child = os.fork()
if not child:
    assert current_hub() is not mine
    ran = []
    with umbel.bundle() as b:
        b.go(lambda: (umbel.msleep(umbel.within(0.001)), ran.append(1)))
    assert ran == [1]
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
umbel.bundle_wait(waiting)     # the parent's timers still come
umbel.hclose(waiting)
"""
    run_python(code)


def test_a_child_forked_in_a_coroutine_ends_with_it() -> None:
    code = """
import os
import umbel
def work():
    global child
    child = os.fork()
with umbel.go(work):
    pass
print("parent", os.waitpid(child, 0)[1], flush=True)
"""
    assert run_python(code) == "parent 0\n"


def test_a_forked_child_that_exits_says_nothing_of_what_is_its_parents() -> None:
    code = """
import os, sys, umbel
ends = umbel.pair("mem")
umbel.now()
pid = os.fork()
if not pid:
    umbel.now()
    sys.exit()
os.waitpid(pid, 0)
for end in ends:
    umbel.hclose(end)
"""
    with python(code, PYTHONWARNINGS="default") as process:
        _, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (0, "")


def test_a_forked_child_does_not_do_what_was_posted_to_the_parent() -> None:
    code = """
import os
import umbel
from umbel._kernel.current import current_hub
current_hub().post(lambda: print("done", flush=True))
child = os.fork()
if not child:
    with umbel.bundle() as b:
        b.go(umbel.yield_)
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
umbel.yield_()
"""
    assert run_python(code) == "done\n"


def test_nor_what_was_posted_to_another_thread() -> None:
    code = """
import os, threading
import umbel
from umbel._kernel.current import current_hub
hubs = []
made, may_go_on = threading.Event(), threading.Event()
def work():
    hubs.append(current_hub())
    made.set()
    may_go_on.wait()
    umbel.msleep(0)
thread = threading.Thread(target=work)
thread.start()
made.wait()
hubs[0].post(lambda: print("done", flush=True))
child = os.fork()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
may_go_on.set()
thread.join()
"""
    # Since 3.12 Python warns of a fork while there are threads.
    out = run_python(code, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert out == "done\n"


def test_a_child_forked_in_a_bundles_block_does_not_wait_for_the_parents() -> None:
    code = """
import os
import umbel
with umbel.bundle() as b:
    b.go(umbel.msleep, umbel.within(0.2))
    child = os.fork()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code)


def test_a_child_forked_in_a_coroutine_tells_of_its_failure() -> None:
    code = """
import os, sys
import umbel
def work():
    global child
    child = os.fork()
    if not child:
        sys.stderr = sys.stdout
        raise ValueError("in the child")
with umbel.go(work):
    pass
print("parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    out = run_python(code)
    assert out.endswith("parent 1\n")


def test_an_unknown_poller_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_POLLER", "pole")

    with pytest.raises(OSError, match="UMBEL_POLLER=pole"):
        make_poller()
