"""Libraries that carry messages: a request is a message, and its answer another."""

from __future__ import annotations

import multiprocessing.connection as mp
from typing import cast

from benchmarks.model import Job


def echo_by_mp(path: str) -> None:
    """Answer one connection without asking which; several by mp's own `wait`."""
    listener = mp.Listener(path, "AF_UNIX", backlog=64)
    # The listener has no public descriptor: its socket is what `wait` needs.
    bare = listener._listener._socket  # type: ignore[attr-defined]
    clients: list[mp.Connection] = []
    while True:
        for ready in mp.wait([bare, *clients]):
            if ready is bare:
                clients.append(listener.accept())
                continue
            client = cast(mp.Connection, ready)
            try:
                client.send_bytes(client.recv_bytes())
            except EOFError:
                clients.remove(client)


def echo_by_zmq(path: str) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.REP) as server:
        server.setsockopt(zmq.BACKLOG, 4096)
        server.bind(f"ipc://{path}")
        while True:
            server.send(server.recv())


def echo_by_nng(path: str) -> None:
    import pynng

    with pynng.Rep0(listen=f"ipc://{path}") as server:
        while True:
            server.send(server.recv())


def run(variant: str, job: Job) -> None:
    path = job.address.removeprefix("unix:")
    {"mp": echo_by_mp, "zmq": echo_by_zmq, "nng": echo_by_nng}[variant](path)
