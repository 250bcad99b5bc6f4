"""The standard orderly shutdown of a stream: done, then drain.

Core uses it for a transport without a hook `close`; a transport that has the hook may
call it.
"""

from __future__ import annotations

import errno
from typing import Final

from umbel.deadline import FAIR, let_others_run, soonest, within
from umbel.errors import DeadlineError, system_error
from umbel.report import CloseReport
from umbel.transport import CloseContext, Stream, UnreadBytes, is_stream
from umbel.values.iolist import FIRST_SIZE

# Drain 64 KiB at a time: libdill's 512 bytes cost a system call per half page. But
# FIRST_SIZE first, since most peers have said all.
DRAIN_SIZE: Final = 65536

#: Seconds that a peer that has just ended its direction has to read what is left.
GLANCE: Final = 0.05

#: To pass a later deadline, as is said of other calls, is no help: it is closed.
_STILL_OPEN: Final = (
    "the deadline was reached before the peer had ended its direction: let it close, "
    "too, or allow it more time; the handle is closed now"
)
#: What comes of most closes, made once.
_GOOD: Final = CloseReport(True)


def shut_down(context: CloseContext) -> CloseReport:
    """End our direction, then discard what comes until the peer's end.

    Args:
        context: what is to be closed; a listener just stops.

    Returns:
        what is known of the peer.

    Raises:
        OSError: what the stream raised, with the CloseReport as `report`;
            EMSGSIZE, more than `drain_limit` bytes came.

    Source:
        libdill ipc_close(3).
    """
    stream = context.endpoint
    if not is_stream(stream):
        stream.abort()
        return CloseReport()
    discarded = 0
    try:
        if not context.is_done:
            stream.done(context.deadline)
        if not context.has_ended:
            scratch = memoryview(bytearray(FIRST_SIZE))
            chunks = 0
            while count := stream.receive_into(scratch, context.deadline):
                discarded += count
                chunks += 1
                if chunks % FAIR == 0:
                    let_others_run(context.deadline)
                _check_limit(discarded, context.drain_limit)
                if len(scratch) < DRAIN_SIZE:
                    scratch = memoryview(bytearray(DRAIN_SIZE))
        consumed = _has_consumed_soon(stream, context)
    except BaseException as error:
        # Reset: bytes of ours lay unread, if that can be known at all, as it can't over
        # a network. Otherwise the peer may still read them.
        consumed = has_consumed_by_now(stream)
        if consumed is not None and isinstance(error, ConnectionError):
            consumed = False
        if isinstance(error, DeadlineError) and error.strerror == error.advice:
            error.strerror = _STILL_OPEN
        error.report = CloseReport(  # type: ignore[attr-defined]  # ours have it
            consumed, discarded
        )
        raise
    return _GOOD if consumed and not discarded else CloseReport(consumed, discarded)


def _check_limit(discarded: int, limit: int | None) -> None:
    if limit is not None and discarded > limit:
        message = f"the peer sent more than drain_limit={limit} bytes while we closed"
        raise system_error(errno.EMSGSIZE, message)


def _has_consumed(stream: Stream) -> bool | None:
    unread = stream.query(UnreadBytes)
    return None if unread is None else unread.is_zero()


def _has_consumed_soon(stream: Stream, context: CloseContext) -> bool | None:
    """As `_has_consumed`, perhaps a moment later: who closes too is just draining."""
    unread = stream.query(UnreadBytes)
    if unread is None:
        return None
    if unread.is_zero():
        return True
    if context.has_ended:
        return False
    try:
        unread.wait(soonest(within(GLANCE), context.deadline))
    except DeadlineError:
        return False  # it has ended its direction only, and may still be reading
    return True


def has_consumed_by_now(stream: Stream) -> bool | None:
    """Tell whether the peer has read everything; None: that can't be known."""
    try:
        return _has_consumed(stream)
    except ConnectionError:
        return False
    except OSError:
        return None  # the error that ended the close is the one to tell
