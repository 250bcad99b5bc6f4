"""The test clock: hours that take no time. And the library's timing, by that clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import umbel
from tests.support import Ends
from umbel import testing

HOUR = 3600.0


def test_an_hour_takes_no_time() -> None:
    start = time.monotonic()

    def main() -> int:
        before = umbel.now()
        umbel.msleep(umbel.within(HOUR))
        return umbel.now() - before

    assert testing.run(main) >= HOUR * 1000
    assert time.monotonic() - start < 5


def test_afterwards_the_clock_is_the_real_one() -> None:
    before = umbel.now()

    testing.run(lambda: umbel.msleep(umbel.within(HOUR)))

    assert umbel.now() - before < 60_000


def test_the_clock_is_real_again_after_a_failure() -> None:
    before = umbel.now()

    def main() -> None:
        umbel.msleep(umbel.within(HOUR))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        testing.run(main)

    assert umbel.now() - before < 60_000


def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    order: list[int] = []

    def sleep(hours: int) -> None:
        umbel.msleep(umbel.within(hours * HOUR))
        order.append(hours)

    def main() -> None:
        with umbel.bundle() as b:
            for hours in (3, 1, 2):
                b.go(sleep, hours)

    testing.run(main)

    assert order == [1, 2, 3]


def test_time_stands_still_while_data_is_there(ends: Ends) -> None:
    left, right = ends

    def main() -> int:
        before = umbel.now()
        with umbel.bundle() as b:
            b.go(umbel.msleep, umbel.within(HOUR))
            for _ in range(100):
                b.go(umbel.bsend, left, b"x")
                umbel.brecv(right, 1, umbel.within(1))
            return umbel.now() - before

    assert testing.run(main) == 0


def test_etimedout_comes_at_the_deadline_to_the_millisecond(ends: Ends) -> None:
    stream, (channel, other) = ends[0], umbel.chmake(int)

    def main() -> list[int]:
        late = []
        for call in (
            lambda until: umbel.receive(stream, 1, until),
            lambda until: umbel.brecv(stream, 1, until),
            lambda until: umbel.bsend(stream, bytes(64 << 20), until),
            lambda until: umbel.fdin(stream.fileno(), until),
            lambda until: umbel.chrecv(channel, until),
            lambda until: umbel.chsend(channel, 1, until),
            lambda until: umbel.choose([umbel.Recv(channel)], until),
            lambda until: umbel.close(ends[1], until),
        ):
            deadline = umbel.within(HOUR)
            with pytest.raises(umbel.DeadlineError):
                call(deadline)
            late.append(umbel.now() - deadline)
        return late

    assert testing.run(main) == [0] * 8
    umbel.hclose(channel)
    umbel.hclose(other)


def test_accept_and_connect_time_out_to_the_millisecond() -> None:
    def main() -> list[int]:
        late = []
        with umbel.listen("mem://x", backlog=1) as listener:
            deadline = umbel.within(HOUR)
            with pytest.raises(umbel.DeadlineError):
                umbel.accept(listener, deadline)
            late.append(umbel.now() - deadline)
            first = umbel.connect("mem://x")
            deadline = umbel.within(HOUR)
            with pytest.raises(umbel.DeadlineError):
                umbel.connect("mem://x", deadline)
            late.append(umbel.now() - deadline)
            umbel.hclose(first)
        return late

    assert testing.run(main) == [0, 0]


def test_connecting_to_a_full_backlog_of_ipc_does_too(tmp_path: Path) -> None:
    listener = umbel.ipc_listen(tmp_path / "x.sock", 1)
    clients: list[umbel.StreamHandle] = []

    def connect() -> int:
        while True:
            deadline = umbel.now() + 5  # within the pause between two attempts
            try:
                clients.append(umbel.ipc_connect(tmp_path / "x.sock", deadline))
            except umbel.DeadlineError:
                return umbel.now() - deadline

    assert testing.run(connect) == 0
    for handle in (*clients, listener):
        umbel.hclose(handle)


def test_a_bundle_wait_times_out_to_the_millisecond() -> None:
    def main() -> int:
        b = umbel.go(umbel.msleep, -1)
        deadline = umbel.within(HOUR)
        with pytest.raises(umbel.DeadlineError):
            umbel.bundle_wait(b, deadline)
        umbel.hclose(b)
        return umbel.now() - deadline

    assert testing.run(main) == 0


def test_more_than_anybody_waits_is_for_ever() -> None:
    assert umbel.within(1e308) == umbel.FOREVER


def test_the_end_of_a_block_waits_for_the_peer_but_not_for_ever() -> None:
    left, right = umbel.pair("mem")

    def main() -> int:
        sleeping = umbel.go(umbel.msleep, umbel.within(HOUR))  # or no time would pass
        start = umbel.now()
        with pytest.raises(umbel.DeadlineError), left:
            pass
        took = umbel.now() - start
        umbel.hclose(sleeping)
        return took

    assert testing.run(main) < 60_000
    umbel.hclose(right)


def test_the_work_of_a_thread_comes_before_a_deadline_that_is_further_away() -> None:
    def main() -> str:
        found = ""
        for _ in range(20):
            found = umbel.to_thread(work, umbel.within(30))
        ended = umbel.now()
        umbel.msleep(umbel.within(HOUR))  # no longer does it wait
        assert umbel.now() >= ended + HOUR * 1000
        return found

    def work() -> str:
        time.sleep(0.005)
        return "done"

    assert testing.run(main) == "done"
