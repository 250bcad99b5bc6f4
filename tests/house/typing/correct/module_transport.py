"""A transport that is a module: its hooks are functions."""

from __future__ import annotations

import socket
import sys

import umbel
from umbel.spi import (
    LOCAL_CAPABILITIES,
    CloseContext,
    CloseReport,
    PairContext,
    SocketStream,
    Traits,
    hookimpl,
    shut_down,
)
from umbel.testing.transports import transport_at_hand


@hookimpl.pair
def make(context: PairContext) -> tuple[SocketStream, SocketStream]:
    left, right = socket.socketpair()
    return SocketStream(left), SocketStream(right)


@hookimpl.close
def shut(context: CloseContext) -> CloseReport:
    return shut_down(context)


@hookimpl.traits
def declare() -> Traits:
    return Traits(address="", capabilities=LOCAL_CAPABILITIES)


def main() -> None:
    with transport_at_hand(sys.modules[__name__], "module"):
        left, right = umbel.pair("module")
        with right, left:
            left.send(b"hello")
            assert right.receive() == b"hello"
            right.done()
            left.done()


if __name__ == "__main__":
    main()
