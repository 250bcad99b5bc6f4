"""Behaviours 22 to 35: orderly close."""

from __future__ import annotations

import errno

import umbel
from umbel.handle import open_handles
from umbel.proxy import StreamProxy
from umbel.streams.connection import Connection
from umbel.testing.conformance.behaviour import CANCELING, behaviour
from umbel.testing.conformance.expecting import (
    SLACK,
    WAKE_SLACK,
    equal,
    fails,
    in_time,
    require,
)
from umbel.testing.conformance.looking import noise, pattern
from umbel.testing.conformance.trial import Trial
from umbel.transport import Stream, UnreadBytes


class _InFront(StreamProxy):
    """What an observer may put in front of a transport's stream; it counts `done`."""

    __slots__ = ("ends",)

    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.ends = 0

    def done(self, deadline: int) -> None:
        self.ends += 1
        super().done(deadline)


def _put_in_front(t: Trial, handle: umbel.StreamHandle) -> _InFront:
    front = _InFront(t.stream_of(handle))
    found = open_handles[handle]
    assert isinstance(found, Connection)
    found.stream = front
    return front


def _part(t: Trial, left: umbel.StreamHandle, right: umbel.StreamHandle) -> None:
    closing = t.block(left, t.close, left, t.soon())
    t.close(right, t.soon())
    closing.result()


@behaviour(22, "two ends that both close part without an error")
def both_close(t: Trial) -> None:
    """Each is told that the other read everything, or that nobody knows.

    One of them through what an observer may have put in front of it.
    """
    left, right = t.pair()
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received")
    _put_in_front(t, left)
    closing = t.block(left, t.close, left, t.soon())
    report = t.close(right, t.soon())
    for found in (report, closing.result()):
        assert isinstance(found, umbel.CloseReport)
        require(found.consumed is not False, f"{found}, though all was read")
        equal(found.discarded, 0, "bytes discarded")


@behaviour(23, "close after done and after the end does no more", "half-close")
def nothing_left(t: Trial) -> None:
    """So that a deadline of 0 is enough; whatever is in front is not ended again."""
    left, right = t.pair()
    t.done(left)
    t.done(right)
    for end in (left, right):
        equal(t.receive(end, 1, t.soon()), b"", "receive at the end")
        front = _put_in_front(t, end)
        t.close(end, 0)
        equal(front.ends, 0, "calls of `done` by a close whose context says is_done")


@behaviour(24, "close gives up at its deadline, and has closed all the same")
def gives_up(t: Trial) -> None:
    """ETIMEDOUT in time; EBADF from then on."""

    def attempt() -> int:
        left, _right = t.pair()
        deadline = umbel.now() + 60
        fails(errno.ETIMEDOUT, "close with no peer's", t.close, left, deadline)
        late = umbel.now() - deadline
        fails(errno.EBADF, "a send after the close", t.bsend, left, b"x")
        return late

    in_time(attempt, SLACK, "ETIMEDOUT of close")


@behaviour(25, "close ends in time though the peer floods us")
def flood(t: Trial) -> None:
    """The flooder is told by ECONNRESET."""

    def attempt() -> int:
        left, right = t.pair()
        block = noise(1 << 16)

        def pour() -> None:
            while True:
                t.bsend(right, block, t.soon())

        pouring = t.block(right, pour)
        deadline = umbel.now() + 100
        error = fails(errno.ETIMEDOUT, "close", t.close, left, deadline)
        late = umbel.now() - deadline
        report = getattr(error, "report", None)
        require(report and report.discarded > 0, f"{report}, though bytes came")
        fails(errno.ECONNRESET, "flooding a closed stream", pouring.result)
        return late

    in_time(attempt, 2 * SLACK, "ETIMEDOUT of close")


@behaviour(26, "close discards what comes until the peer's own end", "half-close")
def drains(t: Trial) -> None:
    """It does not stop at the first bytes that come."""
    left, right = t.pair()
    closing = t.block(left, t.close, left, t.soon())
    for _ in range(5):
        t.bsend(right, bytes(100_000), t.soon())
        t.pause(3)
    require(not closing.is_over, "close ended before the peer did")
    t.done(right)
    report = closing.result()
    assert isinstance(report, umbel.CloseReport)
    equal(report.discarded, 500_000, "bytes discarded")


@behaviour(27, "a limit of what close may discard is EMSGSIZE, and closes")
def drain_limit(t: Trial) -> None:
    """At most so many bytes, and not one more."""
    for size, limit in ((1000, 1000), (1001, 1000), (1, 0)):
        left, right = t.pair()
        t.bsend(right, bytes(size))

        def close(left: umbel.StreamHandle = left, limit: int = limit) -> object:
            return t.close(left, t.soon(), drain_limit=limit)

        if size > limit:  # at once, though the peer goes on
            error = fails(errno.EMSGSIZE, "close with more than drain_limit", close)
            report = getattr(error, "report", None)
            require(report and report.discarded > limit, f"its report is {report}")
        else:
            t.spawn(t.close, right, t.soon())
            close()
        fails(errno.EBADF, "a second close", umbel.hclose, left)


@behaviour(28, "a peer that closed without reading is never told as one that read")
def not_consumed(t: Trial) -> None:
    """It is ECONNRESET where streams know what is unread."""
    _told_by_a_reset(t)
    _told_by_no_reset(t)


def _told_by_a_reset(t: Trial) -> None:
    left, right = t.pair()
    t.bsend(left, b"never read")
    umbel.hclose(right)
    if UnreadBytes in t.subject.traits.capabilities:
        error = fails(errno.ECONNRESET, "close", t.close, left, t.soon())
        report = getattr(error, "report", None)
        require(report and report.consumed is False, f"its report is {report}")
        return
    try:
        report = t.close(left, t.soon())
    except ConnectionResetError as error:
        report = getattr(error, "report", None)
    told = report and report.consumed
    require(not told, f"close gave {report} of bytes which nobody read")


def _told_by_no_reset(t: Trial) -> None:
    # The peer has ended, or goes on, and has read nothing.
    wanted = (False,) if UnreadBytes in t.subject.traits.capabilities else (False, None)
    endings = ["goes on"] + ["has ended"] * t.subject.traits.half_close
    for ending in endings:
        left, right = t.pair()
        t.bsend(left, b"never read")
        if ending == "has ended":
            t.done(right)
        report: object = None
        try:
            report = t.close(left, umbel.now() + 50)
        except (TimeoutError, ConnectionResetError) as error:
            report = getattr(error, "report", None)
        told = getattr(report, "consumed", None)
        what = f"close gave {report} of bytes unread by a peer that {ending}"
        require(told in wanted, what)


@behaviour(29, "no sent byte is lost when the close finds unread requests")
def nothing_lost(t: Trial) -> None:
    """A plain close would make the kernel drop most of a megabyte."""
    left, right = t.pair()
    # All of it, or what there is room for: until the close takes it.
    asking = t.block(right, t.bsend, right, pattern(20_000), t.soon())
    data = pattern(1_000_000)

    def answer_and_close() -> None:
        t.bsend(left, data, t.soon())
        t.close(left, t.soon())

    answering = t.spawn(answer_and_close)
    t.pause(5)
    got = t.brecv(right, len(data), t.soon())
    require(got == data, "other bytes arrived than were sent")
    asking.result()
    t.close(right, t.soon())
    answering.result()


@behaviour(30, "close after a failed send or receive is ECONNRESET, and closes")
def after_failure(t: Trial) -> None:
    """The peer can't be told of a good end."""
    for direction in ("receive", "send"):
        left, _right = t.pair()
        if direction == "receive":
            fails(errno.ETIMEDOUT, "brecv", t.brecv, left, 1, 0)
        else:
            t.send_until(left, umbel.now() + 20)

        def close(left: umbel.StreamHandle = left) -> object:
            return t.close(left, t.soon())

        fails(errno.ECONNRESET, f"close after a failed {direction}", close)
        fails(errno.EBADF, "a second close", umbel.hclose, left)


@behaviour(31, "a canceled close is ECANCELED, and has closed", drivers=CANCELING)
def canceled(t: Trial) -> None:
    """The peer sees an end or ECONNRESET."""
    left, right = t.pair()
    job = t.spawn_cancelable(t.close, left, t.soon())
    job.cancel()
    fails(errno.ECANCELED, "a canceled close", job.result)
    fails(errno.EBADF, "a second close", umbel.hclose, left)
    try:
        equal(t.receive(right, 1, t.soon()), b"", "the peer's receive")
    except ConnectionResetError:
        pass


@behaviour(
    32, "close with a deadline of 0 succeeds if the peer has ended", "half-close"
)
def no_time(t: Trial) -> None:
    """And else is ETIMEDOUT at once."""
    for pause in (1, 8, 64, 512):  # how long its way here is, nobody can tell
        left, right = t.pair()
        t.done(right)
        t.pause(pause)
        try:
            t.close(left, 0)
        except TimeoutError:
            if pause == 512:
                raise
        else:
            break

    def attempt() -> int:
        left, _right = t.pair()
        start = umbel.now()
        fails(errno.ETIMEDOUT, "close at once", t.close, left, 0)
        return umbel.now() - start

    in_time(attempt, WAKE_SLACK, "ETIMEDOUT of close with a deadline of 0")


@behaviour(33, "close takes over from whoever sends or receives: EBADF for them")
def takes_over(t: Trial) -> None:
    """Promptly, and without an abort of the process."""
    for direction in ("receive", "send"):

        def attempt(direction: str = direction) -> int:
            left, right = t.pair()
            came: list[int] = []

            def work() -> None:
                try:
                    if direction == "receive":
                        t.receive(left, 1, t.soon())
                    else:
                        t.send_until(left, t.soon())
                finally:
                    came.append(umbel.now())

            working = t.block(left, work)
            at = umbel.now()
            closing = t.spawn(t.close, left, umbel.now() + 50)
            fails(errno.EBADF, f"a {direction} when closed", working.result)
            try:
                closing.result()
            except OSError:
                pass  # the peer did not end, or a send was cut short
            umbel.hclose(right)
            return came[0] - at

        in_time(attempt, WAKE_SLACK, f"EBADF of a blocked {direction}")


@behaviour(34, "a second close is EBADF, and numbers never come back")
def close_twice(t: Trial) -> None:
    """Whatever is opened afterwards."""
    left, right = t.pair()
    _part(t, left, right)
    seen = {int(left), int(right)}
    for close in (lambda: t.close(left), lambda: umbel.hclose(right)):
        fails(errno.EBADF, "a second close", close)
    for _ in range(20):
        for end in t.pair():
            require(int(end) not in seen, f"handle {int(end)} was used again")
            seen.add(int(end))
            umbel.hclose(end)
