"""Behaviours 36 to 41: the hard close."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from functools import partial

import umbel
from umbel.handle import open_handles
from umbel.streams.listener import Listening
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.expecting import (
    TRIES,
    WAKE_SLACK,
    Violation,
    equal,
    fails,
    in_time,
    require,
)
from umbel.testing.conformance.looking import MOST_NOISE, noise
from umbel.testing.conformance.trial import Trial, is_used
from umbel.transport import DescriptorPassing, Listener, Stream, UnreadBytes


@behaviour(36, "hclose never waits, though output is clogged")
def never_waits(t: Trial) -> None:
    """Best of several, on a busy machine."""

    def attempt() -> int:
        left, _right = t.pair()
        t.send_until(left, umbel.now() + 20)
        start = umbel.now()
        umbel.hclose(left)
        return umbel.now() - start

    in_time(attempt, WAKE_SLACK, "the return of hclose")


@behaviour(37, "the peer of a hard close sees the end, or ECONNRESET")
def peer_sees(t: Trial) -> None:
    """It never hangs, and receives nothing that was not sent.

    Which of the two is declared: a peer that is always reset, or not always.
    """
    resets = []
    for sent in (b"", b"sent before"):
        left, right = t.pair()
        t.bsend(left, sent)
        umbel.hclose(left)
        got = b""
        is_reset = False
        try:
            got = t.drain(right)
        except ConnectionResetError:
            is_reset = True
        except TimeoutError:
            raise Violation("the peer was never told") from None
        require(sent.startswith(got), f"the peer received {got!r}")
        resets.append(is_reset)
    if t.subject.traits.shows_abort:
        require(all(resets), "the peer saw a good end, though declared to see none")
    else:
        require(not all(resets), "an abort shows, which is not declared")


@behaviour(38, "sending to a peer that closed hard is ECONNRESET in the end")
def sends_fail(t: Trial) -> None:
    """And stays so; it tells how much went, and makes no good end of a reset."""
    left, right = t.pair()
    umbel.hclose(right)
    fails(errno.ECONNRESET, "sending on", _send_on, t, left)
    for _ in range(3):
        fails(errno.ECONNRESET, "a later send", t.bsend, left, b"x")
    _tells_what_went(t)
    _stays_a_reset(t)


def _send_on(t: Trial, stream: umbel.StreamHandle) -> None:
    for _ in range(2000):
        t.bsend(stream, bytes(1000), t.soon())
        t.pause(1)


def _stays_a_reset(t: Trial) -> None:
    # Where whoever receives is told of it, it must not matter who asks first.
    for sends_first in (False, True):
        left, right = t.pair()
        t.bsend(left, b"never read")
        umbel.hclose(right)
        if sends_first:
            fails(errno.ECONNRESET, "sending on", _send_on, t, left)
            fails(errno.ECONNRESET, "receive after a send that failed", t.drain, left)
            return
        try:
            t.drain(left)
        except ConnectionResetError:
            continue
        return


def _tells_what_went(t: Trial) -> None:
    # A send that was under way: what the peer has received has gone for sure.
    left, right = t.pair()
    data = noise(MOST_NOISE)
    sending = t.block(left, t.bsend, left, data, t.soon())
    t.brecv(right, 100_000, t.soon())
    umbel.hclose(right)
    error = fails(errno.ECONNRESET, "a send whose peer closed hard", sending.result)
    count = getattr(error, "bytes_done", 0)
    require(
        100_000 <= count < len(data),
        f"its bytes_done is {count}, and the peer has received 100000 of {len(data)}",
    )


@behaviour(39, "a hard close wakes who waits on the handle: EBADF within 50 ms")
def wakes(t: Trial) -> None:
    """In whatever call it waits; also with bytes left to be received."""
    abilities = t.subject.traits.capabilities
    kinds = ["receive", "send"] + ["accept"] * t.subject.can_serve
    kinds += ["receive_with_fds"] * (DescriptorPassing in abilities)
    kinds += ["flush"] * (UnreadBytes in abilities)
    for kind in kinds:
        in_time(partial(_wake, t, kind), WAKE_SLACK, f"EBADF of {kind}")
    left, right = t.pair()
    t.bsend(left, b"left behind")
    equal(t.brecv(right, 4, t.soon()), b"left", "received")
    umbel.hclose(right)
    fails(errno.EBADF, "receive after our own close", t.receive, right, 10, 0)


def _wake(t: Trial, kind: str) -> int:
    came: list[int] = []
    handle: umbel.Handle
    if kind == "accept":
        listener = t.listen()
        handle = listener
    else:
        stream, _peer = t.pair()
        handle = stream
        if kind == "flush":
            t.bsend(stream, b"never read")

    def work() -> None:
        try:
            if kind == "accept":
                t.accept(listener)
            elif kind == "send":
                t.send_until(stream, t.soon())
            elif kind == "receive_with_fds":
                t.receive_with_fds(stream, 1, 1, t.soon())
            elif kind == "flush":
                t.flush(stream, t.soon())
            else:
                t.receive(stream, 1, t.soon())
        finally:
            came.append(umbel.now())

    working = t.block(handle, work)
    at = umbel.now()
    umbel.hclose(handle)
    fails(errno.EBADF, f"{kind} when closed", working.result)
    return came[0] - at


@behaviour(40, "a send to a peer that has gone raises no signal")
def no_signal(t: Trial) -> None:
    """Whatever the program did to its handler of SIGPIPE."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    # A blocked signal stays pending even where Python ignores it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        left, right = t.pair()
        umbel.hclose(right)
        for _ in range(200):
            try:
                t.bsend(left, bytes(1000), t.soon())
            except OSError as error:
                require(error.errno == errno.ECONNRESET, f"a send gave {error}")
                break
            t.pause(1)
        if DescriptorPassing in t.subject.traits.capabilities:
            _pass_descriptors_to_nobody(t)
        require(signal.SIGPIPE not in signal.sigpending(), "SIGPIPE was raised")
    finally:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pass_descriptors_to_nobody(t: Trial) -> None:
    left, right = t.pair()
    umbel.hclose(right)
    with open(os.devnull, "rb") as file:
        for _ in range(200):
            try:
                t.send_with_fds(left, bytes(1000), [file.fileno()], t.soon())
            except ConnectionResetError:
                break
            t.pause(1)


@behaviour(41, "what is below is freed exactly once, however often abort is called")
def frees_once(t: Trial) -> None:
    """A descriptor that came by the number since is left alone, and is waited for."""
    handles, endpoints = _open_some(t)
    for handle in handles:
        umbel.hclose(handle)
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    try:
        for endpoint in endpoints:
            for _ in range(2):
                endpoint.abort()
        for fd in files:
            try:
                os.fstat(fd)
            except OSError:
                raise Violation("a second abort closed another's descriptor") from None
    finally:
        for fd in files:
            try:
                os.close(fd)
            except OSError:
                pass
    _abort_at_once(t)
    _wait_again(t)


def _open_some(t: Trial) -> tuple[list[umbel.Handle], list[Stream | Listener]]:
    """Open two streams, and a listener if there is any; give what is below, too."""
    left, right = t.pair()
    handles: list[umbel.Handle] = [left, right]
    endpoints: list[Stream | Listener] = [t.stream_of(left), t.stream_of(right)]
    if t.subject.can_serve:
        handles.append(t.listen())
        found = open_handles[handles[-1]]
        assert isinstance(found, Listening)
        endpoints.append(found.listener)
    return handles, endpoints


def _abort_at_once(t: Trial) -> None:
    # From two threads at the same moment.
    for _ in range(TRIES):
        handles, endpoints = _open_some(t)
        failures: list[BaseException] = []

        def abort(
            endpoints: list[Stream | Listener] = endpoints,
            failures: list[BaseException] = failures,
        ) -> None:
            try:
                for endpoint in endpoints:
                    endpoint.abort()
            except BaseException as error:  # noqa: BLE001 - it must not raise at all
                failures.append(error)

        threads = [threading.Thread(target=abort) for _ in range(2)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + t.patience
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
        require(not failures, f"abort raised {failures}")
        for handle in handles:
            umbel.hclose(handle)


def _wait_again(t: Trial) -> None:
    # Who waited for a number before must not be taken for who waits for it now.
    for _ in range(3):
        left, right = t.pair()
        fails(errno.ETIMEDOUT, "receive", t.receive, left, 1, umbel.now() + 1)
        umbel.hclose(left)
        umbel.hclose(right)
    left, right = t.pair()
    sending = t.spawn(_send_once_awaited, t, left, right)
    try:
        got = t.receive(left, 1, umbel.within(t.patience / 2))
    except TimeoutError:
        raise Violation("a stream is not woken under a number used before") from None
    equal(got, b"x", "received under a number used before")
    sending.result()


def _send_once_awaited(
    t: Trial, receiver: umbel.StreamHandle, sender: umbel.StreamHandle
) -> None:
    t.wait_until(lambda: is_used(receiver), "the receive")
    t.pause(2)  # it may yet be on its way into the wait
    t.bsend(sender, b"x")
