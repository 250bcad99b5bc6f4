"""anyio's own streams, on asyncio and on trio."""

from __future__ import annotations

import socket

import anyio
import anyio.abc

from benchmarks.model import Job
from benchmarks.peers.of_sockets import BUFFER, listening_socket


async def echo(stream: anyio.abc.SocketStream, _job: Job) -> None:
    async for data in stream:
        await stream.send(data)


async def answer(stream: anyio.abc.SocketStream, _job: Job) -> None:
    await stream.send(await stream.receive(1))
    await stream.send_eof()
    async for _ in stream:
        pass


async def parked(stream: anyio.abc.SocketStream, _job: Job) -> None:
    await stream.send(b".")
    await stream.receive(1)


async def sink(stream: anyio.abc.SocketStream, job: Job) -> None:
    try:
        while True:
            await stream.receive(job.size)
    except anyio.EndOfStream:
        pass


async def source(stream: anyio.abc.SocketStream, job: Job) -> None:
    bare = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    data = bytes(job.size)
    await stream.receive(1)
    for _ in range(job.total // job.size):
        await stream.send(data)


HANDLERS = {
    "echo": echo,
    "answer": answer,
    "parked": parked,
    "sink": sink,
    "source": source,
}


async def serve(job: Job) -> None:
    handler = HANDLERS[job.role]

    async def attend(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await handler(stream, job)

    bare = listening_socket(job.address)
    listener = await anyio.abc.SocketListener.from_socket(bare)
    await listener.serve(attend)


def run(variant: str, job: Job) -> None:
    anyio.run(serve, job, backend=variant)
