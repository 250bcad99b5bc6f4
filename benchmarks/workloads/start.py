"""(g) What `import umbel` costs, against importing what it must import anyway.

The processor time of a whole process, less that of one which imports nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from benchmarks.child import environment
from benchmarks.harness import FailedRunError
from benchmarks.model import Case, Job, Peer, Sample

IMPORTS = {
    "umbel": "umbel",
    "bare-imports": "socket, select, greenlet, typing",
    "asyncio-streams": "asyncio",
    "uvloop-streams": "uvloop",
    "gevent": "gevent",
    "trio": "trio",
    "curio": "curio",
}
RUNS = 5


def time_of(code: str, peer: Peer) -> float:
    """Run *code* in a process of its own; tell its processor time in microseconds."""
    arguments = [sys.executable, "-s", "-P", "-c", code]
    pid = os.posix_spawn(sys.executable, arguments, environment(peer))
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise FailedRunError(f"{code!r} failed")
    return (usage.ru_utime + usage.ru_stime) * 1e6


def measure(_case: Case, peer: Peer) -> Sample:
    code = f"import {IMPORTS[peer.name]}"
    pairs = [(time_of(code, peer), time_of("pass", peer)) for _ in range(RUNS)]
    return Sample(min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs))


def start() -> Iterator[Case]:
    yield Case("start", "import", Job("import"), tuple(IMPORTS), measure, rate_unit="")
