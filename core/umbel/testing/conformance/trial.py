"""One behaviour being tried: streams of the transport under test, and tasks.

Behaviours call umbel's verbs through the trial, so that a driver may put others that
do the same in their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

import umbel
from umbel.handle import hclose_if_open, open_handles
from umbel.streams.connection import Connection
from umbel.streams.listener import Listening
from umbel.testing.conformance.expecting import Violation, require
from umbel.testing.conformance.jobs import CoroutineJob, Job, ThreadJob
from umbel.testing.conformance.looking import MOST_NOISE, noise
from umbel.testing.conformance.subject import Subject
from umbel.transport import Stream
from umbel.values.address import Address

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = ParamSpec("P")
R = TypeVar("R")

Ends: TypeAlias = tuple[umbel.StreamHandle, umbel.StreamHandle]


class Trial:
    """What a behaviour works with; closes all that it gave out when it ends."""

    driver: str = "threads"
    #: What the first of two ends is: "connected", "accepted", or "made" as one of a
    #: pair. Most behaviours try that end, and each of the three may be at fault alone:
    #: so it is another one in each driver, instead of all in each.
    first: str = "connected"
    #: Seconds after which what a behaviour waits for is given up.
    patience: float = 10.0

    def __init__(self, subject: Subject, folder: str) -> None:
        self.subject = subject
        self.folder = folder
        self._handles: list[int] = []
        self._jobs: list[Job] = []

    @classmethod
    def why_not(cls) -> str:
        """Say why the driver can't be had here; "" if it can."""
        return ""

    def run(self, work: Callable[[], None]) -> None:
        """Run *work*, which is all of the trial, where its tasks belong."""
        work()

    def soon(self) -> int:
        """Give the deadline of what is sure to come."""
        return umbel.within(self.patience)

    def until(self, deadline: int | None) -> int:
        """Give *deadline*, or that of what is sure to come."""
        return self.soon() if deadline is None else deadline

    # umbel's verbs, within the trial's patience unless told otherwise.

    def do(self, verb: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
        """Call a verb of umbel's that may wait, or the driver's own twin of it."""
        return verb(*args, **named)

    def bsend(
        self, stream: umbel.StreamHandle, data: Buffer, deadline: int | None = None
    ) -> None:
        """As `umbel.bsend`."""
        self.do(umbel.bsend, stream, data, self.until(deadline))

    def bsendl(
        self,
        stream: umbel.StreamHandle,
        buffers: Sequence[Buffer],
        deadline: int | None = None,
    ) -> None:
        """As `umbel.bsendl`."""
        self.do(umbel.bsendl, stream, buffers, self.until(deadline))

    def brecv(
        self, stream: umbel.StreamHandle, count: int, deadline: int | None = None
    ) -> bytes:
        """As `umbel.brecv` of a number of bytes."""
        found = self.do(_brecv, stream, count, self.until(deadline))
        assert found is not None
        return found

    def fill(
        self,
        stream: umbel.StreamHandle,
        target: bytearray | umbel.Skip,
        deadline: int | None = None,
    ) -> None:
        """As `umbel.brecv` into a buffer, or a Skip."""
        self.do(_brecv, stream, target, self.until(deadline))

    def fill_all(
        self,
        stream: umbel.StreamHandle,
        targets: Sequence[bytearray | umbel.Skip],
        deadline: int | None = None,
    ) -> None:
        """As `umbel.brecvl`."""
        self.do(umbel.brecvl, stream, targets, self.until(deadline))

    def receive(
        self,
        stream: umbel.StreamHandle,
        max_bytes: int = 65536,
        deadline: int | None = None,
    ) -> bytes:
        """As `umbel.receive`."""
        return self.do(umbel.receive, stream, max_bytes, self.until(deadline))

    def send_with_fds(
        self, stream: umbel.StreamHandle, data: bytes, fds: list[int], deadline: int
    ) -> None:
        """As `umbel.send_with_fds`."""
        self.do(umbel.send_with_fds, stream, data, fds, deadline)

    def receive_with_fds(
        self, stream: umbel.StreamHandle, max_bytes: int, max_fds: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        """As `umbel.receive_with_fds`."""
        return self.do(umbel.receive_with_fds, stream, max_bytes, max_fds, deadline)

    def done(self, stream: umbel.StreamHandle, deadline: int | None = None) -> None:
        """As `umbel.done`."""
        self.do(umbel.done, stream, self.until(deadline))

    def flush(self, stream: umbel.StreamHandle, deadline: int | None = None) -> None:
        """As `umbel.flush`."""
        self.do(umbel.flush, stream, self.until(deadline))

    def close(
        self, handle: int, deadline: int | None = None, drain_limit: int | None = None
    ) -> umbel.CloseReport:
        """As `umbel.close`."""
        return self.do(
            umbel.close, handle, self.until(deadline), drain_limit=drain_limit
        )

    def accept(
        self, listener: umbel.ListenerHandle, deadline: int | None = None
    ) -> umbel.StreamHandle:
        """As `umbel.accept`."""
        return self.keep(self.do(umbel.accept, listener, self.until(deadline)))

    def connect(
        self,
        to: umbel.ListenerHandle | Address,
        deadline: int | None = None,
        **options: object,
    ) -> umbel.StreamHandle:
        """As `umbel.connect`."""
        address = to if isinstance(to, Address) else to.address
        until = self.until(deadline)
        return self.keep(self.do(umbel.connect, address, until, **options))

    def pause(self, milliseconds: int) -> None:
        """Let others go on for a while."""
        self.do(umbel.msleep, umbel.now() + milliseconds)

    # Streams and listeners.

    def keep(self, handle: umbel.StreamHandle) -> umbel.StreamHandle:
        """See to it that *handle* is closed in the end."""
        self._handles.append(handle)
        return handle

    def new_address(self) -> Address:
        """Give an address that nobody has used."""
        return self.subject.new_address(self.folder)

    def listen(self, backlog: int = 128, **options: object) -> umbel.ListenerHandle:
        """Listen at a new address."""
        return self.listen_at(self.new_address(), backlog, **options)

    def listen_at(
        self, address: Address, backlog: int = 128, **options: object
    ) -> umbel.ListenerHandle:
        """Listen at *address*."""
        listener = umbel.listen(address, backlog, **options)
        self._handles.append(listener)
        return listener

    def pair(self) -> Ends:
        """Give two streams that are each other's peers, of which `first` is first."""
        is_made = self.first == "made" and self.subject.can("pair")
        if is_made or not self.subject.can_serve:
            return self.made_pair()
        listener = self.listen()
        connected, accepted = self.link(listener)
        umbel.hclose(listener)
        if self.first == "accepted":
            return accepted, connected
        return connected, accepted

    def link(self, listener: umbel.ListenerHandle) -> Ends:
        """Connect to *listener*, and accept it."""
        connecting = self.spawn(self._connect_or_close, listener)
        try:
            accepted = self.accept(listener)
        except umbel.BadHandleError:
            connecting.result()  # which has failed, and nobody will come
            raise
        connected = connecting.result()
        require(isinstance(connected, umbel.StreamHandle), "connect gave no stream")
        assert isinstance(connected, umbel.StreamHandle)
        return connected, accepted

    def _connect_or_close(self, listener: umbel.ListenerHandle) -> umbel.StreamHandle:
        try:
            return self.connect(listener)
        except BaseException:
            hclose_if_open(listener)
            raise

    def made_pair(self) -> Ends:
        """Give two streams that `umbel.pair` made."""
        left, right = umbel.pair(self.subject.scheme)
        return self.keep(left), self.keep(right)

    def stream_of(self, handle: umbel.StreamHandle) -> Stream:
        """Give the transport's own stream of *handle*."""
        found = open_handles[handle]
        assert isinstance(found, Connection)
        return found.stream

    # Other tasks.

    def spawn(self, call: Callable[..., object], *args: object) -> Job:
        """Run *call* beside the trial's own task."""
        job = self._start(partial(call, *args))
        self._jobs.append(job)
        return job

    def _start(self, call: Callable[[], object]) -> Job:
        return ThreadJob(call, self.patience)

    def spawn_cancelable(self, call: Callable[..., object], *args: object) -> Job:
        """Run *call* beside the trial's own task, so that it can be canceled."""
        raise NotImplementedError(f"{self.driver} can't be canceled")

    def block(self, handle: int, call: Callable[..., object], *args: object) -> Job:
        """Run *call*, and return once it uses *handle*."""
        job = self.spawn(call, *args)
        self.wait_until(lambda: job.is_over or is_used(handle), "the blocked call")
        if not job.is_over:
            self.pause(2)  # it may yet be on its way into the wait
        return job

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Return once *condition* holds, which another task brings about."""
        give_up = time.monotonic() + self.patience
        while not condition():
            require(time.monotonic() < give_up, f"{what} never came")
            self.pause(1)

    # Usual steps.

    def send_until(self, stream: umbel.StreamHandle, deadline: int) -> int:
        """Send more than there is room for; give how much there was room for."""
        blocks = noise(MOST_NOISE)
        total = 0
        try:
            while total < 4 * MOST_NOISE:
                at = total % MOST_NOISE
                self.bsend(stream, blocks[at : at + (1 << 20)], deadline)
                total += 1 << 20
        except umbel.DeadlineError as error:
            return total + error.bytes_done
        raise Violation("256 MiB found room, and nobody received any")

    def drain(self, stream: umbel.StreamHandle, deadline: int | None = None) -> bytes:
        """Receive to the end of the stream."""
        until = self.until(deadline)
        pieces = []
        while piece := self.receive(stream, 1 << 16, until):
            pieces.append(piece)
        return b"".join(pieces)

    # The end.

    def clean_up(self) -> None:
        """Close what is open of all that was given out, and wait for all jobs."""
        for handle in self._handles:
            hclose_if_open(handle)
        for job in self._jobs:
            self._end(job)

    def _end(self, job: Job) -> None:
        job._wait()


class CoroutineTrial(Trial):
    """All tasks are coroutines of one thread."""

    driver = "coroutines"
    first = "accepted"

    def _start(self, call: Callable[[], object]) -> Job:
        return CoroutineJob(call, self.patience)

    def spawn_cancelable(
        self, call: Callable[..., object], *args: object
    ) -> CoroutineJob:
        """Run *call* in a coroutine that can be canceled."""
        job = CoroutineJob(partial(call, *args), self.patience)
        self._jobs.append(job)
        return job

    def _end(self, job: Job) -> None:
        assert isinstance(job, CoroutineJob)
        hclose_if_open(job.bundle)


def _brecv(
    stream: umbel.StreamHandle, target: int | bytearray | umbel.Skip, deadline: int
) -> bytes | None:
    # One function of one type, where umbel.brecv has overloads.
    if isinstance(target, int):
        return umbel.brecv(stream, target, deadline)
    umbel.brecv(stream, target, deadline)
    return None


def is_used(handle: int) -> bool:
    """Tell whether somebody is in a call on *handle*, or has closed it."""
    found = open_handles.get(handle)
    if isinstance(found, Connection):
        return found.sender is not None or found.receiver is not None
    if isinstance(found, Listening):
        return found.accepter is not None
    return True  # closed meanwhile
