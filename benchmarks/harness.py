"""Starts processes, runs the load generator against them, and keeps rounds fair."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.child import ROOT, command, environment
from benchmarks.compiled import program
from benchmarks.model import SUBJECT, Case, Job, Peer, Result, Sample
from benchmarks.peers import PEERS, what_is_missing

PATIENCE = 120.0


class FailedRunError(Exception):
    """A process of the benchmark went wrong; what it said is the message."""


def cores() -> tuple[int, int]:
    """Choose a core for the process under test and one for its clients; -1 for any."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else (-1, -1)


def peers_of(case: Case, wanted: Sequence[str] | None) -> list[Peer]:
    """Choose the peers that can do *case* here; the subject is always among them."""
    names = [
        name for name in case.peers if not wanted or name in wanted or name == SUBJECT
    ]
    found = [PEERS[name] for name in names if name in PEERS]
    return [
        peer
        for peer in found
        if not what_is_missing(peer)
        and case.job.role in peer.roles
        and case.connections <= peer.most_connections
        and (peer.has_tcp or case.job.address != "tcp")
    ]


def run_case(
    case: Case,
    peers: Sequence[Peer],
    rounds: int,
    complain: Callable[[str], None],
) -> Result:
    """Measure *case* for all *peers*, round by round, in alternating order."""
    result = Result(case, {peer.name: [] for peer in peers})
    left = list(peers)
    for turn in range(rounds):
        for peer in left if turn % 2 == 0 else left[::-1]:
            try:
                result.samples[peer.name].append(case.measure(case, peer))
            except FailedRunError as error:
                complain(f"{case.name}: {peer.name} left out: {error}")
                del result.samples[peer.name]
        left = [peer for peer in left if peer.name in result.samples]
    return result


@contextmanager
def server(peer: Peer, job: Job) -> Iterator[subprocess.Popen[str]]:
    """Run *job* in a process until the end of the block."""
    variables = environment(peer)
    if peer.name == "c":
        variables["UMBEL_ECHO_SERVER"] = str(program("echo_server"))
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            command(peer, cores()[0], job),
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        try:
            yield process
        except FailedRunError as error:
            complaints.seek(0)
            said = complaints.read().strip().splitlines()
            raise FailedRunError("; ".join([str(error), *said[-1:]])) from None
        finally:
            process.kill()
            process.communicate()


@contextmanager
def address(kind: str) -> Iterator[str]:
    """Give an address where nobody listens yet: a file for "unix", a port for "tcp"."""
    if kind == "unix":
        with tempfile.TemporaryDirectory(prefix="umbel-") as folder:
            yield f"unix:{Path(folder) / 's'}"
    else:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        yield f"tcp:{port}"


def load_command(**options: object) -> list[str]:
    """Make the command line of the load generator: in C, or in Python without cc."""
    compiled = program("load")
    generator = (
        [str(compiled)] if compiled else [sys.executable, "-m", "benchmarks.load"]
    )
    return [*generator, *(f"{key}={value}" for key, value in options.items())]


def measure_load(case: Case, peer: Peer, mode: str, **options: object) -> Sample:
    """Run a server and the load generator in *mode* against it."""
    kind = case.job.address
    with address(kind) as where, server(peer, replace(case.job, address=where)) as it:
        said = _outcome(
            load_command(
                mode=mode,
                pid=it.pid,
                address=where,
                core=cores()[0 if case.is_together else 1],
                connections=case.connections,
                idle=case.idle,
                size=case.size,
                warmup=case.warmup,
                seconds=case.seconds,
                **options,
            ),
            it,
        )
    return sample_of(said)


def _outcome(arguments: list[str], it: subprocess.Popen[str]) -> str:
    """Run the load generator for as long as the server *it* lives."""
    end = time.monotonic() + PATIENCE
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as client:
        while True:
            try:
                said, complaints = client.communicate(timeout=0.2)
            except subprocess.TimeoutExpired:
                if it.poll() is None and time.monotonic() < end:
                    continue
                client.kill()
                message = "it takes too long" if it.poll() is None else "it ended"
                raise FailedRunError(message) from None
            if client.returncode:
                raise FailedRunError(complaints.strip() or "the load generator failed")
            return said


def measure_inside(case: Case, peer: Peer) -> Sample:
    """Let the process under test measure itself: its role has no clients."""
    with server(peer, case.job) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise FailedRunError("it failed")
    return sample_of(line)


def sample_of(line: str) -> Sample:
    """Read "operations processor-ns wall-ns"; the cost is in microseconds."""
    operations, cpu, wall = (int(part) for part in line.split())
    return Sample(cpu / operations / 1000, operations / wall * 1e9)
