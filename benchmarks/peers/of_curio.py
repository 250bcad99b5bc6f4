"""curio, by its own sockets."""

from __future__ import annotations

import socket

import curio
import curio.io
import curio.network

from benchmarks.child import report
from benchmarks.model import Job
from benchmarks.peers.of_sockets import BUFFER, listening_socket

READ = 65536


async def echo(client: curio.io.Socket, _job: Job) -> None:
    while data := await client.recv(READ):
        await client.sendall(data)


async def answer(client: curio.io.Socket, _job: Job) -> None:
    await client.sendall(await client.recv(1))
    await client.shutdown(1)
    while await client.recv(READ):
        pass


async def parked(client: curio.io.Socket, _job: Job) -> None:
    await client.sendall(b".")
    await client.recv(1)


async def sink(client: curio.io.Socket, job: Job) -> None:
    while await client.recv(job.size):
        pass


async def source(client: curio.io.Socket, job: Job) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    data = bytes(job.size)
    await client.recv(1)
    for _ in range(job.total // job.size):
        await client.sendall(data)


HANDLERS = {
    "echo": echo,
    "answer": answer,
    "parked": parked,
    "sink": sink,
    "source": source,
}


async def serve(job: Job) -> None:
    listener = curio.io.Socket(listening_socket(job.address))
    handler = HANDLERS[job.role]

    async def attend(client: curio.io.Socket, _address: object) -> None:
        async with client:
            await handler(client, job)

    await curio.network.run_server(listener, attend)


async def spawn(count: int) -> None:
    async def work() -> None:
        pass

    for _ in range(count // 100):
        async with curio.TaskGroup() as group:
            for _ in range(100):
                await group.spawn(work)


async def channel(count: int) -> None:
    queue = curio.Queue(1)

    async def send() -> None:
        for value in range(count):
            await queue.put(value)

    sender = await curio.spawn(send)
    for _ in range(count):
        await queue.get()
    await sender.join()


async def timer(count: int) -> None:
    queue = curio.Queue(1)

    async def send() -> None:
        for value in range(count):
            await queue.put(value)

    sender = await curio.spawn(send)
    for turn in range(count):
        await curio.timeout_after(60 + turn % 7, queue.get)
    await sender.join()


def run(_variant: str, job: Job) -> None:
    inner = {"spawn": spawn, "channel": channel, "timer": timer}
    if job.role in inner:
        report(lambda count: curio.run(inner[job.role], count), job.count)
    else:
        curio.run(serve, job)
