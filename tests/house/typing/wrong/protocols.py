"""Streams and listeners that lack a method, or have another one of that name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from umbel.spi import (
    Address,
    ConnectContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    hookimpl,
)

T = TypeVar("T")


class Good:
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None: ...

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def done(self, deadline: int) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class WithoutDone:
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None: ...

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class SendsBytes(Good):
    def send(self, buffers: bytes, deadline: int) -> None: ...  # error


class SendsOnce:
    def send(self, buffers: bytes, deadline: int) -> None: ...

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def done(self, deadline: int) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class ReceivesBytes:
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None: ...

    def receive_into(self, buffer: memoryview, deadline: int) -> bytes:
        return b""

    def done(self, deadline: int) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class NeverWaits:
    def send(self, buffers: Sequence[memoryview]) -> None: ...

    def receive_into(self, buffer: memoryview) -> int:
        return 0

    def done(self) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class Async:
    async def send(self, buffers: Sequence[memoryview], deadline: int) -> None: ...

    async def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    async def done(self, deadline: int) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class QueriesByName:
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None: ...

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def done(self, deadline: int) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: str) -> object: ...


class WithoutAddress:
    def accept(self, deadline: int) -> Stream:
        return Good()

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class AddressIsText:
    def __init__(self) -> None:
        self.address = "mem://x"

    def accept(self, deadline: int) -> Stream:
        return Good()

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class AcceptsNothing:
    def __init__(self, address: Address) -> None:
        self.address = address

    def accept(self, deadline: int) -> None: ...

    def abort(self) -> None: ...

    def query(self, kind: type[T]) -> T | None: ...


class ByResult:
    @hookimpl.connect  # error
    def without_done(self, context: ConnectContext) -> WithoutDone:
        return WithoutDone()

    @hookimpl.listen  # error
    def without_address(self, context: ListenContext) -> WithoutAddress:
        return WithoutAddress()

    @hookimpl.pair  # error
    def one_good(self, context: PairContext) -> tuple[Good, ReceivesBytes]:
        return Good(), ReceivesBytes()


class ByReturn:
    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        match context.deadline:
            case 0:
                return WithoutDone()  # error
            case 1:
                return SendsOnce()  # error
            case 2:
                return ReceivesBytes()  # error
            case _:
                return Good()

    @hookimpl.connect
    def connect_too(self, context: ConnectContext) -> Stream:
        match context.deadline:
            case 3:
                return NeverWaits()  # error
            case 4:
                return Async()  # error
            case _:
                return QueriesByName()  # error

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        match context.backlog:
            case 0:
                return WithoutAddress()  # error
            case 1:
                return AddressIsText()  # error
            case _:
                return AcceptsNothing(context.address)  # error
