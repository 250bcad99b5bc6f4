"""Bytes and ends: behaviours 1 to 21."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from typing import TypeVar, cast

from tests.mutants.making import (
    Mutant,
    Proxy,
    fd_of,
    mutant,
)
from umbel.spi import (
    BrokenStreamError,
    DeadlineError,
    NotSupportedError,
    Stream,
    StreamAttempts,
    Traits,
)

T = TypeVar("T")


@mutant(1, r"DeadlineError: .*t\.receive\(receiver")
class WaitsForASecondByte(Proxy):
    kept = b""

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.kept += b"".join(buffers)
        if len(self.kept) > 1:
            kept, self.kept = self.kept, b""
            self.inner.send([memoryview(kept)], deadline)


@mutant(1, "the class of what was received: <class 'bytearray'>")
class AttemptsToGiveABytearray(Proxy):
    """Core gives on what an attempt gives."""

    def query(self, kind: type[T]) -> T | None:
        if kind is not StreamAttempts:
            return super().query(kind)
        inner = self.inner.query(StreamAttempts)
        assert inner is not None
        attempts: StreamAttempts = inner

        def receive(max_bytes: int) -> bytes | None:
            data = attempts.receive(max_bytes)
            return None if data is None else cast("bytes", bytearray(data))

        found = StreamAttempts(receive, attempts.send, attempts.readiness)
        return cast("T", found)


@mutant(2, "EndOfStreamError|BrokenStreamError")
class TakesAnEmptySendForTheEnd(Proxy):
    """As one of messages does, whose end is a message without bytes."""

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers, deadline)
        if not any(view.nbytes for view in buffers):
            self.inner.done(deadline)


@mutant(3, r"a list received|DeadlineError: .*brecv\(right, 14")
class SendsOneBufferOnly(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send([buffers[0] for _ in buffers], deadline)


@mutant(4, "held after the send")
class KeepsBuffers(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.last = [*buffers]
        self.inner.send(buffers, deadline)


@mutant(4, "held after the receive")
class KeepsTheBufferOfAReceive(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        self.last = buffer
        return self.inner.receive_into(buffer, deadline)


@mutant(7, "after a skip|DeadlineError")
class ThrowsTheRestAway(Proxy):
    """As one of messages does: what a receive has no room for is lost."""

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        whole = memoryview(bytearray(1 << 16))
        count = min(self.inner.receive_into(whole, deadline), buffer.nbytes)
        buffer[:count] = whole[:count]
        return count


@mutant(9, "did not arrive as it was sent")
class DoublesAPiece(Proxy):
    total = 0

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers, deadline)
        self.total += sum(view.nbytes for view in buffers)
        if self.total == 500 * 1024:
            self.inner.send(buffers, deadline)


@mutant(4, "changed after it")
class SendsLater(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        if sum(view.nbytes for view in buffers) > 1000:
            self.inner.send(buffers, deadline)
        else:
            threading.Timer(0.02, self.inner.send, (buffers, deadline)).start()


@mutant(4, r"DeadlineError: .* in `receiving\.result")
class SendsNotAll(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send([view[:100_000] for view in buffers], deadline)


@mutant(8, "received: .*cdab")
class SendsListsBackwards(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers[::-1], deadline)


@mutant(10, "empty piece")
class GivesEmptyPieces(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        try:
            return self.inner.receive_into(buffer, 0)
        except DeadlineError:
            return 0


@mutant(12, "256 MiB found room", driver="threads")
class BuffersWithoutLimit(Proxy):
    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.waiting: list[memoryview] = []

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.waiting += buffers
        try:
            while self.waiting:
                self.inner.send(self.waiting[:1], 0)
                self.waiting.pop(0)
        except DeadlineError as error:
            self.waiting[0] = self.waiting[0][error.bytes_done :]


@mutant(14, "brecv gave ETIMEDOUT")
class IgnoresDone(Proxy):
    def done(self, deadline: int) -> None:
        pass


@mutant(15, "BrokenStreamError: .*receive_into")
class EndsOnlyOnce(Proxy):
    has_ended = False

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if self.has_ended:
            raise BrokenStreamError
        count = self.inner.receive_into(buffer, deadline)
        self.has_ended = not count
        return count


@mutant(14, r"BrokenStreamError|ECONNRESET")
class EndsByAReset(Proxy):
    """The peer of one that ended is told that it broke."""

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = self.inner.receive_into(buffer, deadline)
        if not count:
            raise BrokenStreamError
        return count


@mutant(17, r"EndOfStreamError: .*brecv\(ended")
class EndsBothDirections(Proxy):
    def done(self, deadline: int) -> None:
        with socket.socket(fileno=os.dup(fd_of(self.inner))) as sock:
            sock.shutdown(socket.SHUT_RDWR)


@mutant(21, "declared impossible, gave|declared impossible")
class DeclaresNoHalfClose(Mutant):
    def do_traits(self) -> Traits:
        traits = self.base.traits()
        return Traits(traits.address, traits.capabilities, half_close=False)


@mutant(21, "NotSupportedError")
class RefusesDone(Proxy):
    def done(self, deadline: int) -> None:
        raise NotSupportedError
