"""asyncio, by streams and by protocols, on its own loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import cast

from benchmarks.child import report
from benchmarks.model import Job
from benchmarks.peers.of_sockets import BACKLOG, BUFFER, listening_socket

READ = 65536
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ):
        writer.write(data)
        await writer.drain()
    writer.close()


def exactly(job: Job) -> Handler:
    async def handler(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                writer.write(await reader.readexactly(job.size))
                await writer.drain()
        writer.close()

    return handler


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(1))
    writer.write_eof()
    while await reader.read(READ):
        pass
    writer.close()


async def parked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b".")
    await reader.read(1)
    writer.close()


def sink(job: Job) -> Handler:
    async def handler(reader: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        while await reader.read(job.size):
            pass
        w.close()

    return handler


def source(job: Job) -> Handler:
    async def handler(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        bare = writer.get_extra_info("socket")
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        data = bytes(job.size)
        await reader.read(1)
        for _turn in range(job.total // job.size):
            writer.write(data)
            await writer.drain()
        writer.close()

    return handler


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Answer(Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.write_eof()

    def eof_received(self) -> bool:
        return False  # the transport closes itself


class Idle(Echo):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(b".")


class Sink(asyncio.BufferedProtocol):
    """Reads into one buffer: the best of the loop for bulk."""

    def __init__(self, job: Job) -> None:
        self.buffer = bytearray(job.size)

    def get_buffer(self, _hint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, _count: int) -> None:
        pass


class Source(Echo):
    def __init__(self, job: Job) -> None:
        self.left = job.total // job.size
        self.piece = bytes(job.size)
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        bare = transport.get_extra_info("socket")
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

    def data_received(self, _data: bytes) -> None:
        self.go_on()

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.go_on()

    def go_on(self) -> None:
        while self.left and not self.is_paused:
            self.left -= 1
            self.transport.write(self.piece)
        if not self.left:
            self.transport.close()


async def serve(variant: str, job: Job) -> None:
    listener = listening_socket(job.address)
    is_unix = listener.family == socket.AF_UNIX
    if variant.endswith("protocol"):
        protocols: dict[str, Callable[[], asyncio.BaseProtocol]] = {
            "echo": Echo,
            "answer": Answer,
            "idle": Idle,
            "sink": lambda: Sink(job),
            "source": lambda: Source(job),
        }
        loop = asyncio.get_running_loop()
        make = loop.create_unix_server if is_unix else loop.create_server
        await make(protocols[job.role], sock=listener, backlog=BACKLOG)
    else:
        handlers: dict[str, Handler] = {
            "echo": echo,
            "exactly": exactly(job),
            "answer": answer,
            "parked": parked,
            "sink": sink(job),
            "source": source(job),
        }
        start = asyncio.start_unix_server if is_unix else asyncio.start_server
        # The limit is what the reader may hold: twice that is kept at most.
        limit = max(READ, job.size)
        await start(handlers[job.role], sock=listener, backlog=BACKLOG, limit=limit)
    await asyncio.get_running_loop().create_future()


async def pair(count: int) -> None:
    left, right = socket.socketpair()
    server = asyncio.create_task(echo(*await asyncio.open_connection(sock=right)))
    reader, writer = await asyncio.open_connection(sock=left)
    request = b"x" * 64
    for _ in range(count):
        writer.write(request)
        await writer.drain()
        await reader.read(READ)
    writer.close()
    await server


async def stream(count: int) -> None:
    """MiB from one task to another, 64 KiB at a time."""
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    reader, far = await asyncio.open_connection(sock=right)
    _, writer = await asyncio.open_connection(sock=left)
    data = bytes(READ)

    async def send() -> None:
        for _ in range(count << 20 >> 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    sender = asyncio.create_task(send())
    while await reader.read(READ):
        pass
    await sender
    far.close()


async def meet(count: int) -> None:
    """Connect, a byte there and back, orderly close, in one process."""
    with TemporaryDirectory() as folder:
        server = await asyncio.start_unix_server(answer, f"{folder}/s")
        for _ in range(count):
            reader, writer = await asyncio.open_unix_connection(f"{folder}/s")
            writer.write(b"x")
            await reader.read(1)
            writer.write_eof()
            await reader.read(1)
            writer.close()
        server.close()


async def spawn(count: int) -> None:
    async def work() -> None:
        pass

    for _ in range(count // 100):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(work())


async def channel(count: int) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def send() -> None:
        for value in range(count):
            await queue.put(value)

    sender = asyncio.create_task(send())
    for _ in range(count):
        await queue.get()
    await sender


async def timer(count: int) -> None:
    """A wait with a deadline that another task ends long before it."""
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def send() -> None:
        for value in range(count):
            await queue.put(value)

    sender = asyncio.create_task(send())
    for turn in range(count):
        async with asyncio.timeout(60 + turn % 7):
            await queue.get()
    await sender


def run(variant: str, job: Job) -> None:
    def start(main: Coroutine[object, object, None]) -> None:
        if variant.startswith("uvloop"):
            import uvloop

            uvloop.run(main)
        else:
            asyncio.run(main)

    inner = {
        "pair": pair,
        "stream": stream,
        "meet": meet,
        "spawn": spawn,
        "channel": channel,
        "timer": timer,
    }
    if job.role in inner:
        report(lambda count: start(inner[job.role](count)), job.count)
    else:
        start(serve(variant, job))
