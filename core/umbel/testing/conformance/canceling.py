"""Behaviours 50 to 54: cancellation."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

import umbel
from umbel import aio
from umbel.testing.conformance.behaviour import CANCELING, behaviour
from umbel.testing.conformance.expecting import (
    WAKE_SLACK,
    equal,
    fails,
    in_time,
    require,
)
from umbel.testing.conformance.hosted import HostedTrial, Limit
from umbel.testing.conformance.looking import MOST_NOISE, noise, pattern
from umbel.testing.conformance.trial import Trial
from umbel.testing.conformance.waiting import fill_backlog


@behaviour(
    50,
    "a canceled task's call is ECANCELED, and all later ones",
    drivers=CANCELING,
)
def canceled(t: Trial) -> None:
    """In receive, brecv, send, accept and connect."""
    calls: list[Callable[[], object]] = [
        partial(t.receive, t.pair()[0], 1, umbel.FOREVER),
        partial(t.brecv, t.pair()[0], 1, umbel.FOREVER),
        partial(t.bsend, t.pair()[0], noise(MOST_NOISE), umbel.FOREVER),
    ]
    if t.subject.can_serve:
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
        fails(errno.ECANCELED, "a later sleep", t.pause, 0)
    finally:
        umbel.hclose(left)  # never blocks, and works when canceled
        umbel.hclose(right)


@behaviour(
    51,
    "after a cancellation the stream can be closed, by anyone",
    drivers=CANCELING,
)
def close_after_cancel(t: Trial) -> None:
    """A canceled receive breaks nothing, so in good order."""
    left, right = t.pair()
    job = t.spawn_cancelable(t.receive, left, 1)
    job.cancel()
    closing = t.spawn(t.close, left, t.soon())
    t.close(right, t.soon())
    closing.result()
    left, right = t.pair()
    job = t.spawn_cancelable(t.bsend, left, noise(MOST_NOISE))
    job.cancel()
    umbel.hclose(left)


@behaviour(
    52,
    "a canceled send tells how much it sent; a canceled receive lost nothing",
    drivers=CANCELING,
)
def canceled_halfway(t: Trial) -> None:
    """To the byte."""
    left, right = t.pair()
    sending = t.spawn_cancelable(t.bsend, left, noise(MOST_NOISE))
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
    data = pattern(500)
    got_bytes = bytearray()
    for at in range(0, len(data), 50):
        receiving = t.spawn_cancelable(lambda: got_bytes.extend(t.receive(left, 70)))
        t.bsend(right, data[at : at + 50])
        t.pause(at // 50 % 3)  # before it reads, while it does, and after
        receiving.cancel()
    while len(got_bytes) < len(data):
        got_bytes += t.receive(left, 999, t.soon())
    require(got_bytes == data, "a canceled receive lost bytes")


@behaviour(54, "a cancellation reaches a blocked call promptly", drivers=CANCELING)
def prompt(t: Trial) -> None:
    """However late its deadline."""

    def attempt() -> int:
        left, _right = t.pair()
        job = t.spawn_cancelable(t.receive, left, 1, t.soon())
        start = umbel.now()
        job.cancel()
        fails(errno.ECANCELED, "a canceled receive", job.result)
        return umbel.now() - start

    in_time(attempt, WAKE_SLACK, "a cancellation")
    if isinstance(t, HostedTrial):
        in_time(partial(_cut_off, t), WAKE_SLACK, "the loop's own timeout")
        in_time(partial(_shortened, t), WAKE_SLACK, "a timeout that was shortened")
        left, right = t.pair()
        job = t.begin(lambda: t.new_limit(t.patience).cuts_off(aio.brecv(left, 1)))
        t.bsend(right, b"x")
        equal(job.result(), False, "a receive in time was cut off")


def _cut_off(t: HostedTrial) -> int:
    left, _right = t.pair()
    start = umbel.now()
    job = t.begin(lambda: t.new_limit(0.05).cuts_off(aio.receive(left)))
    equal(job.result(), True, "a receive was cut off by the loop's own timeout")
    return umbel.now() - start - 49  # the loop's clock is not in whole ms


def _shortened(t: HostedTrial) -> int:
    left, _right = t.pair()
    limits: list[Limit] = []

    async def receive() -> bool:
        limits.append(t.new_limit(t.patience))
        return await limits[0].cuts_off(aio.receive(left, deadline=t.soon()))

    job = t.begin(receive)
    start = umbel.now()
    limits[0].end_now()
    equal(job.result(), True, "a receive was cut off by a limit that was shortened")
    return umbel.now() - start
