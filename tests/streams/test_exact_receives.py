"""A brecv takes just what it asks for, also where the hub receives for it."""

from __future__ import annotations

import asyncio
import termios
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.support import Ends, pattern, soon, wait_until_blocked
from umbel import aio
from umbel._kernel.current import current_hub
from umbel._kernel.watch import Watch
from umbel.sockets.stream import SocketStream
from umbel.sockets.unread import ask
from umbel.streams.connection import Connection, find_connection
from umbel.values.iolist import JOINED_SIZE, Skip

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from umbel.values.iolist import Target


def left_in_kernel(stream: umbel.StreamHandle) -> int:
    inner = find_connection(stream).stream
    assert isinstance(inner, SocketStream)
    return ask(inner._socket.fileno(), termios.FIONREAD)


def refuse_to_fail(stream: umbel.StreamHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a receive on *stream* asks the kernel for what is not there."""
    inner = find_connection(stream).stream
    assert isinstance(inner, SocketStream)

    def fail(_: SocketStream) -> None:
        pytest.fail("it has tried in vain")

    monkeypatch.setattr(SocketStream, "_note_emptied", fail)


def test_what_the_hub_receives_is_no_more_than_was_asked_for(ends: Ends) -> None:
    left, right = ends
    found = []

    def receive() -> None:
        found.append(umbel.brecv(left, 4))

    receiving = umbel.go(receive)
    umbel.bsend(right, b"headbody")
    current_hub().collect(0)

    assert left_in_kernel(left) == 4
    umbel.bundle_wait(receiving, soon())
    umbel.hclose(receiving)
    assert found == [b"head"]
    assert umbel.brecv(left, 4, soon()) == b"body"


def test_in_a_task_it_is_no_more_than_that_either(ends: Ends) -> None:
    left, right = ends

    async def main() -> bytes:
        receiving = asyncio.ensure_future(aio.brecv(left, 4, soon()))
        await asyncio.sleep(0)
        umbel.bsend(right, b"headbody")
        assert await receiving == b"head"
        assert left_in_kernel(left) == 4
        return await aio.brecv(left, 4, soon())

    assert asyncio.run(main()) == b"body"


def test_a_receive_after_it_may_be_given_as_much_as_ever(ends: Ends) -> None:
    left, right = ends

    def answer() -> None:
        umbel.bsend(right, umbel.brecv(right, 1))
        umbel.bsend(right, umbel.receive(right, deadline=soon()))

    with umbel.go(answer):
        umbel.bsend(left, b"x")
        assert umbel.brecv(left, 1, soon()) == b"x"
        umbel.bsend(left, pattern(500))
        assert umbel.brecv(left, 500, soon()) == pattern(500)


@pytest.mark.parametrize("scheme", ["ipc", "mem"])
def test_who_reads_request_after_request_never_tries_in_vain(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends

    def answer() -> None:
        for _ in range(5):
            umbel.bsend(right, umbel.brecv(right, 4))

    with umbel.go(answer):
        for turn in range(5):
            if turn == 1:
                refuse_to_fail(right, monkeypatch)
            umbel.bsend(left, b"four")
            assert umbel.brecv(left, 4, soon()) == b"four"


def test_many_small_reads_in_a_row_seldom_ask(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    asked: list[None] = []
    is_emptied = SocketStream._is_emptied

    def watch(stream: SocketStream) -> bool:
        before = stream._filled_at_most
        found = is_emptied(stream)
        asked.extend([None] * (stream._filled_at_most != before))
        return found

    with pytest.raises(umbel.DeadlineError):
        umbel.receive(left, 1, 0)  # who has never waited does not ask
    monkeypatch.setattr(SocketStream, "_is_emptied", watch)
    umbel.bsend(right, bytes(400))
    for _ in range(400):
        umbel.brecv(left, 1, soon())

    assert 0 < len(asked) < 10


@pytest.mark.parametrize("finds", ["receive", "brecv", "close"])
def test_an_end_that_is_there_is_found_without_watching_the_descriptor(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, finds: str
) -> None:
    left, right = ends
    umbel.bsend(right, b"four")
    umbel.done(right)
    monkeypatch.setattr(current_hub().poller, "add", pytest.fail)

    assert umbel.receive(left, 4) == b"four"

    if finds == "receive":
        assert umbel.receive(left) == b""
    elif finds == "brecv":
        with pytest.raises(umbel.EndOfStreamError):
            umbel.brecv(left, 1, soon())
    else:
        assert umbel.close(left, soon()) == umbel.CloseReport(consumed=True)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("is_awaited", [False, True])
def test_the_end_is_told_after_reads_that_took_just_what_there_was(
    ends: Ends, count: int, *, is_awaited: bool
) -> None:
    left, right = ends
    umbel.bsend(right, bytes(4 * count))
    umbel.hclose(right)

    async def main() -> None:
        for _ in range(count):
            assert await aio.brecv(left, 4, soon()) == bytes(4)
        with pytest.raises(umbel.EndOfStreamError):
            await aio.brecv(left, 4, soon())

    if is_awaited:
        asyncio.run(main())
    else:
        for _ in range(count):
            assert umbel.brecv(left, 4, soon()) == bytes(4)
        with pytest.raises(umbel.EndOfStreamError):
            umbel.brecv(left, 4, soon())


def test_a_task_is_told_of_an_end_that_its_loop_knows_of(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"four")

    async def main() -> None:
        assert await aio.brecv(left, 4, soon()) == b"four"
        umbel.hclose(right)
        await asyncio.sleep(0.001)
        with pytest.raises(umbel.EndOfStreamError):
            await aio.brecv(left, 4, soon())

    asyncio.run(main())


def test_and_if_it_comes_while_one_waits(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"four")
    assert umbel.brecv(left, 4) == b"four"

    with umbel.go(umbel.hclose, right), pytest.raises(umbel.EndOfStreamError):
        umbel.brecv(left, 4, soon())


def test_a_buffer_that_was_filled_is_no_different(ends: Ends) -> None:
    left, right = ends
    buffer = bytearray(4)

    def send() -> None:
        for data in (b"one.", b"two.", b"end."):
            umbel.msleep(umbel.now() + 1)
            umbel.bsend(right, data)
        umbel.hclose(right)

    found = []
    with umbel.go(send):
        for _ in range(3):
            umbel.brecv(left, buffer, soon())
            found.append(bytes(buffer))
        with pytest.raises(umbel.EndOfStreamError):
            umbel.brecv(left, buffer, soon())

    assert found == [b"one.", b"two.", b"end."]


def test_what_came_for_one_that_a_close_overtakes_counts_as_discarded(
    ends: Ends,
) -> None:
    left, right = ends
    umbel.bsend(right, b"x")
    umbel.brecv(left, 1)
    found: list[object] = []

    def receive() -> None:
        try:
            found.append(umbel.brecv(left, 4))
        except umbel.BadHandleError as error:
            found.append(error.bytes_done)

    receiving = umbel.go(receive)
    umbel.bsend(right, b"four")
    umbel.done(right)
    current_hub().collect(0)  # the hub has them
    report = umbel.close(left, soon())
    umbel.hclose(receiving)

    assert (found, report.discarded) in (([0], 4), ([b"four"], 0))


def test_one_that_is_canceled_with_bytes_at_hand_breaks_the_stream(ends: Ends) -> None:
    left, right = ends

    def receive() -> None:
        with pytest.raises(umbel.Canceled):
            umbel.brecv(left, 4)

    receiving = umbel.go(receive)
    umbel.bsend(right, b"four")
    current_hub().collect(0)
    umbel.hclose(receiving)

    with pytest.raises(umbel.BrokenStreamError):
        umbel.brecv(left, 4, soon())


def test_so_does_a_task(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        receiving = asyncio.ensure_future(aio.brecv(left, 4))
        await asyncio.sleep(0)
        umbel.bsend(right, b"fo")
        await asyncio.sleep(0.001)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await receiving
        assert caught.value.bytes_done == 2  # type: ignore[attr-defined]
        with pytest.raises(umbel.BrokenStreamError):
            await aio.brecv(left, 4, soon())

    asyncio.run(main())


def test_it_may_wait_in_one_loop_after_another(ends: Ends) -> None:
    left, right = ends

    async def main() -> bytes:
        asyncio.get_running_loop().call_later(0.001, umbel.bsend, right, b"four")
        return await aio.brecv(left, 4, soon())

    assert [asyncio.run(main()) for _ in range(3)] == [b"four"] * 3


def test_a_close_in_another_thread_is_told_to_a_task(ends: Ends) -> None:
    left, _ = ends

    def close() -> None:
        wait_until_blocked(left)
        umbel.hclose(left)

    async def main() -> None:
        with pytest.raises(umbel.BadHandleError):
            await aio.brecv(left, 4, soon())

    with ThreadPoolExecutor() as pool:
        closing = pool.submit(close)
        asyncio.run(main())
        closing.result()


def test_at_the_limit_of_recursion_the_hub_receives_no_more_for_it(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    umbel.bsend(right, b"x")
    umbel.brecv(left, 1)

    def fail(*_: object) -> None:
        raise RecursionError

    with monkeypatch.context() as deep:
        deep.setattr(Watch, "wait_in", fail)
        deep.setattr(Connection, "give_back", fail)
        with pytest.raises(RecursionError):
            umbel.brecv(left, 4)

    for watch in find_connection(left).readiness.watches():
        assert watch.catch is None


@pytest.mark.parametrize("is_awaited", [False, True])
def test_several_small_buffers_leave_in_one_send(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, *, is_awaited: bool
) -> None:
    left, right = ends
    connection = find_connection(left)
    sent = []
    try_send = connection.try_send
    assert try_send is not None

    def watch(data: bytes | memoryview) -> int:
        sent.append(bytes(data))
        return try_send(data)

    monkeypatch.setattr(connection, "try_send", watch)
    parts: list[Buffer] = [b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3]]
    buffers = [*parts, array("H", [26729])]
    if is_awaited:
        asyncio.run(_send(left, buffers))
    else:
        umbel.bsendl(left, buffers)

    assert sent == [b"abcdefih"]
    assert umbel.brecv(right, 8) == b"abcdefih"


async def _send(stream: umbel.StreamHandle, buffers: Sequence[Buffer]) -> None:
    await aio.bsendl(stream, buffers, soon())


@pytest.mark.parametrize("is_awaited", [False, True])
def test_several_small_buffers_are_filled_by_one_receive(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, *, is_awaited: bool
) -> None:
    left, right = ends
    connection = find_connection(right)
    asked = []
    try_receive = connection.try_receive
    assert try_receive is not None

    def watch(max_bytes: int) -> bytes | None:
        asked.append(max_bytes)
        return try_receive(max_bytes)

    monkeypatch.setattr(connection, "try_receive", watch)
    head, body = bytearray(2), array("H", [0, 0])
    wide = bytearray(b"....")
    targets: list[Target] = [head, Skip(3), body, bytearray(), memoryview(wide)[1:3]]
    umbel.bsend(left, b"ab---efghijk")
    if is_awaited:
        asyncio.run(_fill(right, targets))
    else:
        umbel.brecvl(right, targets, soon())

    assert asked == [11]
    assert [bytes(head), body.tobytes(), bytes(wide)] == [b"ab", b"efgh", b".ij."]
    assert left_in_kernel(right) == 1


async def _fill(stream: umbel.StreamHandle, targets: Sequence[Target]) -> None:
    await aio.brecvl(stream, targets, soon())


@pytest.mark.parametrize("size", [JOINED_SIZE, JOINED_SIZE + 1])
@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_buffer_is_filled_whatever_its_size(
    ends: Ends, size: int, *, is_awaited: bool
) -> None:
    left, right = ends
    buffer = bytearray(size)
    sent = pattern(size)
    with umbel.go(umbel.bsend, left, sent):
        if is_awaited:
            asyncio.run(_fill_one(right, buffer))
        else:
            umbel.brecv(right, buffer, soon())

    assert buffer == sent


async def _fill_one(stream: umbel.StreamHandle, buffer: bytearray) -> None:
    await aio.brecv(stream, buffer, soon())


@pytest.mark.parametrize("is_awaited", [False, True])
def test_who_waits_for_small_buffers_can_not_resize_them(
    ends: Ends, *, is_awaited: bool
) -> None:
    left, right = ends
    buffer = bytearray(4)
    refused = []

    def resize() -> None:
        try:
            buffer.extend(b"more")
        except BufferError:
            refused.append(buffer)
        umbel.bsend(left, b"four")

    def resize_later() -> None:
        umbel.yield_()
        resize()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(resize)
        await aio.brecv(right, buffer, soon())

    if is_awaited:
        asyncio.run(main())
    else:
        with umbel.go(resize_later):
            umbel.brecv(right, buffer, soon())

    assert refused
    assert buffer == b"four"
