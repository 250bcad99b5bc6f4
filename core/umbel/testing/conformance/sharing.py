"""Behaviours 55 to 60: several tasks and threads."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable

import umbel
from umbel.handle import hclose_if_open
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.expecting import equal, fails, require
from umbel.testing.conformance.looking import pattern
from umbel.testing.conformance.trial import Trial
from umbel.transport import Fileno, UnreadBytes

#: Streams opened and closed while others wait.
CHURN = 1000


@behaviour(55, "a second send or receive at the same time is EBUSY; the first goes on")
def busy(t: Trial) -> None:
    """At once, and nothing is lost."""
    left, right = t.pair()
    receiving = t.block(left, t.receive, left, 10, t.soon())
    for call in (
        lambda: t.receive(left, 10, umbel.now() + 500),
        lambda: t.brecv(left, 1, umbel.now() + 500),
    ):
        fails(errno.EBUSY, "a second receive", call)
    sent = b"for the first"
    t.bsend(right, sent)
    got = receiving.result()
    assert isinstance(got, bytes)
    # One byte at least: how many more is up to the transport.
    require(got and sent[:10].startswith(got), f"the first received {got!r}")
    rest = sent[len(got) :]
    equal(t.brecv(left, len(rest), t.soon()), rest, "received afterwards")

    data = pattern(64 << 20)
    sending = t.block(left, t.bsend, left, data, umbel.within(3 * t.patience))
    fails(errno.EBUSY, "a second send", t.bsend, left, b"x", umbel.now() + 500)
    got = bytearray(len(data))
    t.fill(right, got, umbel.within(3 * t.patience))
    sending.result()
    require(got == data, "what the first sent did not arrive whole")


@behaviour(56, "one task may send while another receives")
def duplex(t: Trial) -> None:
    """A receive that waits keeps no send from going."""
    left, right = t.pair()
    receiving = t.block(left, t.brecv, left, 5, t.soon())
    t.bsend(left, b"hello")
    equal(t.brecv(right, 5, t.soon()), b"hello", "received")
    t.bsend(right, b"there")
    equal(receiving.result(), b"there", "received by the other task")


@behaviour(57, "a send while another waits for the peer to read is EBUSY", UnreadBytes)
def flush_and_send(t: Trial) -> None:
    """And the one that waits goes on."""
    left, right = t.pair()
    t.bsend(left, b"x")
    flushing = t.block(left, t.flush, left, t.soon())
    fails(errno.EBUSY, "a send", t.bsend, left, b"y", umbel.now() + 500)
    equal(t.brecv(right, 1, t.soon()), b"x", "received")
    flushing.result()


@behaviour(58, "hammered from many tasks, handles fail by errno and nothing else")
def hammer(t: Trial) -> None:
    """Afterwards each is usable, or closed."""
    known = (
        errno.EBADF,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ENOTSUP,
    )
    streams = [end for _ in range(4) for end in t.pair()]

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(150):
            try:
                _strike(t, draw, draw.choice(streams))
            except OSError as error:
                require(error.errno in known, f"a hammered stream gave {error!r}")

    jobs = [t.spawn(work, seed) for seed in range(6)]
    for job in jobs:
        job.result()
    for stream in streams:
        hclose_if_open(stream)
    left, right = t.pair()
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received afterwards")


def _strike(t: Trial, draw: random.Random, stream: umbel.StreamHandle) -> None:
    """Do something to *stream*; rarely something that ends it."""
    deadline = umbel.now() + 1
    match draw.randrange(30):
        case 0:
            umbel.hclose(stream)
        case 1:
            t.close(stream, 0)
        case 2:
            t.done(stream, 0)
        case 3:
            umbel.query(stream, Fileno)
        case number if number < 12:
            t.bsend(stream, bytes(draw.randrange(5000)), deadline)
        case number if number < 21:
            t.receive(stream, 3000, deadline)
        case _:
            t.brecv(stream, 10, deadline)


@behaviour(59, "streams that come and go do not disturb those that wait")
def churn(t: Trial) -> None:
    """Numbers of descriptors come back; no event reaches the wrong stream."""
    waiting = [t.pair() for _ in range(4)]
    jobs = [
        t.block(left, t.brecv, left, 4, umbel.within(3 * t.patience))
        for left, _ in waiting
    ]
    make = t.made_pair if t.subject.can("pair") else t.pair
    for number in range(CHURN if t.subject.can("pair") else CHURN // 4):
        left, right = make()
        word = number.to_bytes(4, "big")
        t.bsend(left, word)
        equal(t.brecv(right, 4, t.soon()), word, "received")
        if number % 2:
            fails(errno.ETIMEDOUT, "receive", t.receive, left, 1, 0)
        umbel.hclose(left)
        umbel.hclose(right)
    require(not any(job.is_over for job in jobs), "an event reached the wrong stream")
    for index, ((_, right), job) in enumerate(zip(waiting, jobs, strict=True)):
        t.bsend(right, b"%04d" % index)
        equal(job.result(), b"%04d" % index, "received by who waited")


@behaviour(60, "a handle works in any thread")
def any_thread(t: Trial) -> None:
    """Opened in one, used in another, closed in a third."""
    left, right = t.pair()

    def in_thread(call: Callable[[], object]) -> object:
        came: list[object] = []
        thread = threading.Thread(target=lambda: came.append(call()), daemon=True)
        thread.start()
        thread.join(t.patience)
        require(came, "a call in another thread failed or hung")
        return came[0]

    t.bsend(left, b"one")
    equal(in_thread(lambda: umbel.brecv(right, 3, umbel.within(5))), b"one", "received")
    in_thread(lambda: umbel.bsend(right, b"two"))
    equal(t.brecv(left, 3, t.soon()), b"two", "received")
    in_thread(lambda: umbel.hclose(right))
    in_thread(lambda: umbel.hclose(left))
    fails(errno.EBADF, "a send after the close", t.bsend, left, b"x")
