"""The awaitable verbs: not awaited, or given what their twins refuse too."""

from __future__ import annotations

import umbel
from umbel import ChannelHandle, Recv, Send, aio


async def forgotten(stream: aio.AsyncStreamHandle) -> None:
    aio.bsend(stream, b"x")  # error
    stream.send(b"x")  # error
    stream.close()  # error
    aio.msleep(umbel.now() + 1)  # error
    data: bytes = aio.receive(stream)  # error
    print(data)


async def awaited_in_vain(blocking: umbel.StreamHandle) -> None:
    await aio.listen("mem://x")  # error
    await blocking.receive()  # error
    await umbel.accept(umbel.listen("mem://x"))  # error


async def kinds(
    stream: aio.AsyncStreamHandle, listener: aio.AsyncListenerHandle
) -> None:
    await aio.bsend(listener, b"x")  # error
    await aio.accept(stream)  # error
    await listener.receive()  # error
    await aio.bsend(stream, "text")  # error
    await aio.brecv(stream, b"bytes can't be written")  # error
    await stream.receive(10, 0.5)  # error
    text: str = await aio.receive(stream)  # error
    print(text)
    with stream:  # error
        pass
    for _ in stream:  # error
        pass
    async for number in stream:
        number.bit_length()  # error


async def channels(numbers: ChannelHandle[int], words: ChannelHandle[str]) -> None:
    await aio.chsend(numbers, "one")  # error
    word: str = await aio.chrecv(numbers)  # error
    await aio.choose([Send(words, 1)])  # error
    await aio.choose(Recv(words))  # error
    print(word)


async def blocking_code(name: str) -> None:
    await aio.run_blocking(name)  # error
    await aio.run_blocking(name.upper, 5)  # error
    number: int = await aio.to_thread(name.upper)  # error
    print(number)
