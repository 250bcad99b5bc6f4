"""A program that writes down the types which umbel's own signatures mention."""

from __future__ import annotations

from typing import TypeVar

import umbel
from umbel.spi import Canceled, UmbelError
from umbel.typing import (
    AnyStream,
    Buffer,
    Clause,
    HandleObject,
    Inbound,
    Outbound,
    WritableBuffer,
)

T = TypeVar("T")


class Counter:
    def __init__(self) -> None:
        self.closed = 0

    def query(self, kind: type[T]) -> T | None:
        return self if isinstance(self, kind) else None

    def close(self) -> None:
        self.closed += 1


def own(obj: HandleObject) -> umbel.Handle:
    return umbel.hmake(obj)


def send(stream: umbel.StreamHandle, data: Buffer) -> None:
    umbel.bsend(stream, data)


def fill(stream: umbel.StreamHandle, target: WritableBuffer) -> None:
    umbel.brecv(stream, target)


def clause_to_send(end: Outbound[int]) -> Clause[int]:
    return umbel.Send(end, 5)


def clause_to_receive(end: Inbound[int]) -> Clause[int]:
    return umbel.Recv(end)


def first_of(clauses: list[Clause[int]]) -> int:
    return umbel.choose(clauses)[0]


def number_of(stream: AnyStream) -> int:
    return int(stream)


def describe(error: UmbelError | Canceled) -> int:
    return error.errno


counter = Counter()
umbel.hclose(own(counter))
left, right = umbel.pair()
send(left, b"abc")
fill(right, bytearray(3))
umbel.hclose(left)
umbel.hclose(right)
assert number_of(left) + counter.closed > 1
near, far = umbel.chmake(int)
with near, far, umbel.go(umbel.chrecv, far):
    assert first_of([clause_to_receive(near), clause_to_send(near)]) == 1
assert describe(umbel.DeadlineError()) > 0
