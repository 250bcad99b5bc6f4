"""One behaviour being tried: streams of the transport under test, and tasks.

Behaviours call umbel's verbs through the trial, so that a driver may put others that
do the same in their place.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeAlias, TypeVar

import umbel
from umbel.address import Address
from umbel.connection import Connection
from umbel.handle import open_handles
from umbel.listener import Listening
from umbel.testing.conformance.subject import Subject
from umbel.transport import Stream

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = ParamSpec("P")
R = TypeVar("R")

Ends: TypeAlias = tuple[umbel.StreamHandle, umbel.StreamHandle]

#: Milliseconds by which a wake-up may be late on an idle machine.
SLACK: Final = 20
#: For whoever must be woken by another's close or cancellation.
WAKE_SLACK: Final = 50
#: A busy machine makes anything late now and then: the best of so many counts.
TRIES: Final = 6

GONE: Final = (errno.ECONNRESET, errno.EPIPE)


class Violation(AssertionError):  # noqa: N818 - what it is, not an accident
    """The transport does not behave as it must."""


def require(condition: object, what: str) -> None:
    """Raise a Violation, which says *what* is not so, unless *condition* holds."""
    if not condition:
        raise Violation(what)


def equal(actual: object, wanted: object, what: str) -> None:
    """Require *actual* to be *wanted*."""
    if actual != wanted:
        shown = repr(actual) if len(repr(actual)) < 200 else f"{repr(actual)[:200]}…"
        raise Violation(f"{what}: {shown}, instead of {wanted!r}"[:600])


def fails(
    numbers: int | Sequence[int],
    what: str,
    call: Callable[..., object],
    *args: object,
    **named: object,
) -> BaseException:
    """Require *call*, told as *what*, to raise one of those errnos; give it."""
    wanted = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    names = " or ".join(errno.errorcode[number] for number in wanted)
    try:
        came = call(*args, **named)
    except (OSError, umbel.Canceled) as error:
        if error.errno in wanted:
            return error
        name = errno.errorcode.get(error.errno or 0, "no errno")
        raise Violation(f"{what} gave {name} ({error}), instead of {names}") from error
    raise Violation(f"{what} gave {came!r:.100}, instead of {names}")


def in_time(attempt: Callable[[], int], slack: int, what: str) -> None:
    """Require *attempt*, which gives by how many ms it was late, to be in time."""
    found = []
    for _ in range(TRIES):
        late = attempt()
        require(late >= 0, f"{what} came {-late} ms too early")
        if late <= slack:
            return
        found.append(late)
    raise Violation(f"{what} came {min(found)} ms late, at best of {TRIES} times")


class Job:
    """A call that runs beside the trial's own."""

    def __init__(self, call: Callable[[], object], patience: float) -> None:
        self._call = call
        self._patience = patience
        self.is_over = False
        self._value: object = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, and keep what came of it."""
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        self.is_over = True

    def _wait(self) -> None:
        raise NotImplementedError

    def result(self) -> object:
        """Wait for its end; give what it returned, or raise what it raised."""
        self._wait()
        require(self.is_over, f"a call did not end within {self._patience:.0f} s")
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._value
        finally:
            del error  # its traceback must not refer to itself


class ThreadJob(Job):
    """Runs in a thread of its own."""

    def __init__(self, call: Callable[[], object], patience: float) -> None:
        super().__init__(call, patience)
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self._thread.join(self._patience)


class CoroutineJob(Job):
    """Runs in a coroutine of the trial's own thread."""

    def __init__(self, call: Callable[[], object], patience: float) -> None:
        super().__init__(call, patience)
        self.bundle = umbel.go(self.run)

    def cancel(self) -> None:
        """Cancel it, and wait until it has stopped."""
        umbel.hclose(self.bundle)

    def _wait(self) -> None:
        if self.bundle in open_handles:
            umbel.bundle_wait(self.bundle, umbel.within(self._patience))


class Trial:
    """What a behaviour works with; closes all that it gave out when it ends."""

    driver: str = "threads"
    #: Seconds after which what a behaviour waits for is given up.
    patience: float = 10.0

    def __init__(self, subject: Subject, folder: str) -> None:
        self.subject = subject
        self.folder = folder
        self._handles: list[int] = []
        self._jobs: list[Job] = []

    def soon(self) -> int:
        """Give the deadline of what is sure to come."""
        return umbel.within(self.patience)

    # umbel's verbs.

    def do(self, verb: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
        """Call a verb of umbel's that may wait, or the driver's own twin of it."""
        return verb(*args, **named)

    def bsend(
        self, stream: umbel.StreamHandle, data: Buffer, deadline: int = umbel.FOREVER
    ) -> None:
        """As `umbel.bsend`."""
        self.do(umbel.bsend, stream, data, deadline)

    def brecv(
        self, stream: umbel.StreamHandle, count: int, deadline: int = umbel.FOREVER
    ) -> bytes:
        """As `umbel.brecv` of a number of bytes."""
        found = self.do(_brecv, stream, count, deadline)
        assert found is not None
        return found

    def fill(
        self,
        stream: umbel.StreamHandle,
        target: bytearray | umbel.Skip,
        deadline: int = umbel.FOREVER,
    ) -> None:
        """As `umbel.brecv` into a buffer, or a Skip."""
        self.do(_brecv, stream, target, deadline)

    def receive(
        self,
        stream: umbel.StreamHandle,
        max_bytes: int = 65536,
        deadline: int = umbel.FOREVER,
    ) -> bytes:
        """As `umbel.receive`."""
        return self.do(umbel.receive, stream, max_bytes, deadline)

    def done(self, stream: umbel.StreamHandle, deadline: int = umbel.FOREVER) -> None:
        """As `umbel.done`."""
        self.do(umbel.done, stream, deadline)

    def flush(self, stream: umbel.StreamHandle, deadline: int = umbel.FOREVER) -> None:
        """As `umbel.flush`."""
        self.do(umbel.flush, stream, deadline)

    def close(
        self, handle: int, deadline: int = umbel.FOREVER, drain_limit: int | None = None
    ) -> umbel.CloseReport:
        """As `umbel.close`."""
        return self.do(umbel.close, handle, deadline, drain_limit=drain_limit)

    def accept(
        self, listener: umbel.ListenerHandle, deadline: int | None = None
    ) -> umbel.StreamHandle:
        """Accept; within the trial's patience unless told otherwise."""
        if deadline is None:
            deadline = self.soon()
        return self.keep(self.do(umbel.accept, listener, deadline))

    def connect(
        self, to: umbel.ListenerHandle | Address, deadline: int | None = None
    ) -> umbel.StreamHandle:
        """Connect; within the trial's patience unless told otherwise."""
        address = to if isinstance(to, Address) else to.address
        if deadline is None:
            deadline = self.soon()
        return self.keep(self.do(umbel.connect, address, deadline))

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
        """Give two streams that are each other's peers: connected, and accepted."""
        if not self.subject.can("listen"):
            return self.made_pair()
        listener = self.listen()
        ends = self.link(listener)
        umbel.hclose(listener)
        return ends

    def link(self, listener: umbel.ListenerHandle) -> Ends:
        """Connect to *listener*, and accept it."""
        connecting = self.spawn(self.connect, listener)
        accepted = self.accept(listener)
        connected = connecting.result()
        require(isinstance(connected, umbel.StreamHandle), "connect gave no stream")
        assert isinstance(connected, umbel.StreamHandle)
        return connected, accepted

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

    def block(self, handle: int, call: Callable[..., object], *args: object) -> Job:
        """Run *call*, and return once it uses *handle*."""
        job = self.spawn(call, *args)
        self.wait_until(lambda: job.is_over or _is_used(handle), "the blocked call")
        if not job.is_over:
            umbel.msleep(umbel.now() + 2)  # it may yet be on its way into the wait
        return job

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Return once *condition* holds, which another task brings about."""
        give_up = time.monotonic() + self.patience
        while not condition():
            require(time.monotonic() < give_up, f"{what} never came")
            umbel.msleep(umbel.now() + 1)

    # Usual steps.

    def send_until(self, stream: umbel.StreamHandle, deadline: int) -> int:
        """Send more than there is room for; give how much there was room for."""
        block = bytes(1 << 20)
        total = 0
        try:
            while total < 256 << 20:
                self.bsend(stream, block, deadline)
                total += len(block)
        except umbel.DeadlineError as error:
            return total + error.bytes_done
        raise Violation("256 MiB found room, and nobody received any")

    def drain(self, stream: umbel.StreamHandle, deadline: int | None = None) -> bytes:
        """Receive to the end of the stream."""
        until = self.soon() if deadline is None else deadline
        pieces = []
        while piece := self.receive(stream, 1 << 16, until):
            pieces.append(piece)
        return b"".join(pieces)

    # The end.

    def clean_up(self) -> None:
        """Close what is open of all that was given out, and wait for all jobs."""
        for handle in self._handles:
            if handle in open_handles:
                umbel.hclose(handle)
        for job in self._jobs:
            self._end(job)

    def _end(self, job: Job) -> None:
        job._wait()


class CoroutineTrial(Trial):
    """All tasks are coroutines of one thread."""

    driver = "coroutines"

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
        if job.bundle in open_handles:
            umbel.hclose(job.bundle)


def _brecv(
    stream: umbel.StreamHandle, target: int | bytearray | umbel.Skip, deadline: int
) -> bytes | None:
    # One function of one type, where umbel.brecv has overloads.
    if isinstance(target, int):
        return umbel.brecv(stream, target, deadline)
    umbel.brecv(stream, target, deadline)
    return None


def _is_used(handle: int) -> bool:
    found = open_handles.get(handle)
    if isinstance(found, Connection):
        return found.sender is not None or found.receiver is not None
    if isinstance(found, Listening):
        return found.accepter is not None
    return True  # closed meanwhile


def pattern(size: int) -> bytes:
    """Make *size* bytes in which every position can be told from its neighbours."""
    import array

    return array.array("I", range(size // 4 + 1)).tobytes()[:size]


def open_descriptors() -> set[int]:
    """List the descriptors of this process."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # that of the listing itself
        found.add(int(name))
    return found
