"""What the loop's own cancellation tells of a call that it ended, and leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import pytest

import umbel
from tests.support import Ends, turn
from umbel import aio


async def canceled(call: Awaitable[object]) -> asyncio.CancelledError:
    """Let *call* wait, cancel it, and give what it raised."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value


def test_a_canceled_receipt_of_so_many_bytes_tells_how_many_had_come(
    ends: Ends,
) -> None:
    left, right = ends
    umbel.bsend(right, b"abc")

    error = asyncio.run(canceled(aio.brecv(left, 5)))

    assert vars(error)["bytes_done"] == 3
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(left)


def test_a_canceled_send_tells_how_many_bytes_went(ends: Ends) -> None:
    left, right = ends
    data = bytes(100_000_000)

    error = asyncio.run(canceled(aio.bsend(left, data)))

    count = vars(error)["bytes_done"]
    assert 0 < count < len(data)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.bsend(left, b"more")
    assert umbel.brecv(right, count) == bytes(count)


def test_a_canceled_close_tells_what_is_known_of_the_peer(ends: Ends) -> None:
    left, _ = ends
    umbel.bsend(left, b"unread")

    error = asyncio.run(canceled(aio.close(left)))

    assert vars(error)["report"] == umbel.CloseReport(consumed=False)
    with pytest.raises(umbel.BadHandleError):
        umbel.bsend(left, b"more")


def test_a_deadline_that_came_with_the_cancellation_is_not_told_to_the_next_call(
    ends: Ends,
) -> None:
    left, right = ends

    async def main() -> bytes:
        await aio.msleep(0)  # the hub is this loop's guest from now on
        receiving = asyncio.ensure_future(aio.receive(left, 1, umbel.now() + 20))
        await asyncio.sleep(0)
        time.sleep(0.03)  # the loop, too: both are to come in one round
        turn()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        receiving = asyncio.ensure_future(aio.receive(left, 1, umbel.within(20)))
        await asyncio.sleep(0)
        await aio.bsend(right, b"x")
        return await receiving

    assert asyncio.run(main()) == b"x"
