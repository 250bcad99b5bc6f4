"""Behaviours 42 to 54: deadlines and cancellation."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from unittest import mock

import umbel
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.trial import (
    SLACK,
    WAKE_SLACK,
    CoroutineTrial,
    Trial,
    Violation,
    equal,
    fails,
    in_time,
    pattern,
    require,
)

ONLY_COROUTINES = ("coroutines",)


def _lateness(call: Callable[[int], object], what: str) -> int:
    deadline = umbel.now() + 60
    fails(errno.ETIMEDOUT, what, call, deadline)
    return umbel.now() - deadline


def fill_backlog(t: Trial, listener: umbel.ListenerHandle) -> list[int]:
    """Connect until nobody has room any more; give the clients."""
    clients: list[int] = []
    for _ in range(300):
        try:
            clients.append(t.connect(listener, umbel.now() + 60))
        except TimeoutError:
            return clients
    raise Violation("a backlog of 1 took 300 connections")


@behaviour(42, "ETIMEDOUT is never early, and late by 20 ms at most")
def punctual(t: Trial) -> None:
    """In receive, brecv, send and accept; connect and close have their own."""
    left, _right = t.pair()
    in_time(
        lambda: _lateness(lambda d: t.receive(left, 1, d), "receive"), SLACK, "receive"
    )

    def brecv() -> int:
        end, _peer = t.pair()
        return _lateness(lambda d: t.brecv(end, 1, d), "brecv")

    def bsend() -> int:
        end, _peer = t.pair()
        return _lateness(lambda d: t.bsend(end, bytes(64 << 20), d), "bsend")

    in_time(brecv, SLACK, "ETIMEDOUT of brecv")
    in_time(bsend, 2 * SLACK, "ETIMEDOUT of bsend")
    if t.subject.can("listen"):
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
        if t.subject.can("listen"):
            _accept_at_once(t, deadline)


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
            umbel.msleep(umbel.now() + 1)
            continue
        return


@behaviour(44, "a deadline of -1 never comes, and the wall clock decides nothing")
def forever(t: Trial) -> None:
    """Only the monotonic clock does."""
    left, right = t.pair()
    receiving = t.block(left, t.receive, left, 1, umbel.FOREVER)
    umbel.msleep(umbel.now() + 150)
    require(not receiving.is_over, "a receive without a deadline gave up")
    t.bsend(right, b"x")
    equal(receiving.result(), b"x", "received")
    real = time.time()
    with mock.patch.object(time, "time", return_value=real + 3600):
        deadline = umbel.now() + 40
        fails(errno.ETIMEDOUT, "receive", t.receive, left, 1, deadline)
        require(umbel.now() >= deadline, "the wall clock ended a receive")


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
                umbel.msleep(umbel.now() + 1)

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

    def late(
        ends: tuple[int, ...], call: Callable[[int], object], feed: Callable[[], object]
    ) -> int:
        is_over = False

        def keep_feeding() -> None:
            while not is_over:
                try:
                    feed()
                except OSError:
                    return
                umbel.msleep(umbel.now() + 10)

        feeding = t.spawn(keep_feeding)
        deadline = umbel.now() + 150
        fails(errno.ETIMEDOUT, "a call that never ends", call, deadline)
        came = umbel.now()
        is_over = True
        feeding.result()
        for end in ends:
            umbel.hclose(end)
        return came - deadline

    def receive() -> int:
        left, right = t.pair()
        return late(
            (left, right),
            lambda d: t.brecv(left, 1000, d),
            lambda: t.bsend(right, b"x"),
        )

    def send() -> int:
        left, right = t.pair()
        return late(
            (left, right),
            lambda d: t.bsend(left, bytes(256 << 20), d),
            lambda: t.fill(right, umbel.Skip(50_000), umbel.now() + 20),
        )

    def close() -> int:
        left, right = t.pair()
        return late((right,), lambda d: t.close(left, d), lambda: t.bsend(right, b"x"))

    in_time(receive, 2 * SLACK, "ETIMEDOUT of a brecv that is dripped at")
    in_time(send, 4 * SLACK, "ETIMEDOUT of a send that is sipped at")
    in_time(close, 2 * SLACK, "ETIMEDOUT of a close that is dripped at")


@behaviour(49, "connect to a full backlog waits without spinning", "listener")
def full_backlog(t: Trial) -> None:
    """Until there is room, or until the deadline."""
    listener = t.listen(1)
    fill_backlog(t, listener)
    in_time(
        lambda: _lateness(lambda d: t.connect(listener, d), "connect"),
        2 * SLACK,
        "ETIMEDOUT of connect",
    )
    start, used = time.monotonic(), time.process_time()
    fails(errno.ETIMEDOUT, "connect", t.connect, listener, umbel.now() + 400)
    share = (time.process_time() - used) / (time.monotonic() - start)
    require(share < 0.3, f"a connect that waited used {share:.0%} of a processor")
    connecting = t.spawn(t.connect, listener)
    while not connecting.is_over:
        try:
            t.accept(listener, umbel.now() + 20)
        except TimeoutError:
            pass  # TCP tries again after a second
    stream = connecting.result()
    assert isinstance(stream, umbel.StreamHandle)
    t.bsend(stream, b"x", t.soon())


@behaviour(
    50,
    "a canceled coroutine's call is ECANCELED, and all later ones",
    drivers=ONLY_COROUTINES,
)
def canceled(t: Trial) -> None:
    """In receive, brecv, send, accept and connect."""
    assert isinstance(t, CoroutineTrial)
    calls: list[Callable[[], object]] = [
        lambda: t.receive(t.pair()[0], 1),
        lambda: t.brecv(t.pair()[0], 1),
        lambda: t.bsend(t.pair()[0], bytes(64 << 20)),
    ]
    if t.subject.can("listen"):
        listener = t.listen(1)
        full = t.listen(1)
        calls.append(lambda: t.accept(listener, umbel.FOREVER))
        fill_backlog(t, full)
        calls.append(lambda: t.connect(full, umbel.FOREVER))
    for call in calls:
        job = t.spawn_cancelable(_check_canceled, t, call)
        require(not job.is_over, f"a call did not wait: {job.is_over and job.result()}")
        job.cancel()
        job.result()


def _check_canceled(t: Trial, call: Callable[[], object]) -> None:
    left, right = t.made_pair() if t.subject.can("pair") else umbel.ipc_pair()
    try:
        fails(errno.ECANCELED, "a canceled call", call)
        fails(errno.ECANCELED, "a later receive", t.receive, left, 1, 0)
        fails(errno.ECANCELED, "a later send", t.bsend, left, b"x")
        fails(errno.ECANCELED, "a later sleep", umbel.msleep, 0)
    finally:
        umbel.hclose(left)  # never blocks, and works when canceled
        umbel.hclose(right)


@behaviour(
    51,
    "after a cancellation the stream can be closed, by anyone",
    drivers=ONLY_COROUTINES,
)
def close_after_cancel(t: Trial) -> None:
    """A canceled receive breaks nothing, so in good order."""
    assert isinstance(t, CoroutineTrial)
    left, right = t.pair()
    job = t.spawn_cancelable(t.receive, left, 1)
    job.cancel()
    closing = t.spawn(t.close, left, t.soon())
    t.close(right, t.soon())
    closing.result()
    left, right = t.pair()
    job = t.spawn_cancelable(t.bsend, left, bytes(64 << 20))
    job.cancel()
    umbel.hclose(left)


@behaviour(
    52,
    "a canceled send tells how much it sent; a canceled receive lost nothing",
    drivers=ONLY_COROUTINES,
)
def canceled_halfway(t: Trial) -> None:
    """To the byte."""
    assert isinstance(t, CoroutineTrial)
    left, right = t.pair()
    sending = t.spawn_cancelable(t.bsend, left, bytes(64 << 20))
    sending.cancel()
    error = fails(errno.ECANCELED, "a canceled send", sending.result)
    got = 0
    try:
        while True:
            got += len(t.receive(right, 1 << 20, umbel.now() + 200))
    except TimeoutError:
        pass
    equal(getattr(error, "bytes_done", None), got, "bytes_done of a canceled send")
    left, right = t.pair()
    data = pattern(5000)
    got_bytes = bytearray()
    for at in range(0, len(data), 500):
        receiving = t.spawn_cancelable(lambda: got_bytes.extend(t.receive(left, 70)))
        t.bsend(right, data[at : at + 500])
        receiving.cancel()
    while len(got_bytes) < len(data):
        got_bytes += t.receive(left, 999, t.soon())
    require(got_bytes == data, "a canceled receive lost bytes")


@behaviour(
    54, "a cancellation reaches a blocked call promptly", drivers=ONLY_COROUTINES
)
def prompt(t: Trial) -> None:
    """However late its deadline."""
    assert isinstance(t, CoroutineTrial)

    def attempt() -> int:
        left, _right = t.pair()
        job = t.spawn_cancelable(t.receive, left, 1, t.soon())
        start = umbel.now()
        job.cancel()
        fails(errno.ECANCELED, "a canceled receive", job.result)
        return umbel.now() - start

    in_time(attempt, WAKE_SLACK, "a cancellation")
