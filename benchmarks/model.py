"""What is measured: a case, for a peer, in a round, gives a sample."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

#: The peer that the others are compared with.
SUBJECT: Final = "umbel"
MICROSECONDS: Final = "\N{MICRO SIGN}s"


@dataclass(frozen=True, slots=True)
class Job:
    """What the process under test is told to be, and with which sizes."""

    role: str
    #: "unix:PATH" or "tcp:PORT", of a server.
    address: str = ""
    #: Bytes of one read or write of a stream in bulk.
    size: int = 65536
    #: Bytes of the whole stream in bulk.
    total: int = 0
    #: Operations, for a role that has no clients.
    count: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to do a job, in a module that only the process under test imports."""

    name: str
    module: str
    #: Which of the module's ways it is.
    variant: str
    roles: frozenset[str]
    #: Modules that must be installed.
    needs: tuple[str, ...] = ()
    #: A thread for each connection has its limits.
    most_connections: int = 100_000
    #: Whether it can listen at "tcp:PORT" too.
    has_tcp: bool = True
    #: Whether glibc is told to keep the top of the heap: see `benchmarks.child`.
    is_padded: bool = True
    #: For messages: what a client says first, how long the answer to that is, and
    #: what stands before a message of so many bytes.
    preamble: bytes = b""
    reply: int = 0
    prefix: Callable[[int], bytes] = lambda _size: b""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run found."""

    #: Of one operation, in the unit of the case.
    cost: float
    #: Operations in a second of the clock on the wall; 0 if that says nothing.
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """One line of questions: the same job for each of some peers."""

    workload: str
    label: str
    job: Job
    peers: tuple[str, ...]
    measure: Callable[[Case, Peer], Sample]
    #: Of the cost, and of an operation in the rate.
    unit: str = MICROSECONDS
    rate_unit: str = "op/s"
    connections: int = 1
    #: Connections that are open beside them and do nothing.
    idle: int = 0
    #: Bytes of a request.
    size: int = 64
    #: Whether the client shares the server's core: neither wakes an idle one then.
    is_together: bool = False
    seconds: float = 0.5
    warmup: float = 0.2
    #: The curve and the place on it, for the plot.
    curve: str = ""
    place: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.workload}: {self.label}"


@dataclass(slots=True)
class Result:
    """All samples of a case; the lists are as long as there were rounds."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def cost(self, peer: str) -> float:
        return statistics.median(sample.cost for sample in self.samples[peer])

    def rate(self, peer: str) -> float:
        return statistics.median(sample.rate for sample in self.samples[peer])

    def ratios(self, peer: str, subject: str = SUBJECT) -> list[float]:
        """What *subject* costs as a multiple of *peer*, round by round."""
        pairs = zip(self.samples[subject], self.samples[peer], strict=True)
        return [mine.cost / other.cost for mine, other in pairs]
