"""System calls of a request, as strace counts them: two are the least, for an echo.

Nothing is timed here: strace makes each call many times as slow.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import FailedRunError, address, load_command, server
from benchmarks.load import connected
from benchmarks.model import Case, Job, Peer, Sample

PEERS = (
    *("umbel", "umbel-threads", "umbel-aio-asyncio", "umbel-aio-uvloop"),
    *("umbel-aio-trio", "umbel-in-asyncio", "c", "epoll", "blocking"),
    *("asyncio-streams", "asyncio-protocol", "uvloop-streams", "uvloop-protocol"),
    *("gevent", "curio", "trio", "anyio-asyncio", "anyio-trio"),
)
SENDS = {"send", "sendto", "sendmsg", "write", "writev"}
SETTLE = 0.3


def measure(case: Case, peer: Peer) -> Sample:
    if shutil.which("strace") is None:
        raise FailedRunError("there is no strace")
    kind = case.job.address
    with address(kind) as where, server(peer, replace(case.job, address=where)) as it:
        connected(where).close()  # it is up: what it did before is not counted
        load = load_command(
            mode="echo",
            pid=it.pid,
            address=where,
            connections=case.connections,
            size=case.size,
            warmup=0,
            seconds=SETTLE + case.seconds + 1,
            idle=0,
            preamble="",
            reply=0,
            prefix="",
        )
        with subprocess.Popen(load, stdout=subprocess.DEVNULL) as client:
            time.sleep(SETTLE)
            counts = count_calls(it.pid, case.seconds)
            client.kill()
    requests = sum(counts.get(name, 0) for name in SENDS)
    if not requests:
        raise FailedRunError("strace counted no requests")
    return Sample(sum(counts.values()) / requests)


def count_calls(pid: int, seconds: float) -> dict[str, int]:
    """Count the system calls that a process, all its threads, makes in some seconds."""
    with tempfile.NamedTemporaryFile("r") as found:
        tracer = subprocess.Popen(
            ["strace", "-c", "-f", "-p", str(pid), "-o", found.name],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        lines = [line.split() for line in found.read().splitlines()]
    # % time, seconds, usecs/call, calls, errors if any, name
    return {
        words[-1]: int(words[3])
        for words in lines
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total"
    }


def calls() -> Iterator[Case]:
    for connections in (1, 64):
        yield Case(
            "calls",
            f"an echo, {connections} connection{'s' * (connections > 1)}",
            Job("echo", "unix"),
            PEERS,
            measure,
            unit="calls",
            rate_unit="",
            connections=connections,
        )
