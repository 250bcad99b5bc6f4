"""A receive looks before it waits, where the answer has often come by then."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

import umbel
from tests.support import Ends
from umbel import aio
from umbel._kernel.current import current_hub
from umbel._kernel.hub import BUDGET
from umbel.streams.connection import find_connection


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Tell of each poll how long it was to wait."""
    gc.disable()  # what it finds of other tests may wake the hub
    poller = current_hub().poller
    seen: list[float] = []
    honest = poller.poll
    current_hub().main.must_look = False  # whatever came before

    def poll(timeout: float, most: int) -> list[tuple[int, int]]:
        seen.append(timeout)
        return honest(timeout, most)

    monkeypatch.setattr(poller, "poll", poll)
    yield seen
    gc.enable()


def test_an_answer_that_is_there_already_is_not_waited_for(
    ends: Ends, polls: list[float]
) -> None:
    left, right = ends

    for _ in range(20):
        umbel.bsend(right, b"x")
        assert umbel.receive(left) == b"x"

    assert polls == []


def test_neither_by_a_task(ends: Ends, polls: list[float]) -> None:
    left, right = ends

    async def main() -> None:
        await aio.msleep(0)  # the hub is this loop's guest from now on
        polls.clear()
        for _ in range(20):
            await aio.bsend(right, b"x")
            assert await aio.receive(left) == b"x"
        assert polls == []

    asyncio.run(main())


def test_waits_pass_before_the_next_look(ends: Ends, polls: list[float]) -> None:
    left, right = ends
    umbel.bsend(right, b"x")
    umbel.receive(left)
    find_connection(left).waits_left = 2

    waited = []
    for _ in range(4):
        umbel.bsend(right, b"x")
        assert umbel.receive(left) == b"x"
        waited.append(len(polls))

    assert waited == [1, 2, 2, 2]


def test_waits_of_tasks_do_so_too(ends: Ends, polls: list[float]) -> None:
    left, right = ends

    async def main() -> list[int]:
        for _ in range(2):
            await aio.bsend(right, b"x")
            await aio.receive(left)
            await aio.msleep(umbel.within(0.001))  # no edge is left unseen
        await aio.bsend(right, b"x")
        await aio.receive(left)
        find_connection(left).waits_left = 2
        polls.clear()
        waited = []
        for _ in range(4):
            await aio.bsend(right, b"x")
            assert await aio.receive(left) == b"x"
            waited.append(len(polls))
        return waited

    first, second, *others = asyncio.run(main())
    assert 0 < first < second
    assert others == [second, second]


def test_looks_in_vain_make_the_next_rarer(ends: Ends) -> None:
    connection = find_connection(ends[0])

    waits = []
    for _ in range(10):
        assert connection.look(1) is None
        waits.append(connection.waits_left)
    assert waits == [1, 3, 7, 15, 31, 63, 127, 255, 255, 255]

    umbel.bsend(ends[1], b"x")
    assert connection.look(1) == b"x"
    assert connection.look(1) is None
    assert connection.waits_left == 1


def test_a_receive_that_looks_in_vain_does_so_more_rarely(ends: Ends) -> None:
    left, right = ends
    connection = find_connection(left)
    umbel.bsend(right, b"-")
    umbel.receive(left)

    with umbel.go(umbel.receive, left):
        assert connection.waits_left == 1
        umbel.bsend(right, b"x")


def test_who_never_has_to_wait_so_lets_others_run(ends: Ends) -> None:
    left, right = ends
    ran: list[int] = []
    rounds = 0

    def other() -> None:
        umbel.msleep(umbel.within(0.001))
        ran.append(rounds)

    with umbel.bundle() as both:
        both.go(other)
        until = umbel.within(20)
        while not ran and umbel.now() < until:
            for _ in range(10):
                umbel.bsend(right, b"x")
                umbel.receive(left)
                rounds += 1
        assert ran


def test_a_task_that_never_has_to_wait_so_lets_others_run(ends: Ends) -> None:
    left, right = ends
    ran: list[int] = []

    async def other() -> None:
        ran.append(0)

    async def main() -> None:
        await aio.bsend(right, b"x")
        await aio.receive(left)
        task = asyncio.ensure_future(other())
        for _ in range(2 * BUDGET):
            umbel.bsend(right, b"x")
            await aio.receive(left)
        assert ran
        await task

    asyncio.run(main())


def test_a_reset_that_is_found_so_is_raised(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"-")
    umbel.receive(left)
    umbel.bsend(left, b"never read")
    umbel.hclose(right)

    for _ in range(2):
        with pytest.raises(umbel.BrokenStreamError):
            umbel.receive(left)


def test_a_task_that_finds_something_at_once_makes_no_watch(ends: Ends) -> None:
    left, right = ends
    readiness = find_connection(left).readiness
    umbel.bsend(right, b"xyz")

    async def main() -> None:
        assert await aio.receive(left, 1) == b"x"
        assert await aio.receive(left) == b"yz"
        assert readiness.home is None
        umbel.done(right)
        assert await asyncio.wait_for(aio.receive(left), 5) == b""
        assert await aio.receive(left) == b""

    asyncio.run(main())


def test_a_first_receive_of_a_task_that_finds_nothing_tries_once(ends: Ends) -> None:
    left, right = ends
    connection = find_connection(left)
    honest = connection.try_receive
    assert honest is not None
    tries: list[bytes | None] = []

    def count(size: int) -> bytes | None:
        tries.append(honest(size))
        return tries[-1]

    connection.try_receive = count

    async def main() -> None:
        task = asyncio.create_task(aio.receive(left))
        await asyncio.sleep(0)
        assert tries == [None]
        umbel.bsend(right, b"x")
        assert await task == b"x"

    asyncio.run(main())


def test_a_first_receive_of_a_task_is_told_of_a_reset_and_of_who_is_busy(
    ends: Ends,
) -> None:
    left, right = ends
    connection = find_connection(left)
    umbel.bsend(left, b"never read")
    umbel.hclose(right)

    async def main() -> None:
        connection.receiver = current_hub().main
        with pytest.raises(umbel.BusyError):
            await aio.receive(left)
        connection.receiver = None
        for _ in range(2):
            with pytest.raises(umbel.BrokenStreamError):
                await aio.receive(left)
        umbel.hclose(left)
        with pytest.raises(umbel.BadHandleError):
            await aio.receive(left)

    asyncio.run(main())


def test_tasks_whose_streams_never_wait_let_others_run() -> None:
    pairs = [umbel.pair() for _ in range(2 * BUDGET)]
    for _, right in pairs:
        umbel.bsend(right, b"x")
    ran: list[int] = []

    async def other() -> None:
        ran.append(0)

    async def main() -> None:
        await aio.msleep(0)  # the hub is this loop's guest from now on
        task = asyncio.ensure_future(other())
        for left, _ in pairs:
            assert await aio.receive(left) == b"x"
        assert ran
        await task

    asyncio.run(main())
    for end in sum(pairs, ()):
        umbel.hclose(end)
