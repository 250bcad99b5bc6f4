"""`async for` over a stream: what `receive` would give, one after the other."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import anyio
import pytest

import umbel
from tests.support import PATIENCE, RunLoop, is_blocked, pattern, turn
from umbel import aio
from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel.aio.handle import as_stream
from umbel.handle import open_handles
from umbel.streams.connection import find_connection

Ends = tuple[aio.AsyncStreamHandle, aio.AsyncStreamHandle]


@pytest.fixture(params=["ipc", "mem"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    left, right = aio.pair(request.param)
    yield left, right
    for handle in (left, right):
        if handle in open_handles:
            umbel.hclose(handle)


def see_others(monkeypatch: pytest.MonkeyPatch) -> None:
    never = property(lambda _: False, lambda _, __: None)
    monkeypatch.setattr(Hub, "saw_one", never, raising=False)


@pytest.fixture(autouse=True, params=["alone", "among others"])
def company(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub believe that other streams are busy too, or leave it as it is."""
    if request.param == "among others":
        see_others(monkeypatch)


async def someone_receives(stream: aio.AsyncStreamHandle) -> None:
    while find_connection(stream).receiver is None:
        await anyio.sleep(0)


async def collect(
    stream: aio.AsyncStreamHandle,
    got: list[bytes],
    each: Callable[[], object] = lambda: None,
) -> None:
    """Add to *got* what comes, and call *each* behind it."""
    async for chunk in stream:
        got.append(chunk)
        each()


@pytest.mark.parametrize("sizes", [[1] * 50, [1, 4095, 4096, 20_000, 1, 1, 300_000, 2]])
def test_it_gives_what_comes_until_the_end(
    ends: Ends, run: RunLoop, sizes: list[int]
) -> None:
    left, right = ends
    pieces = [pattern(size) for size in sizes]
    got = bytearray()
    seen: list[int] = []

    async def send() -> None:
        for piece in pieces:
            before = len(got)
            await right.send(piece, umbel.within(PATIENCE))
            while len(got) < before + len(piece):  # so that the other waits again
                await anyio.sleep(0)
        await right.done()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            async for chunk in left:
                got.extend(chunk)
                seen.append(len(chunk))

    run(main)

    assert bytes(got) == b"".join(pieces)
    assert find_connection(left).bytes_in == sum(sizes)
    assert all(seen)


def test_each_chunk_after_the_first_is_caught(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    see_others(monkeypatch)

    async def send() -> None:
        for number in range(10):
            while len(got) < number:
                await asyncio.sleep(0)
            await right.send(b"%d" % number)

    got: list[bytes] = []

    async def main() -> None:
        sending = asyncio.ensure_future(send())
        async for chunk in left:
            got.append(chunk)
            if len(got) == 2:
                # From here on it is not asked any more.
                monkeypatch.setattr("umbel.aio.chunks.receive", None)
            if len(got) == 10:
                break
        assert got == [b"%d" % number for number in range(10)]
        await sending

    asyncio.run(main())


def test_leaving_it_early_leaves_the_stream_as_it_is(ends: Ends, run: RunLoop) -> None:
    left, right = ends

    async def main() -> None:
        await right.send(b"one")
        assert await anext(aiter(left)) == b"one"
        await right.send(b"two")
        assert await left.receive() == b"two"

    run(main)


def test_one_that_was_canceled_goes_on(ends: Ends, run: RunLoop) -> None:
    left, right = ends

    async def times_out(items: AsyncIterator[object]) -> None:
        with anyio.move_on_after(0.01) as scope:
            await anext(items)
        assert scope.cancelled_caught

    async def main() -> None:
        chunks = aiter(left)
        for number in range(3):
            await times_out(chunks)
            await right.send(b"%d" % number)
            assert await anext(chunks) == b"%d" % number
        await right.done()
        for _ in range(2):  # an end is one for good
            with pytest.raises(StopAsyncIteration):
                await anext(chunks)

        listener = aio.listen(f"ipc:@umbel-test-again-{os.getpid()}")
        streams = aiter(listener)
        await times_out(streams)
        client = await aio.connect(listener.address)
        (await anext(streams)).abort()
        client.abort()
        listener.abort()
        with pytest.raises(StopAsyncIteration):
            await anext(streams)

        near, far = umbel.chmake(int)
        values = aiter(near)
        await times_out(values)
        sending = umbel.go(umbel.chsend, far, 7)
        assert await anext(values) == 7
        umbel.hclose(sending)
        far.abort()
        with pytest.raises(StopAsyncIteration):
            await anext(values)
        near.abort()

    run(main)


def test_one_that_is_forgotten_keeps_no_handle_open(run: RunLoop) -> None:
    async def main() -> None:
        gc.disable()
        try:
            for is_begun in (False, True):
                left, right = aio.pair()
                chunks = aiter(left)
                if is_begun:
                    await right.send(b"x")
                    await anext(chunks)
                with pytest.warns(ResourceWarning, match="never closed"):
                    del left, chunks  # no cycle refers to it
                assert await right.receive() == b""
                right.abort()
        finally:
            gc.enable()

    run(main)


def test_nobody_complains_of_one_that_is_left_by_an_error(
    ends: Ends, run: RunLoop
) -> None:
    left, right = ends

    async def main() -> None:
        await right.send(b"x")
        with suppress(KeyError):
            async for _ in left:
                raise KeyError
        gc.collect()  # trio warned here
        listener = aio.listen(f"ipc:@umbel-test-left-{os.getpid()}")
        client = await aio.connect(listener.address)
        with suppress(KeyError):
            async for stream in listener:
                stream.abort()
                raise KeyError
        gc.collect()
        client.abort()
        listener.abort()

    run(main)


def test_a_canceled_one_loses_nothing(ends: Ends) -> None:
    left, right = ends
    got: list[bytes] = []

    async def read() -> None:
        await collect(left, got)

    async def main() -> None:
        for count, moment in enumerate(("while it waits", "as bytes come"), 1):
            reading = asyncio.ensure_future(read())
            await right.send(b"-")
            while len(got) < count or not is_blocked(left):
                await asyncio.sleep(0.001)
            if moment == "as bytes come":
                await right.send(b"kept")
                turn()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert find_connection(left).receiver is None
        assert got == [b"-", b"-"]
        await right.send(b"next")
        assert await left.receive_exactly(8) == b"keptnext"

    asyncio.run(main())


def test_a_close_meanwhile_is_ebadf(ends: Ends, run: RunLoop) -> None:
    left, right = ends

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await right.send(b"-")
            with pytest.raises(umbel.BadHandleError):
                await collect(left, [], lambda: tasks.start_soon(close))

    async def close() -> None:
        await someone_receives(left)
        umbel.hclose(left)

    run(main)


def test_a_reset_is_raised_now_and_later(ends: Ends, run: RunLoop) -> None:
    left, right = ends

    async def reset() -> None:
        await left.send(b"never read")
        await someone_receives(left)
        umbel.hclose(right)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await right.send(b"-")
            with pytest.raises(umbel.BrokenStreamError):
                await collect(left, [], lambda: tasks.start_soon(reset))
            with pytest.raises(umbel.BrokenStreamError):
                await left.receive()

    run(main)


def test_a_direction_that_broke_between_two_chunks_is_told(
    ends: Ends, run: RunLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    see_others(monkeypatch)
    got: list[bytes] = []

    async def send() -> None:
        await right.send(b"1")
        while not got:
            await anyio.sleep(0)
        await someone_receives(left)
        await right.send(b"2")

    async def iterate() -> None:
        async for chunk in left:
            got.append(chunk)
            if chunk == b"2":
                with pytest.raises(umbel.DeadlineError):
                    await left.receive_exactly(100, umbel.within(0.001))
                find_connection(left).readiness.is_drained = True
                await right.send(b"3")
                await right.done()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            with pytest.raises(umbel.BrokenStreamError):
                await iterate()

    run(main)

    assert got == [b"1", b"2"]


def test_one_that_was_handed_on_between_two_chunks_is_ebadf(
    ends: Ends, run: RunLoop
) -> None:
    left, right = ends
    owners: list[aio.AsyncStreamHandle] = []
    got: list[bytes] = []

    async def send() -> None:
        for number in range(3):
            await someone_receives(left)
            await right.send(b"%d" % number)
            while len(got) == number:
                await anyio.sleep(0)

    def hand_on() -> None:
        if len(got) == 3:  # the inner loop is in it by then
            owners.append(umbel.hown(left))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            with anyio.fail_after(PATIENCE), pytest.raises(umbel.BadHandleError):
                await collect(left, got, hand_on)
        await right.send(b"for the new owner")
        assert await owners[0].receive() == b"for the new owner"

    run(main)
    owners[0].abort()


def test_who_else_receives_meanwhile_is_told_that_it_is_busy(
    ends: Ends, run: RunLoop
) -> None:
    left, right = ends

    async def intrude() -> None:
        await someone_receives(left)
        with pytest.raises(umbel.BusyError):
            await left.receive()
        await right.done()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await right.send(b"-")
            async for _ in left:
                tasks.start_soon(intrude)

    run(main)


def test_it_is_told_so_itself_where_another_receives_already(
    ends: Ends, run: RunLoop
) -> None:
    left, right = ends

    async def intrude() -> None:
        assert await left.receive() == b"for the intruder"

    async def read_on(start_intruder: Callable[[], object]) -> None:
        async for _ in left:
            start_intruder()
            await someone_receives(left)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await right.send(b"-")
            with pytest.raises(umbel.BusyError):
                await read_on(lambda: tasks.start_soon(intrude))
            await right.send(b"for the intruder")

    run(main)


def test_an_orderly_close_need_not_wait_for_it(ends: Ends, run: RunLoop) -> None:
    left, right = ends

    async def close() -> None:
        await someone_receives(left)
        assert (await left.close(umbel.within(PATIENCE))).consumed

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await right.send(b"-")
            with pytest.raises(umbel.BadHandleError):
                await collect(left, [], lambda: tasks.start_soon(close))
            await right.done()

    run(main)


def test_a_close_finds_it_in_its_first_moment_in_another_loop(ends: Ends) -> None:
    left, right = ends

    async def elsewhere() -> None:
        await right.send(b"-")
        await left.receive()

    async def main() -> None:
        # It begins to wait as a guest of the loop that was here before.
        receiving = asyncio.ensure_future(left.receive())
        await asyncio.sleep(0)
        assert find_connection(left).receiver is not None
        asyncio.get_running_loop().call_soon(umbel.done, as_stream(right))
        assert (await left.close(umbel.within(PATIENCE))).consumed
        with pytest.raises(umbel.BadHandleError):
            await receiving

    asyncio.run(elsewhere())
    asyncio.run(main())


@pytest.mark.parametrize("is_seen", [False, True])
def test_it_may_go_on_in_another_loop(ends: Ends, is_seen: bool) -> None:
    left, right = ends
    chunks = aiter(left)

    def send(data: bytes) -> None:
        umbel.bsend(as_stream(right), data)

    async def take(*sent: bytes) -> list[bytes]:
        got = []
        for data in sent:
            asyncio.get_running_loop().call_later(0.01, send, data)
            got.append(await anext(chunks))
        return got

    for sent in ([b"1", b"2", b"3"], [b"4"], [b"5"], [b"6", b"7"]):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(take(*sent)) == sent
        loop.close()
        if is_seen:
            umbel.yield_()  # so that the hub sees that its host is gone
            umbel.go(lambda: umbel.msleep(umbel.within(0.01))).close()
            assert current_hub().host is None


def test_a_stream_that_can_only_wait_gives_the_same(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    monkeypatch.setattr(find_connection(left), "try_receive", None)

    def send(data: bytes) -> None:
        umbel.bsend(as_stream(right), data)

    async def main() -> None:
        got = []
        await right.send(b"0")
        async for chunk in left:
            got.append(chunk)
            if len(got) == 3:
                await right.done()
            else:
                asyncio.get_running_loop().call_later(0.01, send, b"%d" % len(got))
        assert got == [b"0", b"1", b"2"]

    asyncio.run(main())
