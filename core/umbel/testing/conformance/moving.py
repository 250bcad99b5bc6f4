"""Behaviours 1 to 13: bytes arrive as they were sent."""

from __future__ import annotations

import array
import errno
import random

import umbel
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.expecting import (
    LARGEST_BUFFER,
    Violation,
    equal,
    fails,
    require,
)
from umbel.testing.conformance.looking import pattern
from umbel.testing.conformance.trial import Trial
from umbel.values.iolist import JOINED_SIZE


@behaviour(1, "one byte sent is received")
def one_byte(t: Trial) -> None:
    """Both ways, however the two were connected."""
    pairs = [t.pair()]
    if t.subject.can("pair"):
        pairs.append(t.made_pair())
    for left, right in pairs:
        for sender, receiver in ((left, right), (right, left)):
            t.bsend(sender, b"x")
            got = t.receive(receiver, 10, t.soon())
            equal(got, b"x", "received")
            equal(type(got), bytes, "the class of what was received")


@behaviour(2, "sending no bytes has no effect, and still checks the stream")
def no_bytes(t: Trial) -> None:
    """The peer sees neither an empty chunk nor an end."""
    left, right = t.pair()
    t.bsend(left, b"")
    t.bsend(left, b"a")
    t.bsend(left, bytearray())
    t.bsend(left, b"b")
    equal(t.brecv(right, 2, t.soon()), b"ab", "received")
    umbel.hclose(left)
    fails(errno.EBADF, "a send of no bytes when closed", t.bsend, left, b"")


@behaviour(3, "any buffer can be sent; one that is not contiguous is refused")
def any_buffer(t: Trial) -> None:
    """Items of any size count as their bytes."""
    left, right = t.pair()
    numbers = array.array("I", [1, 2, 3])
    for data in (b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
        t.bsend(left, data)
        equal(t.brecv(right, 3, t.soon()), b"abc", "received")
    t.bsend(left, numbers)
    equal(t.brecv(right, 12, t.soon()), numbers.tobytes(), "received")
    t.bsendl(left, [b"a", numbers, memoryview(b"b")])
    equal(t.brecv(right, 14), b"a" + numbers.tobytes() + b"b", "a list received")
    try:
        t.bsend(left, memoryview(b"abcdef")[::2])
    except BufferError:
        return
    raise Violation("a buffer that is not contiguous was sent")


@behaviour(4, "a send buffer may be changed right after the send")
def buffer_reuse(t: Trial) -> None:
    """Also one that was too large to go at once; none is held any more."""
    left, right = t.pair()
    for size in (1000, 3 << 20):
        wanted = pattern(size)
        data = bytearray(wanted)
        got = bytearray(size)
        receiving = t.spawn(t.fill, right, got, t.soon())
        t.bsend(left, data)
        data[:] = bytes(size)
        receiving.result()
        require(bytes(got) == wanted, f"a send of {size} bytes changed after it")
    size = 2 * JOINED_SIZE  # what is smaller is not received where it is wanted
    wanted = pattern(size)
    data = bytearray(wanted)
    got = bytearray(size)
    receiving = t.spawn(t.fill, right, got, t.soon())
    t.bsend(left, data)
    receiving.result()
    require(bytes(got) == wanted, "received something else than was sent")
    for buffer, call in ((data, "send"), (got, "receive")):
        try:
            buffer.append(0)
        except BufferError:
            message = f"a buffer is still held after the {call}"
            raise Violation(message) from None


@behaviour(5, "sizes that make no sense are refused, and break nothing")
def bad_sizes(t: Trial) -> None:
    """EINVAL for numbers, TypeError for anything else."""
    left, right = t.pair()
    for size in (0, -1):
        fails(errno.EINVAL, f"receive of {size}", t.receive, left, size)
    fails(errno.EINVAL, "brecv of -1", t.brecv, left, -1)
    for wrong in (1.5, "1", None):
        for call in (t.receive, t.brecv):
            try:
                call(left, wrong)  # type: ignore[arg-type]  # that is the test
            except TypeError:
                continue
            raise Violation(f"a size of {wrong!r} was taken")
    equal(t.brecv(left, 0, 0), b"", "brecv of 0")
    t.bsend(right, b"x")
    equal(t.brecv(left, 1, t.soon()), b"x", "received afterwards")


@behaviour(6, "brecv gives exactly as many bytes as asked for")
def exact(t: Trial) -> None:
    """Less, as much, and more than one send."""
    left, right = t.pair()
    sizes = [1, 511, 512, 513, 3000]
    data = pattern(512 * 9)

    def send() -> None:
        for at in range(0, len(data), 512):
            t.bsend(left, data[at : at + 512])

    sending = t.spawn(send)
    at = 0
    for size in sizes:
        got = t.brecv(right, size, t.soon())
        equal(got, data[at : at + size], f"brecv of {size}")
        at += size
    sending.result()


@behaviour(7, "Skip discards exactly so many bytes, alone and in a list")
def skip(t: Trial) -> None:
    """What follows is in its place."""
    left, right = t.pair()
    data = pattern(200_000)
    sending = t.spawn(t.bsend, left, data)
    t.fill(right, umbel.Skip(100_000), t.soon())
    head = bytearray(10)
    tail = bytearray(20)
    t.fill_all(right, [head, umbel.Skip(70), tail], t.soon())
    equal(bytes(head), data[100_000:100_010], "after a skip")
    equal(bytes(tail), data[100_080:100_100], "after a skip in a list")
    t.fill_all(right, [umbel.Skip(99_900)], t.soon())
    sending.result()


@behaviour(8, "lists of buffers are checked first, and never changed")
def lists(t: Trial) -> None:
    """An empty list is EINVAL and breaks nothing."""
    left, right = t.pair()
    fails(errno.EINVAL, "bsendl of nothing", t.bsendl, left, [])
    fails(errno.EINVAL, "brecvl of nothing", t.fill_all, left, [])
    try:
        t.bsendl(left, [b"never sent", "text"])  # type: ignore[list-item]  # the test
    except TypeError:
        pass
    else:
        raise Violation("a list with a str in it was sent")
    buffers = [b"ab", b"", b"cd"]
    t.bsendl(left, buffers)
    equal(buffers, [b"ab", b"", b"cd"], "the list afterwards")
    equal(t.brecv(right, 4, t.soon()), b"abcd", "received")
    many = [bytes([i % 251]) * 3 for i in range(3000)]
    sending = t.spawn(t.bsendl, left, many)
    equal(t.brecv(right, 9000, t.soon()), b"".join(many), "3000 buffers")
    sending.result()


@behaviour(9, "1 MiB in pieces of 1 KiB and then the end arrive exactly", "half-close")
def bulk(t: Trial) -> None:
    """In order, with nothing lost or doubled, and nothing behind it."""
    left, right = t.pair()
    data = pattern(1 << 20)

    def send() -> None:
        for at in range(0, len(data), 1024):
            t.bsend(left, data[at : at + 1024])
        t.done(left)

    sending = t.spawn(send)
    require(t.drain(right) == data, "1 MiB did not arrive as it was sent")
    sending.result()


@behaviour(10, "1 MiB both ways at once, in random pieces, arrives exactly")
def both_ways(t: Trial) -> None:
    """Without a deadlock, and without an empty piece before the end."""
    ends = t.pair()
    data = [random.Random(seed).randbytes(1 << 20) for seed in (1, 2)]

    def send(index: int) -> None:
        draw = random.Random(index + 10)
        at = 0
        while at < len(data[index]):
            size = draw.randrange(1, 1 << 16)
            t.bsend(ends[index], data[index][at : at + size], t.soon())
            at += size

    def receive(index: int) -> None:
        draw = random.Random(index + 20)
        wanted = data[1 - index]
        at = 0
        while at < len(wanted):
            size = min(draw.randrange(1, 1 << 16), len(wanted) - at)
            piece = t.receive(ends[index], size, t.soon())
            require(piece, "an empty piece came before the end")
            require(piece == wanted[at : at + len(piece)], "other bytes arrived")
            at += len(piece)

    jobs = [t.spawn(call, index) for index in (0, 1) for call in (send, receive)]
    for job in jobs:
        job.result()


@behaviour(11, "a thousand questions get a thousand answers")
def ping_pong(t: Trial) -> None:
    """Each end waits for the other in turn."""
    left, right = t.pair()

    def answer() -> None:
        for _ in range(1000):
            t.bsend(right, t.brecv(right, 4, t.soon()))

    answering = t.spawn(answer)
    for number in range(1000):
        question = number.to_bytes(4, "big")
        t.bsend(left, question)
        equal(t.brecv(left, 4, t.soon()), question, "answered")
    answering.result()


@behaviour(12, "a large send waits for a slow reader instead of buffering it all")
def bounded(t: Trial) -> None:
    """So memory does not grow with what nobody has received."""
    left, _right = t.pair()
    room = t.send_until(left, umbel.now() + 50)
    require(room <= LARGEST_BUFFER, f"{room >> 20} MiB were buffered")
    left, right = t.pair()
    data = pattern(64 << 20)
    late = umbel.within(3 * t.patience)
    sending = t.spawn(t.bsend, left, data, late)
    got = bytearray(len(data))
    t.fill(right, got, late)
    sending.result()
    require(got == data, "64 MiB did not arrive as they were sent")


@behaviour(13, "what is not for byte streams is ENOTSUP on one")
def other_kinds(t: Trial) -> None:
    """And breaks nothing."""
    left, right = t.pair()
    calls = (
        ("accept", lambda: t.accept(left)),  # type: ignore[arg-type]  # the test
        ("chsend", lambda: umbel.chsend(left, 1)),  # type: ignore[arg-type]
        ("bundle_wait", lambda: umbel.bundle_wait(left)),  # type: ignore[arg-type]
    )
    for name, call in calls:
        fails(errno.ENOTSUP, f"{name} on a byte stream", call)
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received afterwards")
