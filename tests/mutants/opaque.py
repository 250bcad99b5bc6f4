"""opaque://name - streams that answer to the names of the protocol, and to no other.

What core needs besides would be found missing here: an attribute, a place for a weak
reference, a capability. It is `mem`, seen through a keyhole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from umbel.spi import (
    Address,
    ConnectContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Traits,
    hookimpl,
)
from umbel_transports import mem

T = TypeVar("T")

#: What anyone has asked for that is no name of the protocol.
asked_for: set[str] = set()


class Opaque:
    """Has no attribute but those that a subclass lists."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        asked_for.add(f"{type(self).__name__}.{name}")
        raise AttributeError(name)


class OpaqueStream(Opaque):
    __slots__ = ("__inner",)

    def __init__(self, inner: Stream) -> None:
        self.__inner = inner

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.__inner.send(buffers, deadline)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return self.__inner.receive_into(buffer, deadline)

    def done(self, deadline: int) -> None:
        self.__inner.done(deadline)

    def abort(self) -> None:
        self.__inner.abort()

    def query(self, kind: type[T]) -> T | None:
        return None


class OpaqueListener(Opaque):
    __slots__ = ("__inner", "address")

    def __init__(self, inner: Listener, address: Address) -> None:
        self.__inner = inner
        self.address = address

    def accept(self, deadline: int) -> Stream:
        return OpaqueStream(self.__inner.accept(deadline))

    def abort(self) -> None:
        self.__inner.abort()

    def query(self, kind: type[T]) -> T | None:
        return None


class OpaqueTransport:
    """Has none of the hooks that it can do without."""

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        left, right = mem.transport.pair(context)
        return OpaqueStream(left), OpaqueStream(right)

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        return OpaqueListener(mem.transport.listen(context), context.address)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        return OpaqueStream(mem.transport.connect(context))

    @hookimpl.traits
    def traits(self) -> Traits:
        return Traits("opaque://{name}")


transport = OpaqueTransport()
