"""The awaitable verbs, in asyncio: the same names, and the results of their twins."""

from __future__ import annotations

import asyncio
from typing import assert_type

import umbel
from umbel import Recv, Send, aio


async def answer(stream: aio.AsyncStreamHandle) -> None:
    async with stream:
        async for chunk in stream:
            assert_type(chunk, bytes)
            await stream.send(chunk)


async def streams() -> None:
    async with aio.listen("mem://typed-aio") as listener:
        assert_type(listener, aio.AsyncListenerHandle)
        client = await aio.connect(listener.address, umbel.within(5))
        assert_type(client, aio.AsyncStreamHandle)
        server = await aio.accept(listener, umbel.within(5))
        serving = asyncio.create_task(answer(server))
        await aio.bsend(client, b"hello", umbel.within(5))
        assert_type(await aio.brecv(client, 5), bytes)
        await client.send(memoryview(b"again"))
        assert_type(await client.receive(10, umbel.within(5)), bytes)
        await aio.done(client)
        assert_type(await client.close(umbel.within(5)), umbel.CloseReport)
        await serving


async def pairs() -> None:
    left, right = aio.pair()
    assert_type(left, aio.AsyncStreamHandle)
    await aio.bsendl(left, [b"one", b"two"])
    assert_type(await aio.receive(right), bytes)
    blocking = aio.as_blocking(left)
    assert_type(blocking, umbel.StreamHandle)
    umbel.hclose(blocking)
    right.abort()


async def channels() -> None:
    ours, theirs = umbel.chmake(int)
    with ours, theirs, umbel.bundle() as work:
        work.go(theirs.send, 5)
        assert_type(await aio.chrecv(ours, umbel.within(5)), int)
        work.go(theirs.receive)
        await aio.chsend(ours, 7)
        work.go(theirs.send, 9)
        index, value = await aio.choose([Recv(ours), Send(ours, 1)], umbel.within(5))
        assert_type(index, int)
        assert_type(value, int | None)


def count() -> int:
    return 3


async def others() -> None:
    await aio.msleep(umbel.now() + 1)
    assert_type(await aio.to_thread(count), int)
    assert_type(await aio.run_blocking(count), int)


async def main() -> None:
    await streams()
    await pairs()
    await channels()
    await others()


if __name__ == "__main__":
    asyncio.run(main())
