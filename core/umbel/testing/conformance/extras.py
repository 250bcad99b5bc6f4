"""Behaviours 74 to 80: capabilities, leaks, and good manners."""

from __future__ import annotations

import errno
import gc
import os
import socket
import warnings
from collections.abc import Callable
from typing import Final

import umbel
from umbel.address import Address
from umbel.discovery import installed_entries
from umbel.handle import Handle, open_handles, register
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.children import forked
from umbel.testing.conformance.trial import (
    CoroutineTrial,
    Trial,
    Violation,
    equal,
    fails,
    open_descriptors,
    require,
)
from umbel.testing.conformance.waiting import fill_backlog
from umbel.transport import (
    AdoptContext,
    DescriptorPassing,
    Fileno,
    Names,
    PeerIdentity,
    Transfer,
    UnreadBytes,
)

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
        umbel.send_with_fds(left, b"D", [reading, writing], deadline)
        t.bsend(left, b"after")
        equal(t.brecv(right, 6, deadline), b"before", "received before it")
        data, came = umbel.receive_with_fds(right, 1, 2, deadline)
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
        umbel.send_with_fds(left, b"A", [reading, writing], deadline)
        t.bsend(left, b"BCD")
        equal(t.brecv(right, 4, deadline), b"ABCD", "received without room for any")
        equal(open_descriptors() - before, set(), "descriptors that nobody asked for")
        umbel.send_with_fds(left, b"A", [reading, writing], deadline)
        fails(
            errno.EMSGSIZE,
            "receiving one of two descriptors",
            umbel.receive_with_fds,
            right,
            1,
            1,
            deadline,
        )
        equal(open_descriptors() - before, set(), "descriptors after the error")
    finally:
        os.close(reading)
        os.close(writing)


@behaviour(
    75, "the peer's identity is the kernel's word, also across a fork", PeerIdentity
)
def identity(t: Trial) -> None:
    """Process, user and group."""
    mine = (os.getpid(), os.geteuid(), os.getegid())
    for end in t.pair():
        equal(umbel.query(end, PeerIdentity)[:3], mine, "the peer, which is ourselves")
    if not t.subject.traits.is_filesystem:
        return
    listener = t.listen()
    address = listener.address

    def connect() -> None:
        stream = umbel.connect(address, t.soon())
        umbel.bsend(stream, os.getpid().to_bytes(8, "big"))
        try:
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
    """Each is an object of its class; one that is missing is ENOTSUP."""
    ends = [*t.pair()]
    if t.subject.can("pair"):
        ends += t.made_pair()
    for kind in DECLARED:
        is_declared = kind in t.subject.traits.capabilities
        for end in ends:
            found = t.stream_of(end).query(kind)
            if is_declared:
                require(
                    isinstance(found, kind), f"{kind.__name__} is declared, and {found}"
                )
            else:
                require(found is None, f"{kind.__name__} is there, and not declared")
                fails(
                    errno.ENOTSUP, "a query for what is missing", umbel.query, end, kind
                )
    strange = t.stream_of(ends[0]).query(Violation)
    require(strange is None, "a query for an unknown class gives something")
    if UnreadBytes in t.subject.traits.capabilities:
        _tells_unread(t, *ends[:2])
    if Fileno in t.subject.traits.capabilities:
        require(os.fstat(ends[0].fileno()), "its descriptor is not open")


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


@behaviour(77, "a forgotten handle is told by a ResourceWarning, and freed")
def forgotten(t: Trial) -> None:
    """One that was closed is not."""
    left, right = t.pair()
    for is_closed in (False, True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # A new owner for the same stream, since the trial keeps the old one.
            resource = open_handles.pop(int(left if is_closed else right))
            handle: Handle | None = register(resource, resource.handle_class)
            assert handle is not None
            if is_closed:
                umbel.hclose(handle)
            handle = None
            gc.collect()
        found = [w for w in caught if "never closed" in str(w.message)]
        equal(len(found), 0 if is_closed else 1, "ResourceWarnings")


@behaviour(78, "no descriptor is left behind, whatever fails")
def no_leaks(t: Trial) -> None:
    """Timeouts, cancellations, refusals, hard and failed closes."""
    scenarios: list[tuple[str, Callable[[], object]]] = [
        ("a pair, closed hard", lambda: _close_hard(t)),
        ("a close that timed out", lambda: _close_late(t)),
    ]
    if t.subject.can("listen"):
        scenarios += [
            ("a connect that was refused", lambda: _refused(t)),
            ("an accept that timed out", lambda: _no_peer(t)),
            ("a queued peer", lambda: _queued(t)),
            ("a connect that timed out", lambda: _full(t)),
        ]
        if isinstance(t, CoroutineTrial):
            scenarios.append(("a canceled connect", lambda: _canceled(t)))
    for what, scenario in scenarios:
        scenario()  # what is made once for all is made now
        before = open_descriptors()
        for _ in range(3):
            scenario()
        gc.collect()
        left = open_descriptors() - before
        require(not left, f"{what} left {len(left)} descriptors open in three times")


def _close_hard(t: Trial) -> None:
    for end in t.pair():
        umbel.hclose(end)


def _close_late(t: Trial) -> None:
    left, right = t.pair()
    fails(errno.ETIMEDOUT, "close", t.close, left, 0)
    umbel.hclose(right)


def _refused(t: Trial) -> None:
    listener = t.listen()
    address = listener.address
    umbel.hclose(listener)
    fails((errno.ECONNREFUSED, errno.ENOENT), "connect", t.connect, address)


def _no_peer(t: Trial) -> None:
    listener = t.listen()
    fails(errno.ETIMEDOUT, "accept", t.accept, listener, 0)
    umbel.hclose(listener)


def _queued(t: Trial) -> None:
    listener = t.listen()
    client = t.connect(listener)
    umbel.hclose(listener)
    umbel.hclose(client)


def _close_all(clients: list[int]) -> None:
    for client in clients:
        if client in open_handles:
            umbel.hclose(client)


def _full(t: Trial) -> None:
    listener = t.listen(1)
    clients = fill_backlog(t, listener)
    umbel.hclose(listener)
    _close_all(clients)


def _canceled(t: CoroutineTrial) -> None:
    listener = t.listen(1)
    clients = fill_backlog(t, listener)
    job = t.spawn_cancelable(t.connect, listener)
    if not job.is_over:
        job.cancel()
        fails(errno.ECANCELED, "a canceled connect", job.result)
    umbel.hclose(listener)
    _close_all(clients)


@behaviour(
    79, "taking over a descriptor that does not fit is EINVAL, and leaves it", "adopt"
)
def adoption(t: Trial) -> None:
    """On success it is the stream's."""
    transport = t.subject.transport
    where = Address(t.subject.scheme, "")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    fd = os.open(os.devnull, os.O_RDONLY)
    with left, right:
        try:
            for wrong in (fd, left.fileno(), -1):
                for is_listener in (False, True):
                    context = AdoptContext(where, wrong, is_listener)
                    fails(
                        errno.EINVAL,
                        f"taking over descriptor {wrong}",
                        transport.adopt,
                        context,
                    )
            os.fstat(fd)
            os.fstat(left.fileno())
        except OSError as error:
            raise Violation(f"a refused descriptor was closed: {error}") from None
        finally:
            os.close(fd)
    if Fileno not in t.subject.traits.capabilities:
        return
    mine, theirs = t.pair()
    number = os.dup(mine.fileno())
    umbel.hclose(mine)
    stream = transport.adopt(AdoptContext(where, number))
    stream.abort()
    try:
        os.fstat(number)
    except OSError:
        pass
    else:
        raise Violation("an adopted descriptor was not closed with its stream")
    equal(t.receive(theirs, 1, t.soon()), b"", "the peer's receive")


@behaviour(80, "the plugin is found by its scheme, and refuses what it does not know")
def hygiene(t: Trial) -> None:
    """An unknown option is a TypeError that names it."""
    transport = t.subject.transport
    entries = installed_entries().get(t.subject.scheme, [])
    require(
        entries or transport.source == "this program",
        f"no entry point is called {t.subject.scheme!r}",
    )
    require(transport.traits() is not None, "the hook `traits` is missing")
    calls: list[tuple[str, Callable[[], object]]] = []
    if t.subject.can("pair"):
        calls.append(("pair", lambda: umbel.pair(t.subject.scheme, colour=1)))
    if t.subject.can("listen"):
        listener = t.listen()
        calls += [
            ("listen", lambda: t.listen(colour=1)),
            ("connect", lambda: umbel.connect(listener.address, 0, colour=1)),
        ]
    for what, call in calls:
        try:
            call()
        except TypeError as error:
            require("colour" in str(error), f"{what}: {error} names no option")
            continue
        raise Violation(f"{what} took an option that nobody knows")
