"""Bare greenlets: what a switch costs, and what a parked one weighs."""

from __future__ import annotations

import socket
from functools import partial

from greenlet import getcurrent, greenlet

from benchmarks.child import report
from benchmarks.model import Job
from benchmarks.peers.of_sockets import listening_socket


def switch(count: int) -> None:
    """Two that switch to each other: half of the switches each."""
    home = getcurrent()
    others: list[greenlet] = []

    def turn(other: int) -> None:
        for _ in range(count // 2):
            others[other].switch()

    others += [greenlet(partial(turn, place), home) for place in (1, 0)]
    others[0].switch()


def parked(job: Job) -> None:
    """A socket and a greenlet for each connection, switched away from for good."""
    home = getcurrent()
    kept = []

    def wait(connection: socket.socket) -> None:
        connection.send(b".")
        home.switch()
        connection.recv(1)

    listener = listening_socket(job.address)
    while True:
        connection, _ = listener.accept()
        kept.append(greenlet(partial(wait, connection)))
        kept[-1].switch()


def run(_variant: str, job: Job) -> None:
    if job.role == "switch":
        report(switch, job.count)
    else:
        parked(job)
