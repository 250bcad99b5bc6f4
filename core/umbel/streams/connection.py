"""An open byte stream: what it is received from and sent to by.

Who uses it, and how it ends, is in `directions`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import ClassVar, Final, TypeVar, final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import current_hub
from umbel._kernel.watch import MOST_CAUGHT, Watch
from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    BusyError,
    DeadlineError,
    EndOfStreamError,
    NotSupportedError,
    PluginError,
    add_bytes_done,
)
from umbel.fd import Readiness
from umbel.handle import open_handles, refusal
from umbel.plugins.loaded import Transport
from umbel.streams.directions import Directions
from umbel.streams.kept import KeptStream
from umbel.streams.plain_errors import explain, query_endpoint
from umbel.transport import DescriptorPassing, Stream, StreamAttempts
from umbel.values.address import Address

T = TypeVar("T")

#: Largest piece that one system call receives of a long `brecv`.
PIECE: Final = 1 << 20

#: Looks in vain of which each doubles the way to the next.
MOST_MISSED: Final = 8

#: Seconds that a send in another thread may take to come back from one system call.
LONGEST_ATTEMPT: Final = 1.0

#: Of streams that make no attempts.
_NONE: Final = Readiness(-1)


@final
class Connection(Directions):
    """An open stream: what `open_handles` has of one."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "last_size",
        "looks_missed",
        "most_caught",
        "readiness",
        "try_receive",
        "try_send",
        "waits_left",
    )

    noun: ClassVar[str] = "byte stream"
    verbs: ClassVar[str] = "bsend, brecv, receive, done and close"

    def __init__(self, stream: Stream, address: Address, transport: Transport) -> None:
        self.stream = stream
        self.address = address
        self.transport = transport
        self.sender = self.receiver = self.closer = None
        self.outbound_error = self.inbound_error = None
        self.must_abort = False
        self.was_cut = False
        self.bytes_in = 0
        self.bytes_out = 0
        #: What the hub may receive for who waits (`Watch.catch`), if the last receive,
        #: which gave so much, gave less.
        self.most_caught = MOST_CAUGHT
        self.last_size = 0
        #: For `look`: waits until the next, and how many have come to nothing.
        self.waits_left = self.looks_missed = 0
        #: None: it can only wait for all that it does.
        self.try_receive: Callable[[int], bytes | None] | None = None
        self.try_send: Callable[[bytes | memoryview], int] | None = None
        self.readiness: Readiness = _NONE
        attempts = stream.query(StreamAttempts)
        if attempts is not None:
            self.try_receive = attempts.receive
            self.try_send = attempts.send
            self.readiness = attempts.readiness

    def query(self, kind: type[T]) -> T | None:
        """As `Resource.query`."""
        return query_endpoint(self.stream, kind)

    def describe(self) -> str:
        """As `Resource.describe`."""
        return f"a byte stream ({self.address})"

    def note_end(self) -> None:
        """Take note of the peer's end of stream; a reset that only looks so is raised.

        The kernel tells a reset once: it may have told it to a send.
        """
        sender = self.sender
        if sender is not None and sender.hub is not current_hub():
            self._let_attempt_end(sender)
        if self.outbound_error is BrokenStreamError:
            with suppress(DeadlineError):  # of one that tells its end once
                self.stream.receive_into(memoryview(bytearray(1)), 0)
        if self.inbound_error is None:
            self.inbound_error = EndOfStreamError

    def _let_attempt_end(self, sender: Coroutine) -> None:
        # It runs in another thread, and may be about to take note of what it was told.
        sent, give_up = self.bytes_out, monotonic() + LONGEST_ATTEMPT
        while (
            self.sender is sender
            and sender.hub.current is sender
            and not sender.is_parked
            and self.bytes_out == sent
            and monotonic() < give_up
        ):
            sleep(0)

    def send_indirectly(self, data: bytes | memoryview, deadline: int) -> None:
        """Send all of *data*, for a transport without attempts."""
        self.stream.send((memoryview(data),), deadline)

    def send_rest(self, data: bytes | memoryview, sent: int, deadline: int) -> None:
        """Send what an attempt has left, waiting for room."""
        try:
            self.stream.send((memoryview(data)[sent:],), deadline)
        except BaseException as error:
            add_bytes_done(error, sent)
            raise

    def look(self, max_bytes: int) -> bytes | None:
        """Try to receive, although the stream was drained: an answer may have come.

        If two processes share a core, the peer has often answered by the time we look.
        As long as that is so, each receive looks; otherwise only one in 2, 4, 8 … 256
        waits.
        """
        assert self.try_receive is not None
        self.readiness.is_drained = False
        data = self.try_receive(max_bytes)
        if data is None:
            self.look_less()
        else:
            self.looks_missed = 0
        return data

    def receive_now(self, me: Coroutine, max_bytes: int) -> bytes | None:
        """Receive what there is as *me*, without waiting; None if there is nothing."""
        assert self.try_receive is not None
        if self.receiver is not None:
            raise BusyError
        self.receiver = me
        try:
            if self.inbound_error is not None:
                return self.refuse_receive()
            data = self.try_receive(max_bytes)
            if data:
                self.last_size = count = len(data)
                self.bytes_in += count
            elif data is not None:
                self.note_end()
            return data
        except OSError as error:
            if self.fail_inbound(error):
                raise explain(error) from error
            raise
        except MemoryError:
            self.break_inbound()  # it may have taken bytes that it can't give
            raise
        finally:
            if self.inbound_error is BadHandleError:
                self.leave(me)
            else:
                self.receiver = None

    def look_less(self) -> None:
        """Let more waits pass before the next look: 1, 3, 7 … 255."""
        self.looks_missed = missed = min(self.looks_missed + 1, MOST_MISSED)
        self.waits_left = (1 << missed) - 1

    def give_back(self, watch: Watch) -> None:
        """Let the next read begin with what was caught for one that came to nothing."""
        data = watch.take_caught()
        if data:
            watch.readable = False  # the edge is used: its bytes are here
            self.keep(data)

    def keep(self, data: bytes) -> None:
        """Let the next read, of whatever kind, begin with *data*, if there is any."""
        if not data:
            return
        stream = self.stream
        if isinstance(stream, KeptStream):
            stream.kept += data
        else:
            self.stream = KeptStream(stream, data)
            attempts = self.stream.query(StreamAttempts)
            self.try_receive = None if attempts is None else attempts.receive
        self.readiness.is_drained = False

    @property
    def kept(self) -> bytes:
        """What the next read begins with, before anything from the descriptor."""
        return self.stream.kept if isinstance(self.stream, KeptStream) else b""

    def require_nothing_kept(self) -> None:
        """EBUSY if who reads from the descriptor would miss bytes that are here."""
        if self.kept:
            message = "bytes came for a receive that was canceled: receive them first"
            raise BusyError(message)

    def receive_some(self, max_bytes: int, deadline: int) -> bytes:
        """Receive what there is, waiting if there is nothing."""
        try_receive = self.try_receive
        if try_receive is None:
            return self.receive_indirectly(max_bytes, deadline)
        while True:
            if self.readiness.is_drained:
                self.readiness.wait_in(deadline)
            data = try_receive(max_bytes)
            if data is not None:
                return data
            self.readiness.is_drained = True  # which not every transport notes itself

    def receive_indirectly(self, max_bytes: int, deadline: int) -> bytes:
        """Receive what there is, for a transport without attempts."""
        buffer = memoryview(bytearray(min(max_bytes, PIECE)))
        return bytes(buffer[: self.receive_into(buffer, deadline)])

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """Fill the front of *buffer*, as its transport does, whose count is checked."""
        count = self.stream.receive_into(buffer, deadline)
        if type(count) is int and 0 <= count <= len(buffer):
            return count
        message = (
            f"receive_into of {self.describe()} gave {count!r}, where a count up to "
            f"{len(buffer)} must come"
        )
        raise PluginError(message)


def find_connection(handle: int) -> Connection:
    """Find the byte stream that *handle* names; EBADF or ENOTSUP if none."""
    found = open_handles.get(handle)
    if type(found) is Connection:
        return found
    raise refusal(handle, Connection)


def begin_passing(handle: int) -> tuple[Connection, DescriptorPassing]:
    """Find a stream that descriptors pass over from now on; ENOTSUP if they can't."""
    connection = find_connection(handle)
    passing = connection.query(DescriptorPassing)
    if passing is None:
        message = f"{connection.describe()} can't pass descriptors"
        raise NotSupportedError(message)
    # Where they are passed the hub receives nothing ahead: a canceled receive leaves
    # descriptors for the next call, which may be one that takes them.
    connection.most_caught = 0
    for watch in connection.readiness.watches():
        watch.catch = None  # of who waits already, in whichever thread
    return connection, passing
