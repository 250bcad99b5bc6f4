"""Ping-pong and bulk over a local socket: umbel against bare sockets, in one run.

    python benchmarks/echo.py

Absolute figures mean nothing on a shared machine; the ratios are what to read.
"""

import socket
import threading
import time

import umbel

ROUNDS = 20_000
BULK = 512 << 20
CHUNK = 1 << 18


def time_of(run: object) -> float:
    start = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - start


def bare_pingpong() -> None:
    a, b = socket.socketpair()
    with a, b:
        for _ in range(ROUNDS):
            a.send(b"x" * 64)
            b.send(b.recv(65536))
            a.recv(65536)


def umbel_pingpong() -> None:
    a, b = umbel.ipc_pair()
    for _ in range(ROUNDS):
        umbel.bsend(a, b"x" * 64)
        umbel.bsend(b, umbel.receive(b))
        umbel.receive(a)
    umbel.hclose(a)
    umbel.hclose(b)


def umbel_coroutines() -> None:
    a, b = umbel.ipc_pair()

    def echo() -> None:
        while data := umbel.receive(b):
            umbel.bsend(b, data)

    with umbel.go(echo):
        for _ in range(ROUNDS):
            umbel.bsend(a, b"x" * 64)
            umbel.receive(a)
        umbel.done(a)
    umbel.hclose(a)
    umbel.hclose(b)


def bare_bulk() -> None:
    a, b = socket.socketpair()

    def send() -> None:
        data = bytes(CHUNK)
        for _ in range(BULK // CHUNK):
            a.sendall(data)
        a.close()

    sender = threading.Thread(target=send)
    sender.start()
    while b.recv(CHUNK):
        pass
    b.close()
    sender.join()


def umbel_bulk() -> None:
    a, b = umbel.ipc_pair()

    def send() -> None:
        data = bytes(CHUNK)
        for _ in range(BULK // CHUNK):
            umbel.bsend(a, data)
        umbel.hclose(a)

    sender = threading.Thread(target=send)
    sender.start()
    while umbel.receive(b, CHUNK):
        pass
    umbel.hclose(b)
    sender.join()


def main() -> None:
    for name, bare, ours in (
        ("ping-pong in one thread", bare_pingpong, umbel_pingpong),
        (
            "ping-pong of coroutines, against bare calls",
            bare_pingpong,
            umbel_coroutines,
        ),
        ("bulk between threads", bare_bulk, umbel_bulk),
    ):
        pairs = [(time_of(bare), time_of(ours)) for _ in range(5)]
        ratio = sorted(mine / theirs for theirs, mine in pairs)[2]
        print(f"{name}: umbel takes {ratio:.2f} times as long as bare sockets")


if __name__ == "__main__":
    main()
