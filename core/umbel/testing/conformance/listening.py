"""Behaviours 61 to 70: listeners and addresses."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

import umbel
from umbel.plugins.discovery import installed_entries
from umbel.testing.conformance.behaviour import CANCELING, behaviour
from umbel.testing.conformance.expecting import (
    WAKE_SLACK,
    Violation,
    equal,
    fails,
    in_time,
    require,
)
from umbel.testing.conformance.looking import few_descriptors
from umbel.testing.conformance.trial import Trial
from umbel.values.address import Address

#: What connecting to where nobody listens gives.
NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT)


@behaviour(61, "accept gives streams in the order in which they connected", "listener")
def in_order(t: Trial) -> None:
    """And each talks to its own peer."""
    listener = t.listen()
    clients = []
    for number in range(5):
        client = t.connect(listener)
        t.bsend(client, b"%d" % number)
        clients.append(client)
    for number, client in enumerate(clients):
        server = t.accept(listener)
        equal(t.brecv(server, 1, t.soon()), b"%d" % number, "its first byte")
        t.bsend(server, b"hello %d" % number)
        equal(t.brecv(client, 7, t.soon()), b"hello %d" % number, "answer")


@behaviour(62, "an accept that timed out or was canceled breaks nothing", "listener")
def accept_again(t: Trial) -> None:
    """The next one gets the next peer."""
    listener = t.listen()
    for deadline in (0, umbel.now() + 20):
        fails(errno.ETIMEDOUT, "accept", t.accept, listener, deadline)
    if t.driver in CANCELING:
        job = t.spawn_cancelable(t.accept, listener, umbel.FOREVER)
        job.cancel()
        fails(errno.ECANCELED, "a canceled accept", job.result)
    left, right = t.link(listener)
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received")


@behaviour(
    63, "a second accept at the same time is EBUSY; the first goes on", "listener"
)
def busy_accept(t: Trial) -> None:
    """At once."""
    listener = t.listen()
    accepting = t.block(listener, t.accept, listener)
    fails(errno.EBUSY, "a second accept", t.accept, listener, umbel.now() + 500)
    client = t.connect(listener)
    server = accepting.result()
    assert isinstance(server, umbel.StreamHandle)
    t.bsend(client, b"x")
    equal(t.brecv(server, 1, t.soon()), b"x", "received")


@behaviour(64, "closing a listener wakes who accepts: EBADF", "listener")
def close_accepting(t: Trial) -> None:
    """In good order as well as hard."""
    for close in (t.close, umbel.hclose):

        def attempt(close: Callable[[int], object] = close) -> int:
            listener = t.listen()
            came: list[int] = []

            def accept() -> None:
                try:
                    t.accept(listener)
                finally:
                    came.append(umbel.now())

            accepting = t.block(listener, accept)
            at = umbel.now()
            close(listener)
            fails(errno.EBADF, "accept when closed", accepting.result)
            fails(errno.EBADF, "a later accept", t.accept, listener)
            return came[0] - at

        in_time(attempt, WAKE_SLACK, "EBADF of accept")


@behaviour(65, "connecting to where nobody listens fails at once", "listener")
def nobody(t: Trial) -> None:
    """Also where someone listened before; and one may listen there again."""
    listener = t.listen()
    address = listener.address
    umbel.hclose(listener)
    addresses = [address]
    if t.subject.makes_files:
        addresses.append(t.new_address())
    for where in addresses:
        start = time.monotonic()
        fails(NOBODY, f"connect to {where}", t.connect, where)
        require(time.monotonic() - start < t.patience / 2, "it was found out late")
    for close in (t.close, umbel.hclose):
        close(t.listen_at(address))
    t.link(t.listen_at(address))


@behaviour(
    66, "a peer that was never accepted is told when the listener closes", "listener"
)
def never_accepted(t: Trial) -> None:
    """By the end of the stream, or ECONNRESET."""
    listener = t.listen()
    client = t.connect(listener)
    umbel.hclose(listener)
    try:
        equal(t.receive(client, 1, t.soon()), b"", "received")
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise Violation("a peer that was queued hangs") from None


@behaviour(67, "the address of a listener can be connected to", "listener")
def real_address(t: Trial) -> None:
    """Also where the system chose a part of it; and it is that listener's alone."""
    listener = t.listen()
    equal(listener.address.scheme, t.subject.scheme, "the scheme of its address")
    left, right = t.link(listener)
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received")
    second = t.listen()
    require(second.address != listener.address, "two listeners have one address")
    address = listener.address
    fails(errno.EADDRINUSE, "a second listener there", t.listen_at, address)
    t.link(listener)  # the first one has not suffered


@behaviour(
    68, "addresses are read back as they are written, and never change", "listener"
)
def addresses(t: Trial) -> None:
    """Hashable; an unknown scheme is an error that names what there is."""
    address = t.listen().address
    equal(Address.parse(str(address)), address, f"{address}, written and read")
    require(hash(address) == hash(Address.parse(str(address))), "hashes differ")
    try:
        address.location = "elsewhere"  # type: ignore[misc]  # that is the test
    except AttributeError:
        pass
    else:
        raise Violation("an address can be changed")
    error = fails(
        errno.EPROTONOSUPPORT,
        "an unknown scheme",
        umbel.listen,
        f"no-{t.subject.scheme}:x",
    )
    require(
        any(scheme in str(error) for scheme in installed_entries()),
        f"the message names no installed scheme: {error}",
    )


@behaviour(
    69, "accept without a descriptor left raises EMFILE; the listener lives", "listener"
)
def no_descriptors(t: Trial) -> None:
    """And accepts that peer afterwards."""
    listener = t.listen()
    client = t.connect(listener)
    server = None
    with few_descriptors(0):
        try:
            server = t.accept(listener, umbel.now() + 200)
        except TimeoutError:
            raise Violation("accept without a descriptor left only waited") from None
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
    if server is None:
        server = t.accept(listener)
    t.bsend(client, b"x")
    equal(t.brecv(server, 1, t.soon()), b"x", "received")


@behaviour(
    70, "a silent peer does not keep the next one from being accepted", "listener"
)
def silent_peer(t: Trial) -> None:
    """Nothing is waited for inside accept."""
    listener = t.listen()
    t.connect(listener)
    client = t.connect(listener)
    t.bsend(client, b"x")
    t.accept(listener, umbel.within(t.patience / 2))
    server = t.accept(listener, umbel.within(t.patience / 2))
    equal(t.brecv(server, 1, t.soon()), b"x", "received")
