"""`aio.wait` under cancellation: nothing is lost, and nothing is left unawaited."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator

import pytest

import umbel
from tests.support import PATIENCE, Ends
from umbel import aio

trio = pytest.importorskip("trio")
testing = pytest.importorskip("trio.testing")


async def nothing() -> None:
    """Never awaited: Python would warn of it."""


def wait_after_a_cancellation() -> None:
    with pytest.raises(umbel.Canceled):
        umbel.msleep(umbel.FOREVER)
    with pytest.raises(umbel.Canceled):
        aio.wait(nothing())
    gc.collect()


async def go_and_cancel(call: Callable[[], None]) -> None:
    umbel.hclose(umbel.go(call))


def test_a_canceled_coroutine_leaves_nothing_of_asyncio_unawaited() -> None:
    asyncio.run(go_and_cancel(wait_after_a_cancellation))


def test_a_canceled_coroutine_leaves_nothing_of_trio_unawaited() -> None:
    trio.run(go_and_cancel, wait_after_a_cancellation)


def test_what_a_canceled_coroutine_would_wait_for_is_canceled() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(PATIENCE))
        await asyncio.sleep(0)

        def wait() -> None:
            with pytest.raises(umbel.Canceled):
                umbel.msleep(umbel.FOREVER)
            with pytest.raises(umbel.Canceled):
                aio.wait(task)

        await go_and_cancel(wait)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


class Connecting:
    """Gives itself once it is open, as the connections of some libraries do."""

    is_open = False

    def __await__(self) -> Generator[object, object, Connecting]:
        yield from asyncio.sleep(0).__await__()
        self.is_open = True
        return self

    def close(self) -> None:
        self.is_open = False


def test_what_can_be_awaited_and_closed_is_not_closed_when_it_was_awaited() -> None:
    connection = Connecting()

    asyncio.run(aio.run_blocking(aio.wait, connection))

    assert connection.is_open


def test_what_arrives_just_as_a_wait_is_canceled_is_not_lost(ends: Ends) -> None:
    left, right = ends
    got = bytearray()

    def receive() -> None:
        got.extend(aio.wait(aio.receive(left)))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio.run_blocking, receive)
            await testing.wait_all_tasks_blocked()
            umbel.bsend(right, b"x")
            with pytest.raises(umbel.DeadlineError):
                umbel.receive(right, 1, 0)  # the hub looks, and wakes who receives
            nursery.cancel_scope.cancel()

    trio.run(main)
    umbel.bsend(right, b"y")
    got += umbel.receive(left)

    assert got == b"xy"


def test_a_second_cancellation_does_not_hurry_who_cleans_up() -> None:
    ended: list[str] = []
    waits = asyncio.Event()

    async def slow() -> None:
        try:
            waits.set()
            await asyncio.sleep(PATIENCE)
        finally:
            await asyncio.sleep(0.02)
            ended.append("cleaned up")

    async def main() -> None:
        waiting = asyncio.create_task(aio.run_blocking(aio.wait, slow()))
        await waits.wait()
        for _ in range(3):
            waiting.cancel()
            await asyncio.sleep(0.001)
        assert ended == []
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended == ["cleaned up"]

    asyncio.run(main())
