"""The two directions of a byte stream: who uses them, and how they end.

Each direction is open, ended or broken, and used by one coroutine at a time.
Rules, in the order in which they are checked: busy, ended, broken.

* Closing takes over: whoever is in the middle of a call gets EBADF.
* The claim of a direction is `if user is None: user = me`, with no call in between,
  which no other thread can interrupt. If a user finds the direction refused after
  claiming it, a close has overtaken it. If a closer finds a user, it interrupts the
  user; an orderly close also waits until the user has left.
"""

from __future__ import annotations

from typing import TypeGuard

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    BusyError,
    Canceled,
    EndOfStreamError,
    UmbelError,
)
from umbel.fd import unpark
from umbel.handle import Resource
from umbel.plugins.loaded import Transport
from umbel.report import CloseReport
from umbel.shutdown import has_consumed_by_now
from umbel.streams.plain_errors import (
    explain,
    is_harmless,
    is_of_broken_stream,
    is_plain,
)
from umbel.transport import CloseContext, Stream
from umbel.values.address import Address


class Directions(Resource):
    """The state of both directions of a stream; the rest of it is `Connection`."""

    __slots__ = (
        "address",
        "closer",
        "inbound_error",
        "must_abort",
        "outbound_error",
        "receiver",
        "sender",
        "stream",
        "transport",
        "was_cut",
    )

    #: All set by `Connection`, which is made in one call.
    stream: Stream
    address: Address
    transport: Transport
    sender: Coroutine | None
    receiver: Coroutine | None
    #: Why a direction can't be used any more; None while it is open.
    outbound_error: type[UmbelError] | None
    inbound_error: type[UmbelError] | None
    #: Who waits in an orderly close for the users to leave.
    closer: Coroutine | None
    must_abort: bool
    #: The send that failed last had moved bytes: a close that took over has cut it.
    was_cut: bool

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
        if is_of_broken_stream(error):
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

    def require_whole(self) -> None:
        """ECONNRESET if a direction has lost its place in the stream."""
        if BrokenStreamError in (self.outbound_error, self.inbound_error):
            message = "a send or receive on that stream failed before: close it"
            raise BrokenStreamError(message)

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
        me = None
        try:
            me = checkpoint()
            me.hub.evictions.closing[me] = self.abort
            if self.sender is not None or self.receiver is not None:
                self._evict_users()
                self._wait_for_users(deadline)
            if (
                outbound_error in (BrokenStreamError, BusyError)
                or inbound_error is BrokenStreamError
                or self.was_cut  # the peer would take a part for the whole
            ):
                raise _broken_before(has_consumed_by_now(self.stream))
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
            # None: the end was not reached, so that nothing is known of it.
            report = getattr(error, "report", None) or CloseReport()
            if is_plain(error):
                raise explain(error, report) from error
            if isinstance(error, OSError | Canceled):
                error.report = report  # type: ignore[union-attr]  # ours have it
            raise
        finally:
            if me is not None:
                me.hub.evictions.closing.pop(me, None)
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


def _broken_before(consumed: bool | None) -> BrokenStreamError:
    """Make the error of an orderly close that comes too late for one."""
    message = (
        "a send or receive on the stream failed before, so that the peer can't be told "
        "of a good end; it is closed now"
    )
    error = BrokenStreamError(message)
    error.report = CloseReport(consumed)
    return error
