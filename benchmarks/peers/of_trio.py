"""trio, by its own streams."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from tempfile import TemporaryDirectory

import trio

from benchmarks.child import report
from benchmarks.model import Job
from benchmarks.peers.of_sockets import BUFFER, listening_socket

READ = 65536
Handler = Callable[[trio.SocketStream], Awaitable[object]]


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        while data := await stream.receive_some(READ):
            await stream.send_all(data)


async def answer(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(await stream.receive_some(1))
        await stream.send_eof()
        while await stream.receive_some(READ):
            pass


async def parked(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(b".")
        await stream.receive_some(1)


async def sink(stream: trio.SocketStream, *, size: int) -> None:
    async with stream:
        while await stream.receive_some(size):
            pass


async def source(stream: trio.SocketStream, *, size: int, total: int) -> None:
    async with stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        data = bytes(size)
        await stream.receive_some(1)
        for _ in range(total // size):
            await stream.send_all(data)


async def serve(job: Job) -> None:
    handlers: dict[str, Handler] = {
        "echo": echo,
        "answer": answer,
        "parked": parked,
        "sink": partial(sink, size=job.size),
        "source": partial(source, size=job.size, total=job.total),
    }
    bare = trio.socket.from_stdlib_socket(listening_socket(job.address))
    await trio.serve_listeners(handlers[job.role], [trio.SocketListener(bare)])


async def pair(count: int) -> None:
    left, right = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end))
        for end in socket.socketpair()
    )
    request = b"x" * 64
    async with trio.open_nursery() as nursery, left:
        nursery.start_soon(echo, right)
        for _ in range(count):
            await left.send_all(request)
            await left.receive_some(READ)


async def stream(count: int) -> None:
    """MiB from one task to another, 64 KiB at a time."""
    left, right = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end))
        for end in socket.socketpair()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(source, left, size=READ, total=count << 20))
        await right.send_all(b"x")
        await sink(right, size=READ)


async def meet(count: int) -> None:
    """Connect, a byte there and back, orderly close, in one process."""
    with TemporaryDirectory() as folder:
        bare = trio.socket.from_stdlib_socket(listening_socket(f"unix:{folder}/s"))
        async with trio.open_nursery() as nursery:
            listeners = [trio.SocketListener(bare)]
            nursery.start_soon(trio.serve_listeners, answer, listeners)
            for _ in range(count):
                async with await trio.open_unix_socket(f"{folder}/s") as client:
                    await client.send_all(b"x")
                    await client.receive_some(1)
                    await client.send_eof()
                    await client.receive_some(1)
            nursery.cancel_scope.cancel()


async def spawn(count: int) -> None:
    async def work() -> None:
        pass

    for _ in range(count // 100):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(work)


async def channel(count: int) -> None:
    left, right = trio.open_memory_channel[int](0)

    async def send() -> None:
        for value in range(count):
            await left.send(value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for _ in range(count):
            await right.receive()


async def timer(count: int) -> None:
    left, right = trio.open_memory_channel[int](0)

    async def send() -> None:
        for value in range(count):
            await left.send(value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for turn in range(count):
            with trio.fail_after(60 + turn % 7):
                await right.receive()


def run(_variant: str, job: Job) -> None:
    inner = {
        "pair": pair,
        "stream": stream,
        "meet": meet,
        "spawn": spawn,
        "channel": channel,
        "timer": timer,
    }
    if job.role in inner:
        report(lambda count: trio.run(inner[job.role], count), job.count)
    else:
        trio.run(serve, job)
