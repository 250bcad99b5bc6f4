"""Behaviours 71 to 73: the files of listeners, and forked children."""

from __future__ import annotations

import errno
import os
import stat

import umbel
from umbel.testing.conformance.behaviour import behaviour
from umbel.testing.conformance.children import forked
from umbel.testing.conformance.expecting import (
    equal,
    fails,
    require,
)
from umbel.testing.conformance.trial import Trial
from umbel.testing.conformance.waiting import fill_backlog
from umbel.values.address import Address


@behaviour(
    71, "a listener's file is made, replaced and removed with care", "listener", "files"
)
def files(t: Trial) -> None:
    """See the parts."""
    _live_is_kept(t)
    _stale_is_replaced(t)
    _is_left_if_wanted(t)
    _other_files_are_kept(t)
    _only_ours_is_removed(t)
    _mode_is_in_force(t)
    _bad_names(t)


def _live_is_kept(t: Trial) -> None:
    listener = t.listen()
    address = listener.address
    for _ in range(2):
        fails(errno.EADDRINUSE, "listening twice", t.listen_at, address)
    left, right = t.link(listener)  # and no dead peer is in its queue
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received")
    umbel.hclose(listener)
    require(not os.path.lexists(address.location), "the file was left behind")


def _stale_is_replaced(t: Trial) -> None:
    address = t.new_address()
    kept: list[object] = []
    with forked(lambda: kept.append(umbel.listen(address))) as status:
        equal(status(), 0, "the exit status of a child that listens")
    require(os.path.lexists(address.location), "a killed process has left no file")
    again = t.listen_at(address)
    t.link(again)
    umbel.hclose(again)
    require(not os.path.lexists(address.location), "the file was left behind")


def _is_left_if_wanted(t: Trial) -> None:
    listener = _listen_if_known(t, unlink=False)
    if listener is None:
        return
    place = listener.address.location
    umbel.hclose(listener)
    require(os.path.exists(place), "unlink=False, and the file was removed")


def _listen_if_known(t: Trial, **option: object) -> umbel.ListenerHandle | None:
    # Options are the transport's own: one that ipc has need not be there.
    try:
        return t.listen(128, **option)
    except TypeError:
        return None


def _other_files_are_kept(t: Trial) -> None:
    address = t.new_address()
    place = address.location
    with open(place, "w", encoding="utf-8") as file:
        file.write("precious")
    fails(errno.EADDRINUSE, "listening at a file", t.listen_at, address)
    with open(place, encoding="utf-8") as file:
        equal(file.read(), "precious", "the file afterwards")
    os.unlink(place)
    os.symlink("nowhere", place)
    fails(errno.EADDRINUSE, "listening at a link", t.listen_at, address)
    os.unlink(place)


def _only_ours_is_removed(t: Trial) -> None:
    listener = t.listen()
    address = listener.address
    place = address.location
    os.unlink(place)
    with open(place, "w", encoding="utf-8") as file:
        file.write("another's")
    umbel.hclose(listener)
    require(os.path.exists(place), "a file that was not ours any more was removed")
    os.unlink(place)
    # Another's listener may have it as well, whose file is of the same kind.
    listener = t.listen_at(address)
    os.unlink(place)
    other = t.listen_at(address)
    umbel.hclose(listener)
    require(os.path.exists(place), "the file of another's listener was removed")
    t.link(other)


def _mode_is_in_force(t: Trial) -> None:
    listener = _listen_if_known(t, mode=0o600)
    if listener is None:
        return
    mode = stat.S_IMODE(os.stat(listener.address.location).st_mode)
    equal(oct(mode), "0o600", "the file's mode")


def _bad_names(t: Trial) -> None:
    scheme = t.subject.scheme
    for name in ("", "a\0b"):
        where = Address(scheme, name)
        fails(errno.EINVAL, f"listening at {name!r}", t.listen_at, where)
        fails(errno.EINVAL, f"connecting to {name!r}", t.connect, where)
    folder = t.folder
    while len(folder) < 120:
        folder = os.path.join(folder, "a" * 40)
    os.makedirs(folder)
    for place in (os.path.join(folder, "s"), os.path.join(t.folder, "a" * 120)):
        try:
            listener = t.listen_at(Address(scheme, place))
        except OSError as error:
            what = f"a path of {len(place)} bytes gave {error}"
            require(error.errno == errno.ENAMETOOLONG, what)
        else:
            t.link(listener)


@behaviour(
    72,
    "a live listener with a full backlog is not taken for stale",
    "listener",
    "files",
)
def full_is_live(t: Trial) -> None:
    """EADDRINUSE, and its queue is untouched."""
    listener = t.listen(1)
    fill_backlog(t, listener)
    fails(errno.EADDRINUSE, "listening there", t.listen_at, listener.address)
    require(os.path.exists(listener.address.location), "its file was removed")
    t.accept(listener)


@behaviour(73, "what a forked child closes stays open in its parent")
def forked_child(t: Trial) -> None:
    """Its end neither removes a listener's file nor ends a stream."""
    left, right = t.pair()
    listener = t.listen() if t.subject.can_serve else None

    def close_all() -> None:
        for handle in (left, right, listener):
            if handle is not None:
                umbel.hclose(handle)

    with forked(close_all) as status:
        equal(status(), 0, "the child's exit status")
    t.bsend(left, b"x")
    equal(t.brecv(right, 1, t.soon()), b"x", "received afterwards")
    fails(errno.ETIMEDOUT, "receive", t.receive, left, 1, umbel.now() + 5)
    if listener is not None:
        t.link(listener)
