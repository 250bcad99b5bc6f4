"""The use of one direction of a stream, from its claim to its end.

The hottest verbs do the same by themselves: see docs/decisions/0016-written-out.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from umbel._kernel.coroutine import Coroutine
from umbel.deadline import FAIR, let_others_run
from umbel.errors import (
    BadHandleError,
    BusyError,
    Canceled,
    DeadlineError,
    EndOfStreamError,
    is_refusal,
)
from umbel.streams.connection import PIECE, Connection
from umbel.streams.plain_errors import explain, is_harmless, is_plain

A = TypeVar("A")

#: Bytes that one system call skips at most.
SCRATCH_SIZE: Final = 65536


def send_by(
    me: Coroutine,
    connection: Connection,
    call: Callable[[A, int], None],
    data: A,
    deadline: int,
) -> None:
    """Send by *call*, as the user of that direction; a failure breaks it."""
    with OutboundUse(me, connection):
        if connection.outbound_error is not None:
            raise connection.outbound_error
        call(data, deadline)


class OutboundUse:
    """The time during which a coroutine is the user of the outbound direction."""

    __slots__ = ("connection", "is_harmless", "me")

    def __init__(
        self, me: Coroutine, connection: Connection, *, is_harmless: bool = False
    ) -> None:
        self.me = me
        self.connection = connection
        #: A failure doesn't break that direction.
        self.is_harmless = is_harmless

    def __enter__(self) -> None:
        if self.connection.sender is not None:
            raise BusyError
        self.connection.sender = self.me

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        connection = self.connection
        try:
            if error is not None and not self.is_harmless:
                connection.fail_outbound(error)
        finally:  # at the limit of recursion that may fail, too
            if connection.outbound_error is BadHandleError:
                connection.leave(self.me)
            else:
                connection.sender = None
        if is_plain(error):
            raise explain(error) from error


class InboundUse:
    """The time during which a coroutine is the user of the inbound direction."""

    __slots__ = ("connection", "is_patient", "me", "moved", "pieces")

    def __init__(
        self, me: Coroutine, connection: Connection, *, is_patient: bool = False
    ) -> None:
        self.me = me
        #: A wait that ends before anything has come breaks nothing: it can begin anew.
        self.is_patient = is_patient
        self.connection = connection
        self.moved = self.pieces = 0

    def __enter__(self) -> InboundUse:
        connection = self.connection
        if connection.receiver is not None:
            raise BusyError
        connection.receiver = self.me
        if connection.inbound_error is not None:
            try:
                connection.require_inbound()
            finally:  # no further call, which could fail at the limit of recursion
                if connection.inbound_error is BadHandleError:
                    connection.leave(self.me)
                else:
                    connection.receiver = None
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        connection = self.connection
        connection.bytes_in += self.moved
        try:
            if error is not None:
                self.fail(error)
        finally:  # as in __enter__
            if connection.inbound_error is BadHandleError:
                connection.leave(self.me)
            else:
                connection.receiver = None
        if is_plain(error):
            raise explain(error) from error

    def fail(self, error: BaseException) -> None:
        """Break that direction, unless nothing was done; let *error* tell how far."""
        is_over = self.is_patient and isinstance(error, (DeadlineError, Canceled))
        if self.moved or not (is_over or is_refusal(error) or is_harmless(error)):
            self.connection.break_inbound()
        # A loop's own cancellation carries it too.
        is_ours = hasattr(error, "bytes_done") or not isinstance(error, Exception)
        if is_ours or is_plain(error):
            error.bytes_done = self.moved  # type: ignore[attr-defined]

    def require(self, count: int, deadline: int) -> None:
        """Take note of *count* received bytes; none is the end of the stream.

        A stream that never has to wait lets others run now and then, and then looks at
        the clock.
        """
        self.pieces += 1
        if self.pieces % FAIR == 0:
            let_others_run(deadline)
        if not count:
            self.connection.note_end()
            message = (
                f"the peer ended its direction after {self.moved} of the bytes that "
                "were to come"
            )
            raise EndOfStreamError(message)
        self.moved += count

    def receive_rest(self, data: bytes, count: int, deadline: int) -> bytes:
        """Receive what follows *data*, a first piece of *count* bytes; give it all."""
        self.require(len(data), deadline)
        pieces = [data]
        while self.moved < count:
            left = min(count - self.moved, PIECE)
            data = self.connection.receive_some(left, deadline)
            self.require(len(data), deadline)
            pieces.append(data)
        return b"".join(pieces)

    def fill(self, view: memoryview, deadline: int) -> None:
        """Fill all of *view*."""
        receive_into = self.connection.receive_into
        filled = 0
        while filled < len(view):
            count = receive_into(view[filled:], deadline)
            self.require(count, deadline)
            filled += count

    def skip(self, count: int, deadline: int) -> None:
        """Receive *count* bytes for nobody."""
        scratch = memoryview(bytearray(min(count, SCRATCH_SIZE)))
        while count:
            skipped = self.connection.receive_into(scratch[:count], deadline)
            self.require(skipped, deadline)
            count -= skipped
