"""Behaviours 42 to 49: deadlines."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final
from unittest import mock

import umbel
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.expecting import (
    LARGEST_BUFFER,
    SLACK,
    Violation,
    equal,
    fails,
    in_time,
    require,
)
from umbel.testing.conformance.looking import MOST_NOISE, noise, pattern
from umbel.testing.conformance.trial import Trial
from umbel.transport import UnreadBytes

#: What share of a processor one may use that waits.
MOST_USED: Final = 0.1
#: How many may wait where there are many, and how many at most where it is to be one:
#: kernels round up.
BACKLOG: Final = 20
MOST_OF_ONE: Final = 32


def _lateness(call: Callable[[int], object], what: str) -> int:
    deadline = umbel.now() + 60
    fails(errno.ETIMEDOUT, what, call, deadline)
    return umbel.now() - deadline


def fill_backlog(t: Trial, listener: umbel.ListenerHandle) -> list[int]:
    """Connect to a backlog of 1 until nobody has room any more; give the clients."""
    clients: list[int] = []
    for _ in range(MOST_OF_ONE):
        try:
            clients.append(t.connect(listener, umbel.now() + 60))
        except TimeoutError:
            return clients
    raise Violation(f"a backlog of 1 took {MOST_OF_ONE} connections")


def _has_room_for_all(t: Trial) -> None:
    listener = t.listen(BACKLOG)
    for number in range(BACKLOG):
        try:
            t.connect(listener)
        except TimeoutError:
            message = f"a backlog of {BACKLOG} took only {number} connections"
            raise Violation(message) from None


@behaviour(42, "ETIMEDOUT is never early, and late by 20 ms at most")
def punctual(t: Trial) -> None:
    """In receive, brecv, send, flush and accept; others have their own."""
    left, _right = t.pair()
    in_time(
        lambda: _lateness(lambda d: t.receive(left, 1, d), "receive"), SLACK, "receive"
    )

    def brecv() -> int:
        end, _peer = t.pair()
        return _lateness(lambda d: t.brecv(end, 1, d), "brecv")

    def bsend() -> int:
        end, _peer = t.pair()
        data = noise(MOST_NOISE)  # which takes long, and is no part of the call
        return _lateness(lambda d: t.bsend(end, data, d), "bsend")

    in_time(brecv, SLACK, "ETIMEDOUT of brecv")

    def flush() -> int:
        end, _peer = t.pair()
        t.bsend(end, b"x")
        return _lateness(lambda d: t.flush(end, d), "flush")

    in_time(bsend, 2 * SLACK, "ETIMEDOUT of bsend")
    if UnreadBytes in t.subject.traits.capabilities:
        in_time(flush, SLACK, "ETIMEDOUT of flush")
    if t.subject.can_serve:
        listener = t.listen()
        in_time(
            lambda: _lateness(lambda d: t.accept(listener, d), "accept"),
            SLACK,
            "ETIMEDOUT of accept",
        )


@behaviour(43, "a deadline of 0 or in the past tries once, without waiting")
def try_once(t: Trial) -> None:
    """What can be done at once is done."""
    for deadline in (0, umbel.now() - 1000):
        left, right = t.pair()
        fails(errno.ETIMEDOUT, "receive", t.receive, left, 1, deadline)
        t.bsend(right, b"x", deadline)
        got = t.spawn(t.receive, left, 1, t.soon())
        equal(got.result(), b"x", "received")
        t.bsend(right, b"abc")
        equal(t.brecv(left, 1, t.soon()), b"a", "received")
        # The rest of one send is there: it needs no waiting.
        equal(t.brecv(left, 2, deadline), b"bc", "brecv of what is there")
        fails(errno.ETIMEDOUT, "brecv", t.brecv, left, 1, deadline)
        much = noise(LARGEST_BUFFER + (1 << 20))
        fails(errno.ETIMEDOUT, "a send without room", t.bsend, left, much, deadline)
        if t.subject.can_serve:
            _accept_at_once(t, deadline)
    if t.subject.can_serve:
        full = t.listen(1)
        fill_backlog(t, full)
        for deadline in (0, umbel.now() - 1000):
            fails(errno.ETIMEDOUT, "connect without room", t.connect, full, deadline)


def _accept_at_once(t: Trial, deadline: int) -> None:
    listener = t.listen()
    fails(errno.ETIMEDOUT, "accept of nobody", t.accept, listener, deadline)
    t.connect(listener)
    give_up = time.monotonic() + t.patience
    while True:
        try:
            t.accept(listener, deadline)
        except TimeoutError:
            require(time.monotonic() < give_up, "accept at once never succeeded")
            t.pause(1)
            continue
        return


@behaviour(44, "a deadline of -1 never comes, and the wall clock decides nothing")
def forever(t: Trial) -> None:
    """Only the monotonic clock does; and who waits for ever does not spin."""
    left, right = t.pair()
    receiving = t.block(left, t.receive, left, 1, umbel.FOREVER)
    closed, peer = t.pair()
    closing = t.block(closed, t.close, closed, umbel.FOREVER)
    t.pause(150)
    require(not receiving.is_over, "a receive without a deadline gave up")
    require(not closing.is_over, "a close without a deadline gave up")
    t.close(peer)
    closing.result()
    t.bsend(right, b"x")
    equal(receiving.result(), b"x", "received")
    real = time.time()
    with mock.patch.object(time, "time", return_value=real + 3600):
        deadline = umbel.now() + 40
        fails(errno.ETIMEDOUT, "receive", t.receive, left, 1, deadline)
        require(umbel.now() >= deadline, "the wall clock ended a receive")
    _waits_quietly("receive", lambda d: t.receive(left, 1, d))
    if t.subject.can_serve:
        listener = t.listen()
        _waits_quietly("accept", lambda d: t.accept(listener, d))
    if UnreadBytes in t.subject.traits.capabilities:
        t.bsend(left, b"x")
        _waits_quietly("flush", lambda d: t.flush(left, d))


def _waits_quietly(what: str, call: Callable[[int], object]) -> None:
    if _used_by(call, 150) < MOST_USED:
        return
    share = _used_by(call, 150)  # something else in this process may have been busy
    require(share < MOST_USED, f"{what} used {share:.0%} of a processor as it waited")


@behaviour(45, "a receive that timed out does not affect sends, nor a send receives")
def independent(t: Trial) -> None:
    """Each direction is for itself."""
    left, right = t.pair()
    fails(errno.ETIMEDOUT, "brecv", t.brecv, left, 1, umbel.now() + 10)
    t.bsend(left, b"goes on")
    equal(t.brecv(right, 7, t.soon()), b"goes on", "received")
    left, right = t.pair()
    t.send_until(left, umbel.now() + 20)
    t.bsend(right, b"goes on")
    equal(t.brecv(left, 7, t.soon()), b"goes on", "received")


@behaviour(46, "a receive that timed out has lost no byte")
def nothing_lost(t: Trial) -> None:
    """Called again, it goes on where it was; brecv, by contract, does not."""
    left, right = t.pair()
    data = pattern(30_000)

    def drip() -> None:
        for at in range(0, len(data), 100):
            t.bsend(right, data[at : at + 100], t.soon())
            if at % 1000 == 0:
                t.pause(1)

    dripping = t.spawn(drip)
    got = bytearray()
    give_up = time.monotonic() + t.patience
    while len(got) < len(data):
        require(time.monotonic() < give_up, "bytes were lost")
        try:
            got += t.receive(left, 70, umbel.now() + len(got) % 3)
        except TimeoutError:
            pass
    dripping.result()
    require(got == data, "other bytes arrived than were sent")
    fails(errno.ETIMEDOUT, "brecv", t.brecv, left, 1, umbel.now() + 5)
    fails(errno.ECONNRESET, "brecv after one that failed", t.brecv, left, 1)


@behaviour(47, "a send that timed out tells how much it sent, and breaks the direction")
def broken_send(t: Trial) -> None:
    """The peer receives that much, to the byte."""
    left, right = t.pair()
    sent = t.send_until(left, umbel.now() + 30)
    fails(errno.ECONNRESET, "a send after one that failed", t.bsend, left, b"x")
    got = 0
    try:
        while True:
            got += len(t.receive(right, 1 << 20, umbel.now() + 300))
            require(
                got <= sent, f"more than the {sent} bytes arrived that bytes_done told"
            )
    except TimeoutError:
        pass
    equal(got, sent, "bytes that arrived, of those in bytes_done")


@behaviour(48, "a deadline is for the whole call, not for each step of it")
def total(t: Trial) -> None:
    """Neither a dripping sender nor a sipping reader can prolong it."""

    def receive() -> int:
        left, right = t.pair()
        return _late_though_fed(
            t,
            lambda d: t.brecv(left, 1000, d),
            lambda: t.bsend(right, b"x"),
            (left, right),
        )

    def send() -> int:
        left, right = t.pair()
        data = noise(MOST_NOISE)  # as above
        return _late_though_fed(
            t,
            lambda d: t.bsend(left, data, d),
            lambda: _sip(t, right),
            (left, right),
        )

    def close() -> int:
        left, right = t.pair()
        return _late_though_fed(
            t, lambda d: t.close(left, d), lambda: t.bsend(right, b"x"), (right,)
        )

    in_time(receive, 2 * SLACK, "ETIMEDOUT of a brecv that is dripped at")
    in_time(send, 4 * SLACK, "ETIMEDOUT of a send that is sipped at")
    in_time(close, 2 * SLACK, "ETIMEDOUT of a close that is dripped at")


def _sip(t: Trial, stream: umbel.StreamHandle) -> None:
    try:
        t.receive(stream, 1 << 20, 0)
    except TimeoutError:
        pass  # nothing has come yet


def _late_though_fed(
    t: Trial,
    call: Callable[[int], object],
    feed: Callable[[], object],
    ends: tuple[int, ...],
) -> int:
    """Tell how late *call* gives up, while another task feeds it every 10 ms."""
    is_over = False
    deadline = umbel.now() + 150

    def keep_feeding() -> None:
        # Far beyond the deadline, but not for ever: to be late is proof enough.
        while not is_over and umbel.now() < deadline + 200:
            try:
                feed()
            except OSError:
                return
            t.pause(10)

    feeding = t.spawn(keep_feeding)
    fails(errno.ETIMEDOUT, "a call that never ends", call, deadline)
    came = umbel.now()
    is_over = True
    feeding.result()
    for end in ends:
        umbel.hclose(end)
    return came - deadline


@behaviour(49, "connect to a full backlog waits without spinning", "listener")
def full_backlog(t: Trial) -> None:
    """Until there is room, or until the deadline; and there is as much as was asked."""
    _has_room_for_all(t)
    listener = t.listen(1)
    fill_backlog(t, listener)
    in_time(
        lambda: _lateness(lambda d: t.connect(listener, d), "connect"),
        2 * SLACK,
        "ETIMEDOUT of connect",
    )
    share = min(_used_by(lambda d: t.connect(listener, d), 250) for _ in range(2))
    require(share < MOST_USED, f"a connect that waited used {share:.0%} of a processor")
    connecting = t.spawn(t.connect, listener)
    while not connecting.is_over:
        try:
            t.accept(listener, umbel.now() + 20)
        except TimeoutError:
            pass  # TCP tries again after a second
    stream = connecting.result()
    assert isinstance(stream, umbel.StreamHandle)
    t.bsend(stream, b"x", t.soon())


def _used_by(call: Callable[[int], object], milliseconds: int) -> float:
    """Tell what share of a processor *call* uses while it waits in vain."""
    start, used = time.monotonic(), time.process_time()
    fails(errno.ETIMEDOUT, "a call", call, umbel.now() + milliseconds)
    return (time.process_time() - used) / (time.monotonic() - start)
