"""The process under test: `python -m benchmarks.child PEER CORE JOB`.

It is pinned to a core before it imports anything of the peer's. Its environment
(see `environment`) keeps glibc from giving the top of the heap back to the kernel
and faulting it in again at each large read, as chance would have it otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from benchmarks.model import Job, Peer
from benchmarks.peers import PEERS

ROOT = Path(__file__).parent.parent
PARTS = ("", "core", "transports", "plugins")

#: Bytes that glibc keeps at the top of the heap. This also stops it from raising
#: its limit for mappings of their own, so that has to be set too.
PADDING = {
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


class PeerModule(Protocol):
    """What each module of `benchmarks.peers` has."""

    def run(self, variant: str, job: Job) -> None: ...


def environment(peer: Peer) -> dict[str, str]:
    """Tell the variables to start the process of *peer* with."""
    found = {key: value for key, value in os.environ.items() if key not in PADDING}
    # The tree that these benchmarks are in, whatever is installed.
    found["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in PARTS)
    found["PYTHONHASHSEED"] = "0"
    # What is installed was compiled then; else `start` would compile umbel each time.
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found | PADDING if peer.is_padded else found


def command(peer: Peer, core: int, job: Job) -> list[str]:
    """Make the command line that `main` reads."""
    return [
        *(sys.executable, "-m", "benchmarks.child"),
        *(peer.name, str(core), job.to_json()),
    ]


def report(run: Callable[[int], object], count: int) -> None:
    """Run *count* operations that need no clients, and print what they cost.

    The line is the load generator's: operations, processor time, time on the wall.
    """
    run(count // 10 + 1)
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    run(count)
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    print(count, cpu, wall, flush=True)


def main() -> None:
    name, core, job = sys.argv[1:]
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    peer = PEERS[name]
    module = cast(PeerModule, importlib.import_module(peer.module))
    module.run(peer.variant, Job.from_json(job))


if __name__ == "__main__":
    main()
