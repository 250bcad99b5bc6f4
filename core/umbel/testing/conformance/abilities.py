"""Behaviours 74 to 76, and 79: what some streams can do beyond bytes."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from contextlib import suppress
from typing import Final

import umbel
from umbel.fd import close_if_open
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.children import forked
from umbel.testing.conformance.expecting import (
    LARGEST_BUFFER,
    Violation,
    equal,
    fails,
    require,
)
from umbel.testing.conformance.looking import noise, open_descriptors
from umbel.testing.conformance.trial import Trial
from umbel.transport import (
    AdoptContext,
    DescriptorPassing,
    Fileno,
    Names,
    Transfer,
    UnreadBytes,
)
from umbel.values.address import Address
from umbel.values.peer import PeerIdentity

#: Abilities that a transport declares. How fast it moves bytes is its own affair.
DECLARED: Final = (
    Fileno,
    Names,
    UnreadBytes,
    DescriptorPassing,
    PeerIdentity,
    Transfer,
)


@behaviour(
    74,
    "descriptors arrive at their place in the data, and never leak",
    DescriptorPassing,
)
def descriptors(t: Trial) -> None:
    """Several at once, with close-on-exec; too many are an error."""
    left, right = t.pair()
    deadline = t.soon()
    reading, writing = os.pipe()
    try:
        t.bsend(left, b"before")
        t.send_with_fds(left, b"D", [reading, writing], deadline)
        t.bsend(left, b"after")
        equal(t.brecv(right, 6, deadline), b"before", "received before it")
        data, came = t.receive_with_fds(right, 1, 2, deadline)
        try:
            equal((data, len(came)), (b"D", 2), "received")
            for fd in came:
                require(not os.get_inheritable(fd), "a descriptor lacks close-on-exec")
            os.write(came[1], b"x")
            equal(os.read(reading, 1), b"x", "read from the pipe")
        finally:
            for fd in came:
                os.close(fd)
        equal(t.brecv(right, 5, deadline), b"after", "received after it")

        before = open_descriptors()
        t.send_with_fds(left, b"A", [reading, writing], deadline)
        t.bsend(left, b"BCD")
        equal(t.brecv(right, 4, deadline), b"ABCD", "received without room for any")
        equal(open_descriptors() - before, set(), "descriptors that nobody asked for")
        t.send_with_fds(left, b"A", [reading, writing], deadline)
        fails(
            errno.EMSGSIZE,
            "receiving one of two descriptors",
            t.receive_with_fds,
            right,
            1,
            1,
            deadline,
        )
        equal(open_descriptors() - before, set(), "descriptors after the error")
        _leaves_the_rest(t, reading)
        _is_told_of_a_reset(t, reading)
        _pass_in_time(t, reading)
    finally:
        os.close(reading)
        os.close(writing)


def _leaves_the_rest(t: Trial, fd: int) -> None:
    left, right = t.pair()
    t.send_with_fds(left, b"abc", [fd], t.soon())
    data, came = t.receive_with_fds(right, 1, 1, t.soon())
    for number in came:
        os.close(number)
    equal((data, len(came)), (b"a", 1), "received of three bytes and a descriptor")
    # The rest of one send is there: it needs no waiting.
    equal(t.receive_with_fds(right, 1, 1, 0), (b"b", []), "received behind them")
    equal(t.brecv(right, 1, t.soon()), b"c", "received behind that")


def _is_told_of_a_reset(t: Trial, fd: int) -> None:
    left, right = t.pair()
    umbel.hclose(right)

    def send_on() -> None:
        for _ in range(200):
            t.send_with_fds(left, bytes(1000), [fd], t.soon())
            t.pause(1)

    told = "sending descriptors to a peer that has gone"
    fails(errno.ECONNRESET, told, send_on)


def _pass_in_time(t: Trial, fd: int) -> None:
    much = bytes(noise(LARGEST_BUFFER + (1 << 20)))
    for until in (0, umbel.now() + 30):
        left, right = t.pair()
        late = "a receive of descriptors"
        fails(errno.ETIMEDOUT, late, t.receive_with_fds, left, 1, 1, until)
        late = "a send of descriptors"
        fails(errno.ETIMEDOUT, late, t.send_with_fds, right, much, [fd], until)
    if t.subject.traits.half_close:
        left, right = t.pair()
        t.done(right)
        found = t.receive_with_fds(left, 1, 1, t.soon())
        equal(found, (b"", []), "received at the end")


@behaviour(
    75, "the peer's identity is the kernel's word, also across a fork", PeerIdentity
)
def identity(t: Trial) -> None:
    """Process, user and group."""
    mine = (os.getpid(), os.geteuid(), os.getegid())
    for end in t.pair():
        equal(umbel.query(end, PeerIdentity)[:3], mine, "the peer, which is ourselves")
    if not t.subject.makes_files:
        return
    listener = t.listen()
    address = listener.address

    def connect() -> None:
        stream = umbel.connect(address, t.soon())
        umbel.bsend(stream, os.getpid().to_bytes(8, "big"))
        try:
            with suppress(umbel.BrokenStreamError):  # as it is where an abort shows
                umbel.receive(stream, 1, t.soon())
        finally:
            umbel.hclose(stream)

    with forked(connect) as status:
        server = t.accept(listener)
        child = int.from_bytes(t.brecv(server, 8, t.soon()), "big")
        equal(umbel.query(server, PeerIdentity)[:3], (child, *mine[1:]), "the child")
        umbel.hclose(server)
        equal(status(), 0, "the child's exit status")


@behaviour(76, "a stream has the capabilities that are declared, and no others")
def capabilities(t: Trial) -> None:
    """Each is an object of its class, and works; one that is missing is ENOTSUP."""
    ends = [*t.pair()]
    if t.subject.can("pair"):
        ends += t.made_pair()
    declared = t.subject.traits.capabilities
    for kind in {*DECLARED, *declared}:
        for end in ends:
            _has_or_lacks(t, end, kind, kind in declared)
    strange = t.stream_of(ends[0]).query(Violation)
    require(strange is None, "a query for an unknown class gives something")
    for end in ends if Fileno in declared else ():
        is_kept = not os.get_inheritable(end.fileno())
        require(is_kept, "a program that is run from here would inherit its descriptor")
    if UnreadBytes in declared:
        _tells_unread(t, *t.pair())
    if Fileno in declared:
        _carries_the_bytes(t, *ends[:2])
    if Names in declared:
        _tells_names(*ends[:2])
    if Transfer in declared:
        _moves(t, *ends[:2])
    if t.subject.can_serve:
        listener = t.listen()
        query = umbel.query
        fails(errno.ENOTSUP, "a listener's unknown class", query, listener, Violation)
        _has_file_or_not(t, listener.address)
        _moves_if_it_may(t, listener)


def _has_or_lacks(
    t: Trial, end: umbel.StreamHandle, kind: type, is_declared: bool
) -> None:
    found = t.stream_of(end).query(kind)
    if is_declared:
        require(isinstance(found, kind), f"{kind.__name__} is declared, and {found}")
        return
    require(found is None, f"{kind.__name__} is there, and not declared")
    fails(errno.ENOTSUP, "a query for what is missing", umbel.query, end, kind)


def _tells_unread(
    t: Trial, left: umbel.StreamHandle, right: umbel.StreamHandle
) -> None:
    unread = umbel.query(left, UnreadBytes)
    require(unread.is_zero(), "bytes are unread, and none was sent")
    t.bsend(left, b"x")
    require(not unread.is_zero(), "a byte that nobody read counts as read")
    fails(errno.ETIMEDOUT, "flush", t.flush, left, umbel.now() + 5)
    equal(t.brecv(right, 1, t.soon()), b"x", "received")
    t.flush(left, t.soon())
    require(unread.is_zero(), "bytes are unread, though all were read")
    t.flush(left, 0)  # there is nothing to wait for
    t.bsend(left, b"never read")
    flushing = t.block(left, t.flush, left, t.soon())
    umbel.hclose(right)
    fails(errno.ECONNRESET, "flush to a peer that has gone", flushing.result)
    fails(errno.ECONNRESET, "a later flush", t.flush, left, t.soon())


def _carries_the_bytes(
    t: Trial, left: umbel.StreamHandle, right: umbel.StreamHandle
) -> None:
    # `as_socket` gives a stream socket to the program, which then writes to that.
    fd = left.fileno()
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.type != socket.SOCK_STREAM:
            return
        os.write(fd, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received what its socket was given")
    t.bsend(right, b"headbody")
    equal(t.brecv(left, 4, t.soon()), b"head", "received")
    left_there = b""
    with socket.socket(fileno=os.dup(fd)) as sock, suppress(BlockingIOError):
        left_there = sock.recv(9, socket.MSG_DONTWAIT)
    equal(left_there, b"body", "left in the socket by who received what was before")


def _tells_names(left: umbel.StreamHandle, right: umbel.StreamHandle) -> None:
    mine, theirs = umbel.query(left, Names), umbel.query(right, Names)
    equal(mine.remote, theirs.local, "the peer's address, told by us")
    equal(mine.local, theirs.remote, "our address, told by the peer")


def _moves(t: Trial, left: umbel.StreamHandle, right: umbel.StreamHandle) -> None:
    """Have the stream of *left* taken over, as another process would."""
    require(t.subject.can("adopt"), "Transfer is declared, but the hook `adopt` is not")
    t.bsend(right, b"headbody")
    equal(t.brecv(left, 4, t.soon()), b"head", "received")
    transfer = umbel.query(left, Transfer)
    state = json.loads(json.dumps(dict(transfer.state)))
    where = Address(t.subject.scheme, "")
    context = AdoptContext(where, os.dup(transfer.fd), state=state)
    moved = t.subject.transport.adopt(context)
    try:
        transfer.release()
        umbel.hclose(left)
        require(hasattr(moved, "send"), f"adopting a stream gave {moved!r}")
        assert not hasattr(moved, "accept")
        moved.send([memoryview(b"moved")], t.soon())
        equal(t.brecv(right, 5, t.soon()), b"moved", "received from a moved stream")
        body = memoryview(bytearray(4))
        filled = 0
        while filled < len(body):  # it may give less than there is
            count = moved.receive_into(body[filled:], t.soon())
            require(count, "a moved stream ended before what was there")
            filled += count
        equal(bytes(body), b"body", "received by a moved stream")
    finally:
        moved.abort()


def _moves_if_it_may(t: Trial, listener: umbel.ListenerHandle) -> None:
    """Have a listener taken over, as another process would, with its file."""
    try:
        transfer = umbel.query(listener, Transfer)
    except umbel.NotSupportedError:
        return
    address = listener.address
    state = json.loads(json.dumps(dict(transfer.state)))
    context = AdoptContext(address, os.dup(transfer.fd), True, state)
    moved = t.subject.transport.adopt(context)
    try:
        transfer.release()
        umbel.hclose(listener)
        t.connect(address)  # to the moved one: the old one's close undoes nothing
        require(hasattr(moved, "accept"), f"adopting a listener gave {moved!r}")
        assert not hasattr(moved, "send")
        moved.accept(t.soon()).abort()
    finally:
        moved.abort()
    require(not os.path.lexists(address.location), "a moved listener's file is left")


def _has_file_or_not(t: Trial, address: Address) -> None:
    is_file = os.path.lexists(address.location)
    if t.subject.makes_files:
        require(is_file, f"{address} is no file, though declared to be one")
    elif not t.subject.traits.is_filesystem:
        require(not is_file, f"{address} is a file, which is not declared")


@behaviour(
    79, "taking over a descriptor that does not fit is EINVAL, and leaves it", "adopt"
)
def adoption(t: Trial) -> None:
    """On success it is the stream's."""
    transport = t.subject.transport
    where = Address(t.subject.scheme, "")
    numbers = _unfit()
    try:
        for wrong in (*numbers, -1):
            for is_listener in (False, True):
                _is_refused(t, wrong, is_listener)
                is_kept = open_descriptors().issuperset(numbers)
                require(is_kept, "a refused descriptor was closed")
                is_as_before = all(map(os.get_blocking, numbers))
                require(is_as_before, "a refused descriptor does not block any more")
    finally:
        for number in numbers:
            close_if_open(number)
    if Fileno not in t.subject.traits.capabilities:
        return
    mine, theirs = t.pair()
    number = os.dup(mine.fileno())
    umbel.hclose(mine)
    _is_refused(t, number, is_listener=True)
    stream = transport.adopt(AdoptContext(where, number))
    stream.abort()
    try:
        os.fstat(number)
    except OSError:
        pass
    else:
        raise Violation("an adopted descriptor was not closed with its stream")
    equal(t.receive(theirs, 1, t.soon()), b"", "the peer's receive")
    if t.subject.can_serve and t.subject.makes_files:
        _adopted_keeps_file(t)


def _unfit() -> list[int]:
    """Open what is no connected stream, and no listener: all in blocking mode."""
    packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    unconnected = map(socket.socket, (socket.AF_UNIX, socket.AF_INET))
    found = [sock.detach() for sock in (*packets, *unconnected)]
    return [*found, os.open(os.devnull, os.O_RDONLY)]


def _is_refused(t: Trial, fd: int, is_listener: bool) -> None:
    context = AdoptContext(Address(t.subject.scheme, ""), fd, is_listener)
    role = "listener" if is_listener else "stream"
    what = f"taking over descriptor {fd} as a {role}"
    fails(errno.EINVAL, what, t.subject.transport.adopt, context)


def _adopted_keeps_file(t: Trial) -> None:
    # Whoever gave it the listener may go on with it: systemd does.
    listener = t.listen()
    address = listener.address
    try:
        fd = os.dup(umbel.query(listener, Fileno).fd)
    except umbel.NotSupportedError:
        return  # nobody can give away what has no descriptor
    t.subject.transport.adopt(AdoptContext(address, fd, is_listener=True)).abort()
    require(os.path.lexists(address.location), "an adopted listener's file was removed")
    t.link(listener)
