"""The names of a stream's two ends, as sockets have them."""

from __future__ import annotations

from typing import TypeAlias

from umbel.address import Address
from umbel.connection import Connection
from umbel.transport import Names

SocketName: TypeAlias = str | tuple[str, int]


def local_name(connection: Connection) -> SocketName:
    """Give our own end's name; "" if it has none."""
    names = connection.query(Names)
    return "" if names is None else _name(names.local)


def remote_name(connection: Connection) -> SocketName:
    """Give the name of the peer's end; "" if it has none."""
    names = connection.query(Names)
    return "" if names is None else _name(names.remote)


def _name(address: Address) -> SocketName:
    host, _, port = address.location.rpartition(":")
    if host and port.isascii() and port.isdigit():
        return host.removeprefix("[").removesuffix("]"), int(port)
    return address.location
