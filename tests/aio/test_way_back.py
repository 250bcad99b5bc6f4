"""`aio.wait` under cancellation: nothing is lost, and nothing is left unawaited."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator

import pytest

import umbel
from tests.support import PATIENCE, Ends, RunLoop
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


def test_nor_does_a_wait_where_nobody_hosts_the_caller() -> None:
    with pytest.raises(RuntimeError, match="coroutines of umbel's in a host loop"):
        aio.wait(nothing())
    gc.collect()


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


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("error", [SystemExit, ValueError])
def test_an_error_of_what_is_canceled_is_raised(
    error: type[BaseException], is_closed: bool, run: RunLoop
) -> None:
    got: list[BaseException] = []

    async def work() -> None:
        try:
            await aio.msleep(umbel.FOREVER)
        finally:
            raise error

    def wait() -> None:
        try:
            aio.wait(work(), umbel.FOREVER if is_closed else umbel.within(0.02))
        except BaseException as found:
            got.append(found)

    async def main() -> None:
        bundle = umbel.go(wait)
        await aio.msleep(umbel.within(0.01))
        if is_closed:
            await aio.run_blocking(umbel.hclose, bundle)
        else:
            await aio.bundle_wait(bundle, umbel.within(PATIENCE))
            umbel.hclose(bundle)

    run(main)
    assert [type(found) for found in got] == [error]


def test_a_group_of_cancellations_is_a_cancellation() -> None:
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    async def main() -> None:
        def wait() -> None:
            with pytest.raises(umbel.DeadlineError):
                aio.wait(work(), umbel.within(0.01))

        await aio.run_blocking(wait)

    trio.run(main)


def test_who_waits_for_a_task_of_a_closed_loop_is_told() -> None:
    got: list[BaseException] = []
    bundles: list[umbel.BundleHandle] = []

    def work() -> None:
        for _ in range(2):  # asyncio.run cancels the first
            try:
                aio.wait(asyncio.sleep(PATIENCE))
            except BaseException as error:
                got.append(error)

    async def main() -> None:
        bundles.append(umbel.go(work))
        await asyncio.sleep(0.01)

    asyncio.run(main())
    umbel.bundle_wait(bundles[0], umbel.within(PATIENCE))
    umbel.hclose(bundles[0])
    assert [type(error) for error in got] == [asyncio.CancelledError] * 2
