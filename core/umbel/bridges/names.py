"""The names of a stream's two ends, as sockets have them."""

from __future__ import annotations

from typing import TypeAlias

from umbel.streams.connection import Connection
from umbel.transport import Names
from umbel.values.address import Address, split_host

SocketName: TypeAlias = str | tuple[str, int]


def names_of(connection: Connection) -> tuple[SocketName, SocketName]:
    """Give the names of our own end and of the peer's; "" for one that has none."""
    try:
        names = connection.query(Names)
    except OSError:
        names = None  # the peer has gone already
    return ("", "") if names is None else (_name(names.local), _name(names.remote))


def _name(address: Address) -> SocketName:
    found = split_host(address.location)
    return (found[0], int(found[1])) if found and found[0] else address.location
