"""A receive looks before it waits, where the answer has often come by then."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

import umbel
from tests.support import Ends
from umbel import aio
from umbel._kernel.current import current_hub
from umbel._kernel.hub import BUDGET
from umbel.connection import MAX_GAP, find_connection


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Tell of each poll how long it was to wait."""
    poller = current_hub().poller
    seen: list[float] = []
    honest = poller.poll

    def poll(timeout: float) -> list[tuple[int, int]]:
        seen.append(timeout)
        return honest(timeout)

    monkeypatch.setattr(poller, "poll", poll)
    return seen


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


def test_it_is_tried_more_and_more_rarely_in_vain(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = find_connection(ends[0])
    tried: list[int] = []
    waits: list[int] = []

    def receive(_: int) -> bytes | None:
        tried.append(len(waits))
        return answer

    answer: bytes | None = None
    monkeypatch.setattr(connection, "try_receive", receive)
    while len(waits) < 2 * MAX_GAP + 600:
        waits.append(1)
        assert connection.try_first(1) is None
    gaps = [after - before for before, after in pairwise(tried)]
    assert gaps == [2, 4, 8, 16, 32, 64, 128, 256, 256, 256][: len(gaps)]
    assert gaps[-2:] == [MAX_GAP, MAX_GAP]

    answer = b"x"
    while connection.try_first(1) is None:
        pass
    assert connection.try_first(1) == b"x", "at once, since it helped"


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
