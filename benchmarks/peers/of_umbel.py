"""umbel: coroutines, threads, and both ends of a pair in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryDirectory

import umbel
from benchmarks.child import report
from benchmarks.model import Job
from benchmarks.peers.of_sockets import BACKLOG

# Looked up once: at each use of `umbel.receive` Python looks for it anew.
from umbel import accept, brecv, bsend, close, connect, receive

REQUEST = b"x" * 64
#: Bytes of a piece of a stream in bulk, and pieces in a MiB.
PIECE = 65536
PIECES = 16
Handler = Callable[[umbel.StreamHandle], None]


def echo(stream: umbel.StreamHandle) -> None:
    while data := receive(stream):
        bsend(stream, data)
    umbel.hclose(stream)


def exactly(job: Job) -> Handler:
    def handler(stream: umbel.StreamHandle) -> None:
        with suppress(umbel.EndOfStreamError):
            while True:
                bsend(stream, brecv(stream, job.size))
        umbel.hclose(stream)

    return handler


def answer(stream: umbel.StreamHandle) -> None:
    bsend(stream, receive(stream, 1))
    close(stream)


def parked(stream: umbel.StreamHandle) -> None:
    bsend(stream, b".")
    receive(stream, 1)


def sink(job: Job) -> Handler:
    def handler(stream: umbel.StreamHandle) -> None:
        while receive(stream, job.size):
            pass
        umbel.hclose(stream)

    return handler


def source(job: Job) -> Handler:
    def handler(stream: umbel.StreamHandle) -> None:
        data = bytes(job.size)
        receive(stream, 1)
        for _ in range(job.total // job.size):
            bsend(stream, data)
        umbel.hclose(stream)

    return handler


def listen(address: str, *, takes_descriptors: bool = False) -> umbel.ListenerHandle:
    """Listen at its best: as its peers, without taking descriptors."""
    scheme, _, place = address.partition(":")
    if scheme != "unix":
        return umbel.listen(f"tcp://127.0.0.1:{place}", BACKLOG)
    options = {} if takes_descriptors or not can_refuse() else {"descriptors": False}
    return umbel.listen(f"ipc:{place}", BACKLOG, **options)


def can_refuse() -> bool:
    """Tell whether the kernel can refuse descriptors: Linux 6.16 can."""
    try:
        pair = umbel.pair("ipc", descriptors=False)
    except umbel.NotSupportedError:
        return False
    for end in pair:
        umbel.hclose(end)
    return True


def serve(variant: str, job: Job) -> None:
    handlers = {
        "echo": echo,
        "exactly": exactly(job),
        "answer": answer,
        "parked": parked,
        "sink": sink(job),
        "source": source(job),
    }
    listener = listen(job.address, takes_descriptors=variant == "descriptors")
    if job.role == "idle":
        idle(listener)
    handler = handlers[job.role]
    if variant == "threads" and job.role != "echo":
        # One after the other, as the blocking sockets beside it do.
        while True:
            handler(accept(listener))
    elif variant == "threads":
        while True:
            stream = accept(listener)
            threading.Thread(target=handler, args=(stream,), daemon=True).start()
    else:
        with umbel.bundle() as bundle:
            while True:
                bundle.go(handler, accept(listener))


def idle(listener: umbel.ListenerHandle) -> None:
    """Greet, and keep: no coroutine waits on any of them."""
    kept = []
    while True:
        stream = accept(listener)
        bsend(stream, b".")
        kept.append(stream)


def ends(scheme: str) -> tuple[umbel.StreamHandle, umbel.StreamHandle]:
    """Make both ends of a connection in this process."""
    if scheme != "tcp":
        return umbel.pair(scheme)
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        return connect(listener.address), accept(listener)


def stream(scheme: str) -> Callable[[int], None]:
    """MiB from one coroutine to another, 64 KiB at a time."""

    def turns(count: int) -> None:
        left, right = ends(scheme)
        data = bytes(PIECE)

        def send() -> None:
            for _ in range(count * PIECES):
                bsend(left, data)
            umbel.hclose(left)

        with umbel.go(send):
            while receive(right, PIECE):
                pass
        umbel.hclose(right)

    return turns


def meet(scheme: str) -> Callable[[int], None]:
    """Connect, a byte there and back, a close that both know of, in one process."""

    def turns(count: int) -> None:
        with TemporaryDirectory() as folder:
            where = {
                "ipc": f"ipc:{folder}/s",
                "mem": "mem://benchmark",
                "tcp": "tcp://127.0.0.1:0",
            }[scheme]
            listener = umbel.listen(where, BACKLOG)

            def serve() -> None:
                for _ in range(count):
                    answer(accept(listener))

            with umbel.go(serve):
                for _ in range(count):
                    client = connect(listener.address)
                    bsend(client, b"x")
                    receive(client, 1)
                    close(client)
            umbel.hclose(listener)

    return turns


def pair(scheme: str) -> Callable[[int], None]:
    def turns(count: int) -> None:
        left, right = ends(scheme)
        with umbel.go(echo, right):
            for _ in range(count):
                bsend(left, REQUEST)
                receive(left)
            umbel.hclose(left)

    return turns


def spawn(count: int) -> None:
    def work() -> None:
        pass

    for _ in range(count // 100):
        with umbel.bundle() as bundle:
            for _ in range(100):
                bundle.go(work)


def channel(count: int) -> None:
    left, right = umbel.chmake(int)

    def send() -> None:
        for value in range(count):
            umbel.chsend(left, value)

    with left, right, umbel.go(send):
        for _ in range(count):
            umbel.chrecv(right)


def timer(count: int) -> None:
    """A wait with a deadline that another coroutine ends long before it."""
    left, right = umbel.chmake(int)

    def send() -> None:
        for value in range(count):
            umbel.chsend(left, value)

    with left, right, umbel.go(send):
        for turn in range(count):
            umbel.chrecv(right, umbel.within(60 + turn % 7))


def switch(count: int) -> None:
    def turn() -> None:
        for _ in range(count // 2):
            umbel.yield_()

    with umbel.bundle() as bundle:
        bundle.go(turn)
        bundle.go(turn)


def run(variant: str, job: Job) -> None:
    scheme = variant if variant in {"mem", "tcp"} else "ipc"
    inner = {
        "pair": pair(scheme),
        "stream": stream(scheme),
        "meet": meet(scheme),
        "spawn": spawn,
        "channel": channel,
        "timer": timer,
        "switch": switch,
    }
    if job.role in inner:
        report(inner[job.role], job.count)
    else:
        serve(variant, job)
