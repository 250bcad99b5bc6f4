"""What `query` can't be asked for, and what its answers are not."""

from __future__ import annotations

from typing import Protocol

import umbel
from umbel.spi import Fileno, Stream, UnreadBytes


class HasPid(Protocol):
    pid: int


def allow(name: str) -> bool:
    return bool(name)


def main(stream: umbel.StreamHandle) -> None:
    # Only mypy refuses a Protocol where a `type[T]` is asked for, since T has no bound.
    umbel.query(stream, HasPid)  # error: mypy
    umbel.hquery(stream, Stream)  # error: mypy
    umbel.query(stream, "PeerIdentity")  # error
    umbel.query(stream, umbel.PeerIdentity(1, 2, 3))  # error
    umbel.query(umbel.PeerIdentity, stream)  # error
    umbel.query(stream)  # error
    peer = umbel.query(stream, umbel.PeerIdentity)
    print(peer.user)  # error
    peer.pid = 5  # error
    print(umbel.query(stream, Fileno).descriptor)  # error
    umbel.query(stream, Fileno).fd = 5  # error
    name: str = umbel.query(stream, Fileno).fd  # error
    umbel.query(stream, UnreadBytes).wait()  # error
    identity: umbel.PeerIdentity = umbel.query(stream, Fileno)  # error
    allowed: bool = umbel.same_user(stream)  # error
    print(name, identity, allowed)
