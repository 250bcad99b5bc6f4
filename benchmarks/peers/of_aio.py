"""umbel.aio in asyncio, uvloop and trio; umbel's coroutines as guests of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import umbel
from benchmarks.model import Job
from benchmarks.peers import of_umbel
from umbel import aio

Main = Callable[[], Awaitable[None]]


async def echo(stream: aio.AsyncStreamHandle) -> None:
    async for data in stream:
        await stream.send(data)
    stream.abort()


async def exactly(stream: aio.AsyncStreamHandle, *, size: int) -> None:
    with suppress(umbel.EndOfStreamError):
        while True:
            await stream.send(await stream.receive_exactly(size))
    stream.abort()


async def answer(stream: aio.AsyncStreamHandle) -> None:
    await stream.send(await stream.receive(1))
    await stream.close()


async def parked(stream: aio.AsyncStreamHandle) -> None:
    await stream.send(b".")
    await stream.receive(1)


async def sink(stream: aio.AsyncStreamHandle, *, size: int) -> None:
    while await stream.receive(size):
        pass
    stream.abort()


async def source(stream: aio.AsyncStreamHandle, *, size: int, total: int) -> None:
    data = bytes(size)
    await stream.receive(1)
    for _ in range(total // size):
        await stream.send(data)
    stream.abort()


async def serve(job: Job) -> None:
    handlers: dict[str, Callable[[aio.AsyncStreamHandle], Awaitable[None]]] = {
        "echo": echo,
        "exactly": partial(exactly, size=job.size),
        "answer": answer,
        "parked": parked,
        "sink": partial(sink, size=job.size),
        "source": partial(source, size=job.size, total=job.total),
    }
    listener = of_umbel.listen(job.address)
    await aio.serve(aio.as_async(listener), handlers[job.role])


async def serve_as_guest(job: Job) -> None:
    """Umbel's own coroutines and blocking verbs, beside whatever asyncio runs."""
    await aio.run_blocking(of_umbel.serve, "coroutines", job)


def start(variant: str, main: Main) -> None:
    if variant == "trio":
        import trio

        trio.run(main)
    elif variant == "uvloop":
        import uvloop

        uvloop.run(_as_coroutine(main))
    else:
        asyncio.run(_as_coroutine(main))


async def _as_coroutine(main: Main) -> None:
    await main()


def run(variant: str, job: Job) -> None:
    if variant == "guest":
        start(variant, partial(serve_as_guest, job))
    else:
        start(variant, partial(serve, job))
