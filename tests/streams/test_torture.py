"""Everything at once, for as long as asked: UMBEL_TORTURE=120 python -m pytest …

Clients in processes of their own send numbered blocks and are killed at any time, in a
rain of signals, with forks and descriptors that come back at once. Every block is
received once and in order, or its loss is told to the side that lives.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import umbel

SECONDS = float(os.environ.get("UMBEL_TORTURE", "1.5"))
SEED = int(os.environ.get("UMBEL_TORTURE_SEED", "1"))

CLIENT = """
import os, random, signal, sys
import umbel
path, seed = sys.argv[1], int(sys.argv[2])
chooser = random.Random(seed)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
s = umbel.ipc_connect(path, umbel.within(30))
for number in range(chooser.randint(1, 300)):
    size = chooser.choice([0, 1, 100, 5000, 300_000])
    head = seed.to_bytes(4, "big") + number.to_bytes(4, "big") + size.to_bytes(4, "big")
    umbel.bsendl(s, [head, bytes([number % 251]) * size], umbel.within(30))
    if chooser.random() < 0.05 and not os.fork():
        os._exit(0)
umbel.bsend(s, b"\\xff" * 12)
umbel.ipc_close(s, umbel.within(30))
signal.setitimer(signal.ITIMER_REAL, 0)
"""


class Tally:
    """What the server saw of one connection."""

    def __init__(self) -> None:
        self.blocks = 0
        self.is_complete = False
        self.error: OSError | None = None


def serve(s: umbel.StreamHandle, tally: Tally, chooser: random.Random) -> None:
    number = 0
    try:
        while True:
            head = umbel.brecv(s, 12, umbel.within(30))
            if head == b"\xff" * 12:
                break
            assert int.from_bytes(head[4:8], "big") == number
            size = int.from_bytes(head[8:], "big")
            body = bytearray(size)
            umbel.brecv(s, body, umbel.within(30))
            assert body == bytes([number % 251]) * size
            number += 1
            tally.blocks = number
            if chooser.random() < 0.1:
                for end in umbel.ipc_pair():  # descriptors come back at once
                    umbel.hclose(end)
        tally.is_complete = True
        umbel.ipc_close(s, umbel.within(30))
    except OSError as error:
        tally.error = error
        if not isinstance(error, umbel.BadHandleError):
            _drop(s)


def _drop(s: umbel.StreamHandle) -> None:
    try:
        umbel.hclose(s)
    except umbel.BadHandleError:
        pass  # the failed close has closed it


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_every_block_arrives_once_or_its_loss_is_told(tmp_path: Path) -> None:
    chooser = random.Random(SEED)
    path = tmp_path / "x.sock"
    tallies: list[Tally] = []
    clients: list[tuple[subprocess.Popen[bytes], bool]] = []
    give_up = time.monotonic() + SECONDS

    def accept(listener: umbel.ListenerHandle, serving: umbel.BundleHandle) -> None:
        for s in listener:
            tallies.append(Tally())
            serving.go(serve, s, tallies[-1], chooser)

    with umbel.ipc_listen(path) as listener, umbel.bundle() as serving:
        accepting = umbel.go(accept, listener, serving)
        seed = SEED
        while time.monotonic() < give_up:
            seed += 1
            command = [sys.executable, "-c", CLIENT, str(path), str(seed)]
            client = subprocess.Popen(command)
            must_die = chooser.random() < 0.5
            umbel.msleep(umbel.within(chooser.random() * 0.3))
            if must_die:
                client.send_signal(signal.SIGKILL)
            clients.append((client, must_die))
        for client, _ in clients:
            umbel.to_thread(client.wait, umbel.within(60))
        while any(t.error is None and not t.is_complete for t in tallies):
            umbel.msleep(umbel.within(0.01))
        umbel.hclose(accepting)

    lived = [client.returncode for client, must_die in clients if not must_die]
    assert lived == [0] * len(lived)  # both sides of each said that all went well
    assert sum(tally.is_complete for tally in tallies) >= len(lived)
    for tally in tallies:
        if not tally.is_complete:
            # Cut short in the middle, or between two blocks: never in silence.
            assert isinstance(tally.error, (BrokenPipeError, ConnectionResetError))
