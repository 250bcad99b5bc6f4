"""Behaviours 14 to 21: the end of one direction."""

from __future__ import annotations

import errno

import umbel
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.expecting import LARGEST_BUFFER, equal, fails, require
from umbel.testing.conformance.looking import noise
from umbel.testing.conformance.trial import Trial


@behaviour(14, "after done the peer gets what was sent, then the end", "half-close")
def data_then_end(t: Trial) -> None:
    """EPIPE from brecv, b"" from receive."""
    left, right = t.pair()
    t.bsend(left, b"last words")
    t.done(left)
    equal(t.brecv(right, 10, t.soon()), b"last words", "received")
    fails(errno.EPIPE, "brecv", t.brecv, right, 1, t.soon())
    equal(t.receive(right, 1, t.soon()), b"", "receive at the end")


@behaviour(15, "the end stays the end, at once and with any deadline", "half-close")
def end_stays(t: Trial) -> None:
    """Without waiting."""
    left, right = t.pair()
    t.done(left)
    equal(t.receive(right, 10, t.soon()), b"", "receive at the end")
    stream = t.stream_of(right)
    for deadline in (umbel.FOREVER, 0, umbel.now() - 1000, t.soon()):
        equal(t.receive(right, 10, deadline), b"", "receive at the end")
        fails(errno.EPIPE, "brecv at the end", t.brecv, right, 1, deadline)
        # Core remembers the end itself: so ask the transport's own stream, too.
        count = stream.receive_into(memoryview(bytearray(10)), t.soon())
        equal(count, 0, "receive_into at the end, once more")


@behaviour(16, "after done we can neither send nor end again: EPIPE", "half-close")
def done_twice(t: Trial) -> None:
    """The peer can still be received from."""
    left, right = t.pair()
    t.done(left)
    for data in (b"x", b""):
        fails(errno.EPIPE, "a send after done", t.bsend, left, data)
    fails(errno.EPIPE, "a second done", t.done, left)
    t.bsend(right, b"x")
    equal(t.brecv(left, 1, t.soon()), b"x", "received afterwards")


@behaviour(17, "the other direction goes on after done", "half-close")
def other_direction(t: Trial) -> None:
    """In both orders, and with more than fits into a buffer."""
    for first in (0, 1):
        ends = t.pair()
        ended, other = ends[first], ends[1 - first]
        t.done(ended)
        equal(t.receive(other, 1, t.soon()), b"", "receive at the end")
        data = bytes(range(256)) * 8192
        sending = t.spawn(t.bsend, other, data)
        got = t.brecv(ended, len(data), t.soon())
        require(got == data, "2 MiB after done did not arrive as they were sent")
        sending.result()
        t.done(other)
        equal(t.receive(ended, 1, t.soon()), b"", "receive at the end")


@behaviour(18, "an end in the middle of a brecv is EPIPE, with what came", "half-close")
def end_within(t: Trial) -> None:
    """`receive` gives the bytes; `brecv` tells how many they were."""
    left, right = t.pair()
    t.bsend(left, b"four")
    t.done(left)
    error = fails(errno.EPIPE, "brecv of 10", t.brecv, right, 10, t.soon())
    equal(getattr(error, "bytes_done", None), 4, "the error's bytes_done")
    left, right = t.pair()
    t.bsend(left, b"four")
    t.done(left)
    equal(t.drain(right), b"four", "received")


@behaviour(19, "what was sent before an orderly close is received by a late reader")
def late_reader(t: Trial) -> None:
    """And both ends part without an error."""
    left, right = t.pair()
    t.bsend(left, b"read me later")
    closing = t.block(left, t.close, left, t.soon())
    equal(t.brecv(right, 13, t.soon()), b"read me later", "received")
    if t.subject.traits.half_close:
        equal(t.receive(right, 1, t.soon()), b"", "receive at the end")
    t.close(right, t.soon())
    closing.result()


@behaviour(20, "done while a send waits is EBUSY, and the send goes on", "half-close")
def done_while_sending(t: Trial) -> None:
    """The bytes arrive, and done works afterwards."""
    left, right = t.pair()
    data = noise(LARGEST_BUFFER + (1 << 20))
    sending = t.block(left, t.bsend, left, data, t.soon())
    fails(errno.EBUSY, "done while a send waits", t.done, left)
    t.fill(right, umbel.Skip(len(data)), t.soon())
    sending.result()
    t.done(left)
    equal(t.receive(right, 1, t.soon()), b"", "receive at the end")


@behaviour(21, "done is done or refused with ENOTSUP, never ignored")
def done_or_refused(t: Trial) -> None:
    """As the transport declares."""
    left, right = t.pair()
    if t.subject.traits.half_close:
        t.done(left, t.soon())
        equal(t.receive(right, 1, t.soon()), b"", "receive after done")
        t.bsend(right, b"x")
        equal(t.receive(left, 1, t.soon()), b"x", "received after done")
    else:
        fails(errno.ENOTSUP, "done, which is declared impossible", t.done, left)
        for sender, receiver in ((left, right), (right, left)):
            t.bsend(sender, b"x")
            equal(t.receive(receiver, 1, t.soon()), b"x", "received after that")
