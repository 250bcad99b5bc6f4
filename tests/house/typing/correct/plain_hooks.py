"""The plain marker keeps the types of what it marks."""

from __future__ import annotations

import socket
from typing import assert_type

from umbel.spi import PairContext, SocketStream, Stream, hookimpl


class Plain:
    @hookimpl
    def umbel_pair(self, context: PairContext) -> tuple[Stream, Stream]:
        left, right = socket.socketpair()
        return SocketStream(left), SocketStream(right)

    @hookimpl()
    def umbel_stop(self) -> None:
        pass


def main() -> None:
    left, right = Plain().umbel_pair(PairContext("plain", {}))
    assert_type(left, Stream)
    left.abort()
    right.abort()


if __name__ == "__main__":
    main()
