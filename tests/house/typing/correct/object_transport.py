"""A transport that is an object, written against the protocols alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, assert_type

import umbel
from umbel.spi import (
    Address,
    AdoptContext,
    BadHandleError,
    BrokenStreamError,
    CloseContext,
    CloseReport,
    ConnectContext,
    ListenContext,
    Listener,
    NotSupportedError,
    PairContext,
    Stream,
    Traits,
    WaitQueue,
    hookimpl,
    shut_down,
    take_options,
)
from umbel.testing.transports import transport_at_hand

T = TypeVar("T")


class Lane:
    """One direction: the bytes on their way, and whether more will come."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.has_ended = False
        self.changed = WaitQueue()


class Minimal:
    """Has what `Stream` asks for, and does not name it."""

    def __init__(self, outbound: Lane, inbound: Lane) -> None:
        self.outbound = outbound
        self.inbound = inbound

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        for buffer in buffers:
            self.outbound.content += buffer
        self.outbound.changed.wake_all()

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        while True:
            ticket = self.inbound.changed.ticket()
            if self.inbound.content:
                break
            if self.inbound.has_ended:
                return 0
            self.inbound.changed.wait(ticket, deadline)
        count = min(len(buffer), len(self.inbound.content))
        buffer[:count] = self.inbound.content[:count]
        del self.inbound.content[:count]
        return count

    def done(self, deadline: int) -> None:
        self.outbound.has_ended = True
        self.outbound.changed.wake_all()

    def abort(self) -> None:
        self.done(0)

    def query(self, kind: type[T]) -> T | None:
        return None


class Nobody:
    """Has what `Listener` asks for."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def accept(self, deadline: int) -> Stream:
        raise BadHandleError

    def abort(self) -> None:
        pass

    def query(self, kind: type[T]) -> T | None:
        return None


class MinimalTransport:
    """Every hook that a transport may have."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        take_options(context.options, size=int, name=(str, bytes))
        assert_type(context.backlog, int)
        return Nobody(context.address)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Minimal:
        assert_type(context.address, Address)
        assert_type(context.deadline, int)
        raise BrokenStreamError

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Minimal, Minimal]:
        there, back = Lane(), Lane()
        return Minimal(there, back), Minimal(back, there)

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> Minimal | Nobody:
        assert_type(context.fd, int)
        raise NotSupportedError

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        assert_type(context.endpoint, Stream | Listener)
        return shut_down(context)

    @hookimpl.traits
    def traits(self) -> Traits:
        return Traits(address="minimal://{name}", half_close=True)


def main() -> None:
    transport = MinimalTransport()
    assert_type(transport.pair(PairContext("minimal", {})), tuple[Stream, Stream])
    with transport_at_hand(transport, "minimal"):
        left, right = umbel.pair("minimal")
        with right, left:
            left.send(b"hello")
            assert right.receive() == b"hello"
            right.done()
            left.done()


if __name__ == "__main__":
    main()
