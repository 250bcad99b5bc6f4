"""Behaviours 77, 78 and 80: leaks, and good manners."""

from __future__ import annotations

import errno
import gc
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import umbel
from umbel._kernel.current import current_hub
from umbel.handle import hclose_if_open, open_handles, register
from umbel.plugins.discovery import installed_entries
from umbel.testing.conformance.behaviour import CANCELING, behaviour
from umbel.testing.conformance.expecting import (
    Violation,
    equal,
    fails,
    require,
)
from umbel.testing.conformance.looking import few_descriptors, open_descriptors
from umbel.testing.conformance.trial import Trial
from umbel.testing.conformance.waiting import fill_backlog
from umbel.transport import ListenContext, PairContext

#: Descriptors that are left to what runs out of them: from none to one less.
ROOM: Final = 5


@behaviour(77, "a forgotten handle is told by a ResourceWarning, and freed")
def forgotten(t: Trial) -> None:
    """One that was closed is not."""
    left, right = t.pair()
    for is_closed in (False, True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # A new owner for the same stream, since the trial keeps the old one.
            resource = open_handles.pop(int(left if is_closed else right))
            handle: int | None = register(resource, resource.handle_class)
            assert handle is not None
            if is_closed:
                umbel.hclose(handle)
            handle = None
            gc.collect()
        found = [w for w in caught if "never closed" in str(w.message)]
        equal(len(found), 0 if is_closed else 1, "ResourceWarnings")


@behaviour(78, "no descriptor is left behind, whatever fails")
def no_leaks(t: Trial) -> None:
    """Timeouts, cancellations, refusals, no descriptors, hard and failed closes."""
    scenarios: list[tuple[str, Callable[[], object]]] = [
        ("a pair, closed hard", lambda: _close_hard(t)),
        ("a close that timed out", lambda: _close_late(t)),
    ]
    if t.subject.can("pair"):
        scenarios.append(("a pair without descriptors left", lambda: _pair_short(t)))
    if t.subject.can_serve:
        scenarios += [
            ("a listen without descriptors left", lambda: _listen_short(t)),
            ("a connect without descriptors left", lambda: _connect_short(t)),
            ("a connect that was refused", lambda: _refused(t)),
            ("an accept that timed out", lambda: _no_peer(t)),
            ("a queued peer", lambda: _queued(t)),
            ("a connect that timed out", lambda: _full(t)),
        ]
        if t.driver in CANCELING:
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


def _open_short(call: Callable[[], Iterable[int]]) -> None:
    # How many it needs is its own affair: so it runs out of them at each.
    for room in range(ROOM):
        try:
            with few_descriptors(room):
                opened = call()
        except OSError:
            continue
        for handle in opened:
            umbel.hclose(handle)


def _pair_short(t: Trial) -> None:
    _open_short(t.made_pair)


def _listen_short(t: Trial) -> None:
    addresses = iter([t.new_address() for _ in range(ROOM)])
    _open_short(lambda: [t.listen_at(next(addresses))])


def _connect_short(t: Trial) -> None:
    listener = t.listen()
    _open_short(lambda: [t.connect(listener, umbel.now() + 200)])
    umbel.hclose(listener)


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
        hclose_if_open(client)


def _full(t: Trial) -> None:
    listener = t.listen(1)
    clients = fill_backlog(t, listener)
    umbel.hclose(listener)
    _close_all(clients)


def _canceled(t: Trial) -> None:
    listener = t.listen(1)
    clients = fill_backlog(t, listener)
    job = t.spawn_cancelable(t.connect, listener)
    if not job.is_over:
        job.cancel()
        fails(errno.ECANCELED, "a canceled connect", job.result)
    umbel.hclose(listener)
    _close_all(clients)


@behaviour(80, "the plugin is found by its scheme, and refuses what it does not know")
def hygiene(t: Trial) -> None:
    """An unknown option is a TypeError that names it. To listen, or pair, waits not."""
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
    if t.subject.can_serve:
        listener = t.listen()
        calls += [
            ("listen", lambda: t.listen(colour=1)),
            ("connect", lambda: t.connect(listener, 0, colour=1)),
        ]
    for what, call in calls:
        try:
            call()
        except TypeError as error:
            require("colour" in str(error), f"{what}: {error} names no option")
            continue
        raise Violation(f"{what} took an option that nobody knows")
    with _waiting_forbidden():
        if t.subject.can("pair"):
            for end in transport.pair(PairContext(t.subject.scheme, {})):
                end.abort()
        if t.subject.can_serve:
            transport.listen(ListenContext(t.new_address(), 5, {})).abort()


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """Have each wait raise, as it would where a loop's task calls."""

    def refuse(*_: object) -> None:
        raise Violation("to pair, or to listen, waits: a loop's task may call it")

    hub = current_hub()
    hub.yield_now()  # so that none of the next calls has to, to be fair
    vars(hub).update(park=refuse, yield_now=refuse)
    try:
        yield
    finally:
        del hub.park, hub.yield_now
