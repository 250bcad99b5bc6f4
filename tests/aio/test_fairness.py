"""A task whose calls never have to wait: the loop's other tasks run all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import pytest

import umbel
from tests.mutants import opaque
from tests.support import Ends, RunLoop
from umbel import aio
from umbel.testing.transports import transport_at_hand

Round = Callable[[Ends], Awaitable[object]]

#: Turns of another task that are to come within so many rounds of the busy one.
ENOUGH = 10
ROUNDS = 3000


async def send_and_receive(ends: Ends) -> None:
    await aio.bsend(ends[0], b"x")
    await aio.receive(ends[1])


async def send_and_receive_exactly(ends: Ends) -> None:
    await aio.bsendl(ends[0], [b"x", b"y"])
    await aio.brecv(ends[1], 2)


async def send_much_and_receive_it(ends: Ends) -> None:
    await aio.bsendl(ends[0], [bytes(20_000)])
    await aio.brecv(ends[1], 20_000)


def errand(calls: int) -> Round:
    def send_some(end: umbel.StreamHandle) -> None:
        for _ in range(calls):
            umbel.bsend(end, b"")

    async def run(ends: Ends) -> None:
        await aio.run_blocking(send_some, ends[0])

    return run


def refused(call: Round) -> Round:
    async def run(ends: Ends) -> None:
        with suppress(OSError):
            await call(ends)

    return run


CALLS: dict[str, Round] = {
    "receive": send_and_receive,
    "brecv": send_and_receive_exactly,
    "much": send_much_and_receive_it,
    "errand of one call": errand(1),
    "errand of two calls": errand(2),
    "errand of three calls": errand(3),
    "EBADF": refused(lambda _: aio.receive(umbel.StreamHandle(1 << 40))),
    "EINVAL": refused(lambda ends: aio.receive(ends[1], -1)),
    "ETIMEDOUT": refused(lambda ends: aio.receive(ends[1], 1, 0)),
    "ETIMEDOUT of brecv": refused(lambda ends: aio.brecv(ends[1], 1, 0)),
    "ETIMEDOUT of an errand": refused(lambda ends: aio.flush(ends[1], 0)),
}


def lets_others_run(run: RunLoop, busy: Callable[[], Awaitable[object]]) -> bool:
    """Tell whether another task runs now and then while one is *busy* all the time."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            for _ in range(ROUNDS):
                await busy()
                if turns >= ENOUGH:
                    break
            tasks.cancel_scope.cancel()

    run(main)
    return turns >= ENOUGH


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("before", range(3))  # where in a round the budget ends
def test_a_task_that_never_has_to_wait_lets_others_run(
    run: RunLoop, ends: Ends, name: str, before: int
) -> None:
    for _ in range(before):
        umbel.bsend(ends[0], b"")

    assert lets_others_run(run, partial(CALLS[name], ends))


def test_so_does_one_whose_receives_are_refused_since_another_waits(
    run: RunLoop, ends: Ends
) -> None:
    async def main() -> None:
        got: list[bytes] = []

        async def first() -> None:
            got.append(await aio.receive(ends[1]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            await anyio.wait_all_tasks_blocked()
            await aio.bsend(ends[0], b"data")
            for _ in range(ROUNDS):
                with suppress(OSError):
                    await aio.receive(ends[1], 1, 0)
                if got:
                    break
            else:
                tasks.cancel_scope.cancel()
        assert got == [b"data"]

    run(main)


@pytest.mark.parametrize("before", range(3))
def test_so_does_one_whose_transport_has_no_attempts(run: RunLoop, before: int) -> None:
    with transport_at_hand(opaque.transport, "opaque"):
        ends = umbel.pair("opaque")
        for _ in range(before):
            umbel.bsend(ends[0], b"")

        assert lets_others_run(run, partial(send_and_receive, ends))
        for end in ends:
            umbel.hclose(end)


@pytest.mark.parametrize("before", range(3))
def test_so_do_who_connects_and_who_accepts(
    run: RunLoop, listener: umbel.ListenerHandle, before: int
) -> None:
    async def visit() -> None:
        umbel.hclose(await aio.connect(listener.address))
        umbel.hclose(await aio.accept(listener))

    for _ in range(before):
        umbel.msleep(0)

    assert lets_others_run(run, visit)
