"""gevent, by its own sockets and its StreamServer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory

import gevent
import gevent.queue
import gevent.server
import gevent.socket

from benchmarks.child import report
from benchmarks.model import Job
from benchmarks.peers.of_sockets import (
    answer,
    echo,
    listening_socket,
    sink,
    source,
)

READ = 65536


def parked(connection: socket.socket) -> None:
    connection.sendall(b".")
    connection.recv(1)


def serve(job: Job) -> None:
    # The handlers of blocking sockets: that is what gevent is for.
    handlers: dict[str, Callable[[socket.socket], None]] = {
        "echo": echo,
        "answer": answer,
        "parked": parked,
        "sink": partial(sink, size=job.size),
        "source": partial(source, size=job.size, total=job.total),
    }
    bare = listening_socket(job.address)
    listener = gevent.socket.socket(bare.family, bare.type, fileno=bare.detach())
    handler = handlers[job.role]
    server = gevent.server.StreamServer(
        listener, lambda connection, _address: handler(connection)
    )
    server.serve_forever()


def pair(count: int) -> None:
    left, right = gevent.socket.socketpair()
    server = gevent.spawn(echo, right)
    request = b"x" * 64
    for _ in range(count):
        left.sendall(request)
        left.recv(READ)
    left.close()
    server.join()


def stream(count: int) -> None:
    """MiB from one greenlet to another, 64 KiB at a time."""
    left, right = gevent.socket.socketpair()
    sender = gevent.spawn(source, left, READ, count << 20)
    right.sendall(b"x")
    sink(right, READ)
    sender.join()


def meet(count: int) -> None:
    """Connect, a byte there and back, orderly close, in one process."""
    with TemporaryDirectory() as folder:
        bare = listening_socket(f"unix:{folder}/s")
        listener = gevent.socket.socket(bare.family, bare.type, fileno=bare.detach())
        server = gevent.server.StreamServer(listener, lambda client, _: answer(client))
        server.start()
        for _ in range(count):
            with gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(f"{folder}/s")
                client.sendall(b"x")
                client.recv(1)
                client.shutdown(socket.SHUT_WR)
                client.recv(1)
        server.stop()


def _work() -> None:
    pass


def spawn(count: int) -> None:
    for _ in range(count // 100):
        gevent.joinall([gevent.spawn(_work) for _ in range(100)])


def channel(count: int) -> None:
    queue = gevent.queue.Channel()

    def send() -> None:
        for value in range(count):
            queue.put(value)

    sender = gevent.spawn(send)
    for _ in range(count):
        queue.get()
    sender.join()


def timer(count: int) -> None:
    queue = gevent.queue.Channel()

    def send() -> None:
        for value in range(count):
            queue.put(value)

    sender = gevent.spawn(send)
    for turn in range(count):
        with gevent.Timeout(60 + turn % 7):
            queue.get()
    sender.join()


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
        report(inner[job.role], job.count)
    else:
        serve(job)
