"""`umbel demo`: libdill's ipc_close example, played by two processes.

The main process connects; the other, `umbel demo --answer-at PATH`, listens. Then
three things that go wrong are shown, and that each is told by its errno.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Final, TypeVar

import umbel

T = TypeVar("T")

#: For a machine under load; all takes a tenth of a second elsewhere.
PATIENCE: Final = 20.0
SHORT: Final = 0.05


def _tell(who: str, started: float, text: str) -> None:
    elapsed = (time.perf_counter() - started) * 1000
    print(f"  {who:<9}{elapsed:9.3f} ms  {text}", flush=True)


class Player:
    """Tells what a process does, step by step, with the time each took."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.mistakes = 0

    def step(self, text: str, call: Callable[[], T]) -> T:
        """Run *call*, which must succeed; give its result."""
        started = time.perf_counter()
        result = call()
        shown = "" if result is None else f" -> {result!r}"
        _tell(self.who, started, text + shown)
        return result

    def fails(self, text: str, number: int, call: Callable[[], object]) -> None:
        """Run *call*, which must fail with that errno."""
        wanted = errno.errorcode[number]
        started = time.perf_counter()
        try:
            call()
        except OSError as error:
            found = errno.errorcode.get(error.errno or 0, repr(error))
        else:
            found = "no error"
        _tell(self.who, started, f"{text} -> {found}")
        if found != wanted:
            print(f"  {self.who:<9} WRONG: it should have been {wanted}", flush=True)
            self.mistakes += 1


def _load_transport() -> None:
    # The first use imports it; here, so that the figures below are those of IPC.
    for stream in umbel.ipc_pair():
        umbel.hclose(stream)


def answer(path: str) -> int:
    """Be the process that listens."""
    me = Player("answerer")
    me.step("(the transport is found and loaded)", _load_transport)
    listener = me.step("ls = ipc_listen(path)", lambda: umbel.ipc_listen(path))
    with listener:
        until = umbel.within(PATIENCE)
        s = me.step("s = ipc_accept(ls)", lambda: umbel.ipc_accept(listener, until))
        me.step("brecv(s, 3)", lambda: umbel.brecv(s, 3, until))
        me.step("bsend(s, b'DEF')", lambda: umbel.bsend(s, b"DEF", until))
        me.step("ipc_close(s)", lambda: umbel.ipc_close(s, until))
        # The second connection is never answered: that is what is shown with it.
        with umbel.ipc_accept(listener, until):
            umbel.msleep(until)
    return 1


def demo() -> int:
    """Play both processes; give the exit status, 0 only if all came out right."""
    with tempfile.TemporaryDirectory(prefix="umbel-demo-") as folder:
        path = os.path.join(folder, "demo.sock")
        # -P: what lies in the current folder is none of our modules.
        command = [sys.executable, "-P", "-m", "umbel", "demo", "--answer-at", path]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            process_group=0,  # Ctrl-C is for us, who kill it
        ) as other:
            assert other.stdout is not None
            try:
                mistakes = _play(path, other)
            finally:
                other.kill()
        if os.path.exists(path):
            os.unlink(path)  # the killed process could not
    print("all came out right" if not mistakes else f"{mistakes} came out wrong")
    return 1 if mistakes else 0


def _pass_on(said: IO[str], lines: int) -> None:
    for _ in range(lines):
        line = said.readline()
        if not line:
            message = "the answerer has ended before its time; look at what it said"
            raise umbel.BrokenStreamError(message)
        print(line, end="")


def _play(path: str, other: subprocess.Popen[str]) -> int:
    me = Player("caller")
    until = umbel.within(PATIENCE)
    print(f"libdill's ipc_close example, in processes {os.getpid()} and {other.pid}:")
    assert other.stdout is not None
    me.step("(the transport is found and loaded)", _load_transport)
    _pass_on(other.stdout, 2)  # after these it listens
    s = me.step("s = ipc_connect(path)", lambda: umbel.ipc_connect(path, until))
    me.step("bsend(s, b'ABC')", lambda: umbel.bsend(s, b"ABC", until))
    me.step("brecv(s, 3)", lambda: umbel.brecv(s, 3, until))
    report = me.step("ipc_close(s)", lambda: umbel.ipc_close(s, until))
    if report.consumed is not True:
        me.mistakes += 1
    _pass_on(other.stdout, 4)

    print("\nA closed handle:")
    me.fails("ipc_close(s) once more", errno.EBADF, lambda: umbel.ipc_close(s))

    print("\nA deadline, 50 ms from now, and a peer that says nothing:")
    with umbel.ipc_connect(path, until) as silent:
        me.fails(
            "receive(s, deadline=within(0.05))",
            errno.ETIMEDOUT,
            lambda: umbel.receive(silent, deadline=umbel.within(SHORT)),
        )

        print("\nA peer that is killed before it has read what we sent:")
        umbel.bsend(silent, b"hello", until)
        me.step("kill the answerer", other.kill)
        other.wait()
        me.fails(
            "ipc_close(s)", errno.ECONNRESET, lambda: umbel.ipc_close(silent, until)
        )
    return me.mistakes
