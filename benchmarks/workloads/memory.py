"""(f) What 5,000 connections weigh on which nothing happens.

The memory is the server's resident set: after all were accepted, less after the first.
The kernel's own memory for sockets is the same for all and not in it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import FailedRunError, address, load_command, server
from benchmarks.model import Case, Job, Peer, Sample
from benchmarks.peers import PEERS as ALL

CONNECTIONS = 5000


def resident(pid: int) -> int:
    """Tell the bytes of a process that are in memory and not of a file."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise FailedRunError("the kernel does not tell the memory of a process")


def measure(case: Case, peer: Peer) -> Sample:
    kind, count = case.job.address, case.connections
    with (
        address(kind) as where,
        server(peer, replace(case.job, address=where)) as it,
        subprocess.Popen(
            load_command(mode="hold", pid=it.pid, address=where, connections=count),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client,
    ):
        assert client.stdin is not None
        assert client.stdout is not None
        before = _resident_after(client.stdout.readline(), it.pid)
        client.stdin.write("\n")
        client.stdin.flush()
        after = _resident_after(client.stdout.readline(), it.pid)
        client.kill()
    return Sample((after - before) / count)


def _resident_after(line: str, pid: int) -> int:
    if not line:
        raise FailedRunError("the load generator failed")
    return resident(pid)


def memory() -> Iterator[Case]:
    for role, label in (("idle", "none waits on it"), ("parked", "one waits on it")):
        yield Case(
            "memory",
            f"an idle connection, {label}",
            Job(role, "unix"),
            tuple(peer.name for peer in ALL.values()),
            measure,
            unit="bytes",
            rate_unit="",
            connections=CONNECTIONS,
        )
