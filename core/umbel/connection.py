"""An open byte stream: the state of its two directions, and who uses them.

Each direction is open, ended or broken, and used by one coroutine at a time.
Rules, in the order in which they are checked: busy, ended, broken.

* Closing takes over: whoever is in the middle of a call gets EBADF.
* The claim of a direction is `if user is None: user = me`, with no call in between,
  which no other thread can interrupt. If a user finds the direction refused after
  claiming it, a close has overtaken it. If a closer finds a user, it interrupts the
  user; an orderly close also waits until the user has left.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import ClassVar, Final, TypeGuard, TypeVar, final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel._kernel.watch import MOST_CAUGHT, Watch
from umbel.address import Address
from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    BusyError,
    DeadlineError,
    EndOfStreamError,
    NotSupportedError,
    PluginError,
    UmbelError,
    add_bytes_done,
)
from umbel.fd import Readiness, unpark
from umbel.handle import Resource, open_handles, refusal
from umbel.kept import KeptStream
from umbel.loaded import Transport
from umbel.report import CloseReport
from umbel.transport import (
    CloseContext,
    DescriptorPassing,
    Listener,
    Stream,
    StreamAttempts,
)

T = TypeVar("T")

#: Largest piece that one system call receives of a long `brecv`.
PIECE: Final = 1 << 20

#: Looks in vain of which each doubles the way to the next.
MOST_MISSED: Final = 8

#: Seconds that a send in another thread may take to come back from one system call.
LONGEST_ATTEMPT: Final = 1.0

#: What a transport's plain errors mean.
_OWN: Final[dict[int | None, type[UmbelError]]] = {
    errno.ECONNRESET: BrokenStreamError,
    errno.EPIPE: BrokenStreamError,
    errno.ECONNABORTED: BrokenStreamError,
    errno.ETIMEDOUT: DeadlineError,
    errno.EBADF: BadHandleError,
}

#: What a send, or `done`, is refused with before anything has been done. The last two
#: are of descriptors: the peer takes none, or too many are on their way.
_REFUSED: Final = frozenset(
    {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ETOOMANYREFS}
)

#: Of streams that make no attempts.
_NONE: Final = Readiness(-1)


@final
class Connection(Resource):
    """An open stream, the state of its two directions, and who uses them."""

    __slots__ = (
        "address",
        "bytes_in",
        "bytes_out",
        "closer",
        "inbound_error",
        "is_small",
        "looks_missed",
        "most_caught",
        "must_abort",
        "outbound_error",
        "readiness",
        "receiver",
        "sender",
        "stream",
        "transport",
        "try_receive",
        "try_send",
        "waits_left",
        "was_cut",
    )

    noun: ClassVar[str] = "byte stream"
    verbs: ClassVar[str] = "bsend, brecv, receive, done and close"

    def __init__(self, stream: Stream, address: Address, transport: Transport) -> None:
        self.stream = stream
        self.address = address
        self.transport = transport
        self.sender: Coroutine | None = None
        self.receiver: Coroutine | None = None
        #: Why a direction can't be used any more; None while it is open.
        self.outbound_error: type[UmbelError] | None = None
        self.inbound_error: type[UmbelError] | None = None
        #: Who waits in an orderly close for the users to leave.
        self.closer: Coroutine | None = None
        self.must_abort = False
        #: The send that failed last had moved bytes: a close that took over has cut it.
        self.was_cut = False
        self.bytes_in = 0
        self.bytes_out = 0
        #: What the hub may receive for who waits (`Watch.catch`), and whether the last
        #: receive gave less.
        self.most_caught = MOST_CAUGHT
        self.is_small = True
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

    def disown(self) -> None:
        """As `Resource.disown`: nobody in this process is in a call on it."""
        self.sender = self.receiver = self.closer = None

    # One direction at a time, by one user at a time.

    def leave(self, me: Coroutine) -> None:
        """End of a call that a close has overtaken: let the closer go on."""
        me.hub.evictions.note_left(me)
        if self.sender is me:
            self.sender = None
        if self.receiver is me:
            self.receiver = None
        if self.sender is None and self.receiver is None:
            if self.must_abort:
                self.stream.abort()
            closer = self.closer
            if closer is not None:
                unpark(closer)

    def fail_outbound(self, error: BaseException) -> TypeGuard[OSError]:
        """Break that direction; tell whether *error* is to be explained."""
        if not is_harmless(error):
            self.break_outbound()
            self.was_cut = bool(getattr(error, "bytes_done", 0))
        return is_plain(error)

    def break_outbound(self) -> None:
        """Remember that the position in the outbound direction is lost."""
        if self.outbound_error is None:
            self.outbound_error = BrokenStreamError

    def break_inbound(self) -> None:
        """Remember that the position in the inbound direction is lost."""
        if self.inbound_error is None:
            self.inbound_error = BrokenStreamError

    def fail_inbound(self, error: OSError) -> bool:
        """Note a broken stream, after a `receive`; tell as `fail_outbound`."""
        if _OWN.get(error.errno) is BrokenStreamError:
            self.break_inbound()
        return is_plain(error)

    def require_inbound(self) -> None:
        """Raise what keeps the inbound direction from being used."""
        if self.inbound_error is EndOfStreamError:
            message = "the peer has ended its direction: nothing more will come"
            raise EndOfStreamError(message)
        if self.inbound_error is not None:
            raise self.inbound_error

    def send_as(self, me: Coroutine) -> None:
        """Be its sender under another name; EBADF if it was closed meanwhile."""
        before, self.sender = self.sender, me
        if self.outbound_error is not None:
            if before is not None:
                before.hub.evictions.note_left(before)  # it may have been told
            raise self.outbound_error

    def refuse_receive(self) -> bytes:
        """Give b"" for ever at the end of the stream; otherwise raise the reason."""
        if self.inbound_error is EndOfStreamError:
            return b""
        raise self.inbound_error or BrokenStreamError

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
                self.is_small = len(data) < self.most_caught
                self.bytes_in += len(data)
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

    # The end.

    def _evict_users(self) -> None:
        sender, receiver = self.sender, self.receiver
        if sender is not None:
            self._evict(sender)
        if receiver is not None and receiver is not sender:
            self._evict(receiver)

    def _evict(self, user: Coroutine) -> None:
        def evict() -> None:
            if self.sender is user or self.receiver is user:
                user.hub.evictions.evict(user, self.leave)

        if not user.hub.evictions.evict_interrupted(user, self.leave):
            user.hub.reach(evict)

    def abort(self) -> None:
        """As `Resource.abort`; whoever uses it gets EBADF."""
        # First refuse, then look for users: see the rule at the top.
        self.outbound_error = self.inbound_error = BadHandleError
        self.must_abort = True
        if self.sender is not None or self.receiver is not None:
            self._evict_users()
            # A user in another thread may be in a system call: the last to leave
            # frees the descriptor, lest its number come back under that call.
            hub = current_hub()
            for user in (self.sender, self.receiver):
                if user is not None and user.hub is not hub:
                    return
        self.stream.abort()

    def close(self, deadline: int, drain_limit: int | None) -> CloseReport:
        """As `Resource.close`; whoever uses it gets EBADF and leaves first."""
        # First refuse, then look for users: see the rule at the top.
        outbound_error, inbound_error = self.outbound_error, self.inbound_error
        self.outbound_error = self.inbound_error = BadHandleError
        try:
            if self.sender is not None or self.receiver is not None:
                self._evict_users()
                self._wait_for_users(deadline)
            checkpoint()
            if (
                outbound_error in (BrokenStreamError, BusyError)
                or inbound_error is BrokenStreamError
                or self.was_cut  # the peer would take a part for the whole
            ):
                message = (
                    "a send or receive on the stream failed before, so that the peer "
                    "can't be told of a good end; it is closed now"
                )
                raise BrokenStreamError(message)
            context = CloseContext(
                self.number,
                self.stream,
                deadline,
                self.address,
                outbound_error is EndOfStreamError,
                inbound_error is EndOfStreamError,
                drain_limit,
            )
            return self.transport.close(context)
        except BaseException as error:
            if is_plain(error):
                report = getattr(error, "report", None) or CloseReport()
                raise explain(error, report) from error
            if getattr(error, "report", 0) is None:
                # The end was not reached, so that nothing is known of it.
                error.report = CloseReport()  # type: ignore[attr-defined]
            raise
        finally:
            self.abort()

    def _wait_for_users(self, deadline: int) -> None:
        hub = current_hub()
        self.closer = hub.current
        try:
            hub.yield_now()  # those of this thread leave now, whatever the deadline
            if self.sender is not None or self.receiver is not None:
                hub.yield_now()  # trio lets tasks run in any order: now all have run
            while self.sender is not None or self.receiver is not None:
                hub.park(deadline)
        finally:
            self.closer = None  # or who leaves later would wake another wait of ours


def query_endpoint(endpoint: Stream | Listener, kind: type[T]) -> T | None:
    """Ask a transport's stream or listener; plain errors are explained."""
    try:
        return endpoint.query(kind)
    except OSError as error:
        # EBADF, for one: another thread may close it at this very moment.
        if is_plain(error):
            raise explain(error) from error
        raise


def is_plain(error: BaseException | None) -> TypeGuard[OSError]:
    """Tell whether it is a transport's plain error, for which umbel has its own."""
    if isinstance(error, UmbelError) or not isinstance(error, OSError):
        return False
    return error.errno in _OWN


def is_harmless(error: BaseException) -> bool:
    """Tell whether *error*, of a send or of `done`, means that nothing was done."""
    if getattr(error, "bytes_done", None):
        return False
    if isinstance(error, BusyError):
        return True
    return isinstance(error, OSError) and error.errno in _REFUSED


def explain(error: OSError, report: CloseReport | None = None) -> UmbelError:
    """Give the error of umbel's own that corresponds to a plain one."""
    own = _OWN[error.errno]()
    own.bytes_done = getattr(error, "bytes_done", 0)
    own.report = report
    return own


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
    connection.is_small = False
    for watch in connection.readiness.watches():
        watch.catch = None  # of who waits already, in whichever thread
    return connection, passing
