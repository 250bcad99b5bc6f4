"""Bare sockets: a hand-written epoll loop (the reference), and blocking calls."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from tempfile import TemporaryDirectory

from benchmarks.child import report
from benchmarks.model import Job

BACKLOG = 4096
READ = 65536
#: What carries a stream in bulk at its best; the kernel's default is 208 KiB.
BUFFER = 1 << 20


def listening_socket(address: str) -> socket.socket:
    """Listen at "unix:PATH" or "tcp:PORT"; accepted sockets have no Nagle delay."""
    scheme, _, place = address.partition(":")
    if scheme == "unix":
        found = socket.socket(socket.AF_UNIX)
        found.bind(place)
    else:
        found = socket.socket(socket.AF_INET)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.bind(("127.0.0.1", int(place)))
    found.listen(BACKLOG)
    return found


def epoll_echo(listener: socket.socket) -> None:
    """Echo in a level-triggered loop, as fast as Python can be written."""
    poller = select.epoll()
    register, poll = poller.register, poller.poll
    register(listener.fileno(), select.EPOLLIN)
    home = listener.fileno()
    calls: dict[int, tuple[Callable[[int], bytes], Callable[[bytes], int]]] = {}
    open_sockets: dict[int, socket.socket] = {}
    while True:
        for fd, _event in poll(-1, 512):
            if fd == home:
                connection, _ = listener.accept()
                open_sockets[connection.fileno()] = connection
                calls[connection.fileno()] = connection.recv, connection.send
                register(connection.fileno(), select.EPOLLIN)
                continue
            recv, send = calls[fd]
            data = recv(READ)
            if not data:
                del calls[fd]
                open_sockets.pop(fd).close()
            elif send(data) < len(data):
                raise RuntimeError("a client does not read its answers")


def epoll_answer(listener: socket.socket) -> None:
    """Connect, a byte there and back, orderly close: a step for each readiness."""
    poller = select.epoll()
    poller.register(listener.fileno(), select.EPOLLIN)
    listener.setblocking(False)
    answered: dict[int, bool] = {}
    sockets: dict[int, socket.socket] = {}
    while True:
        for fd, _event in poller.poll(-1, 512):
            if fd == listener.fileno():
                connection, _ = listener.accept()
                sockets[connection.fileno()] = connection
                answered[connection.fileno()] = False
                poller.register(connection.fileno(), select.EPOLLIN)
            elif not answered[fd]:
                sockets[fd].send(sockets[fd].recv(1))
                sockets[fd].shutdown(socket.SHUT_WR)
                answered[fd] = True
            elif not sockets[fd].recv(READ):
                del answered[fd]
                sockets.pop(fd).close()


def epoll_idle(listener: socket.socket) -> None:
    """Greet, and keep: nothing but a socket object for each connection."""
    poller = select.epoll()
    kept = []
    while True:
        connection, _ = listener.accept()
        poller.register(connection.fileno(), select.EPOLLIN)
        connection.send(b".")
        kept.append(connection)


def echo(connection: socket.socket) -> None:
    recv, sendall = connection.recv, connection.sendall
    while data := recv(READ):
        sendall(data)
    connection.close()


def answer(connection: socket.socket) -> None:
    with connection:
        connection.sendall(connection.recv(1))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(READ):
            pass


def sink(connection: socket.socket, size: int) -> None:
    buffer = bytearray(size)
    while connection.recv_into(buffer):
        pass
    connection.close()


def source(connection: socket.socket, size: int, total: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    connection.recv(1)
    data = bytes(size)
    for _ in range(total // size):
        connection.sendall(data)
    connection.close()


def pair(count: int) -> None:
    """Both ends in one thread: no switch, the least that the calls can cost."""
    left, right = socket.socketpair()
    request = b"x" * 64
    with left, right:
        for _ in range(count):
            left.send(request)
            right.send(right.recv(READ))
            left.recv(READ)


def stream(count: int) -> None:
    """MiB from one end to the other, 64 KiB at a time, in one thread."""
    left, right = socket.socketpair()
    data, buffer = bytes(READ), bytearray(READ)
    with left, right:
        for _ in range(count << 20 >> 16):
            left.send(data)
            right.recv_into(buffer)


def meet(count: int) -> None:
    """Connect, a byte there and back, orderly close, in one thread."""
    with (
        TemporaryDirectory() as folder,
        listening_socket(f"unix:{folder}/s") as listener,
    ):
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            client.connect(f"{folder}/s")
            client.send(b"x")
            server, _ = listener.accept()
            with client, server:
                server.send(server.recv(1))
                client.recv(1)
                for end, peer in ((client, server), (server, client)):
                    end.shutdown(socket.SHUT_WR)
                    peer.recv(1)


INSIDE = {"pair": pair, "stream": stream, "meet": meet}


def run(variant: str, job: Job) -> None:
    if job.role in INSIDE:
        report(INSIDE[job.role], job.count)
        return
    listener = listening_socket(job.address)
    if variant == "epoll" and job.role in {"echo", "answer", "idle"}:
        {"echo": epoll_echo, "answer": epoll_answer, "idle": epoll_idle}[job.role](
            listener
        )
    while True:
        connection, _ = listener.accept()
        if job.role == "answer":
            answer(connection)
        elif job.role == "sink":
            sink(connection, job.size)
        elif job.role == "source":
            source(connection, job.size, job.total)
        else:
            threading.Thread(target=echo, args=(connection,), daemon=True).start()
