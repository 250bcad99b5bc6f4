"""The load generator where there is no C compiler: `load.c` in Python.

It is slower, so that a fast server waits for it; the processor time of the server is
read in the same way, and stays comparable.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable

PATIENCE = 20.0
READ = 1 << 20
REST = 0.01
#: Operations, however short of time: fewer say nothing.
LEAST = 100
BUFFER = 1 << 20


def server_clock(pid: int) -> int:
    """Name the processor clock of a process, as Linux's clock_getcpuclockid does."""
    return (~pid << 3) | 2


class Meter:
    """Reads the server's processor clock before and after, when it is at rest.

    The clock of a process that is running lags by up to a tick of the scheduler.
    """

    def __init__(self, pid: int) -> None:
        self.clock = server_clock(pid)
        time.clock_gettime_ns(self.clock)

    def start(self) -> None:
        self.cpu = self._cpu()
        self.wall = time.perf_counter_ns()

    def report(self, operations: int) -> None:
        elapsed = time.perf_counter_ns() - self.wall
        print(operations, self._cpu() - self.cpu, elapsed, flush=True)

    def _cpu(self) -> int:
        time.sleep(REST)
        return time.clock_gettime_ns(self.clock)


def connected(address: str) -> socket.socket:
    """Connect, and ask again until the server is up."""
    scheme, _, place = address.partition(":")
    end = time.monotonic() + PATIENCE
    while True:
        found = socket.socket(
            socket.AF_UNIX if scheme == "unix" else socket.AF_INET, socket.SOCK_STREAM
        )
        try:
            if scheme == "unix":
                found.connect(place)
            else:
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                found.connect(("127.0.0.1", int(place)))
        except (FileNotFoundError, ConnectionRefusedError):
            found.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.002)
        else:
            return found


def receive_exactly(stream: socket.socket, count: int) -> None:
    while count:
        data = stream.recv(count)
        if not data:
            raise ConnectionResetError("the server closed a connection")
        count -= len(data)


class Load:
    """Connections with one request under way on each."""

    def __init__(self, options: dict[str, str]) -> None:
        address = options["address"]
        self.message = bytes.fromhex(options["prefix"]) + b"x" * int(options["size"])
        self.idle = [connected(address) for _ in range(int(options["idle"]))]
        self.poller = select.epoll()
        self.streams: dict[int, socket.socket] = {}
        for _ in range(int(options["connections"])):
            stream = connected(address)
            stream.sendall(bytes.fromhex(options["preamble"]))
            receive_exactly(stream, int(options["reply"]))
            self.streams[stream.fileno()] = stream
            self.poller.register(stream, select.EPOLLIN)

    def turns(self, seconds: float, least: int) -> int:
        """A whole answer sends the next request; at the end all are waited for."""
        message, streams = self.message, self.streams
        missing = dict.fromkeys(streams, len(message))
        end = time.monotonic() + seconds
        operations, under_way = 0, len(streams)
        for stream in streams.values():
            stream.sendall(message)
        while under_way:
            ready = self.poller.poll()
            is_over = time.monotonic() >= end and operations >= least
            for fd, _event in ready:
                got = len(streams[fd].recv(READ))
                if not got:
                    raise ConnectionResetError("the server closed a connection")
                missing[fd] -= got
                if missing[fd]:
                    continue
                missing[fd] = len(message)
                operations += 1
                if is_over:
                    under_way -= 1
                else:
                    streams[fd].sendall(message)
        return operations


def echo(options: dict[str, str], meter: Meter) -> None:
    load = Load(options)
    count = len(load.streams)
    load.turns(float(options["warmup"]), count)
    meter.start()
    meter.report(load.turns(float(options["seconds"]), count + LEAST))


def sink(options: dict[str, str], meter: Meter) -> None:
    size, total = int(options["size"]), int(options["total"])
    data = bytes(size)
    with connected(options["address"]) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        meter.start()
        for _ in range(-(-total // size)):
            stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        stream.recv(1)
        meter.report(total)


def source(options: dict[str, str], meter: Meter) -> None:
    buffer = bytearray(int(options["size"]))
    total = 0
    with connected(options["address"]) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        meter.start()
        stream.sendall(b"x")  # the server waits for it
        while count := stream.recv_into(buffer):
            total += count
        meter.report(total)


def answer(options: dict[str, str], meter: Meter) -> None:
    def turns(seconds: float, least: int) -> int:
        end = time.monotonic() + seconds
        operations = 0
        while time.monotonic() < end or operations < least:
            with connected(options["address"]) as stream:
                stream.sendall(b"x")
                receive_exactly(stream, 1)
                stream.shutdown(socket.SHUT_WR)
                stream.recv(1)
            operations += 1
        return operations

    turns(float(options["warmup"]), 0)
    meter.start()
    meter.report(turns(float(options["seconds"]), LEAST))


def hold(options: dict[str, str], _meter: Meter) -> None:
    kept = []
    for count, word in ((1, "ready"), (int(options["connections"]), "held")):
        for _ in range(count):
            kept.append(connected(options["address"]))
            receive_exactly(kept[-1], 1)
        print(word, flush=True)
        sys.stdin.readline()


MODES: dict[str, Callable[[dict[str, str], Meter], None]] = {
    "echo": echo,
    "sink": sink,
    "source": source,
    "answer": answer,
    "hold": hold,
}


def main() -> None:
    pairs = (argument.partition("=") for argument in sys.argv[1:])
    options = {key: value for key, _, value in pairs}
    if int(options.get("core", "-1")) >= 0:
        os.sched_setaffinity(0, {int(options["core"])})
    MODES[options["mode"]](options, Meter(int(options["pid"])))


if __name__ == "__main__":
    main()
