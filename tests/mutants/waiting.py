"""Deadlines, cancellation and several tasks: behaviours 42 to 60."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import umbel
from tests.mutants.making import (
    Base,
    ListenerProxy,
    Mutant,
    Proxy,
    close_by,
    mutant,
)
from umbel._kernel.coroutine import Coroutine
from umbel.spi import (
    BrokenStreamError,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    ListenContext,
    Listener,
    PairContext,
    SocketStream,
    Stream,
    hookimpl,
    now,
)
from umbel.streams import sending
from umbel.streams.connection import Connection
from umbel.streams.uses import send_by
from umbel_transports import mem

A = TypeVar("A")


@mutant(42, "too early")
class GivesUpEarly(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return self.inner.receive_into(buffer, deadline - 30 if deadline > 0 else -1)


@mutant(42, "bsend came")
class GivesUpLate(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers, deadline + 100 if deadline > 0 else deadline)


@mutant(42, "hangs: accept")
class AcceptsForEver(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        return super().accept(-1)


@mutant(43, r"DeadlineError: .*brecv\(left, 2")
class NeverTriesOnce(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if 0 <= deadline <= now():
            raise DeadlineError
        return self.inner.receive_into(buffer, deadline)


@mutant(43, "hangs: bsend")
class WaitsForRoomAtADeadlineOf0(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers, deadline or -1)


@mutant(43, "hangs: connect", scheme="ipc")
class ConnectsForEverOnceItIsLate(Mutant):
    """Makes a timeout of the deadline, and takes one below 0 for none."""

    def do_connect(self, context: ConnectContext) -> Stream:
        is_late = 0 < context.deadline <= now()
        deadline = -1 if is_late else context.deadline
        until = ConnectContext(context.address, deadline, context.options)
        return self.base.connect(until)


@mutant(44, "a close without a deadline")
class TakesNoDeadlineForThePast(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        def drain(stream: Stream, context: CloseContext) -> int:
            if context.deadline <= now():
                raise DeadlineError
            return stream.receive_into(memoryview(bytearray(9)), context.deadline)

        return close_by(context, drain)


@mutant(44, "gave up")
class WaitsASecondForEver(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        limit = now() + 100
        return self.inner.receive_into(buffer, limit if deadline < 0 else deadline)


@mutant(44, "hangs: receive")
class BelievesTheWallClock(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        end = time.time() + (deadline - now()) / 1000
        while deadline > 0 and time.time() < end:
            try:
                return self.inner.receive_into(buffer, now() + 5)
            except DeadlineError:
                continue
        return self.inner.receive_into(buffer, min(deadline, 0))


@mutant(44, "receive used [0-9]+% of a processor")
class SpinsInReceive(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        while True:
            try:
                return self.inner.receive_into(buffer, 0)
            except DeadlineError:
                if 0 <= deadline <= now():
                    raise
                umbel.yield_()


@mutant(44, "accept used [0-9]+% of a processor")
class SpinsInAccept(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        while True:
            try:
                return super().accept(0)
            except DeadlineError:
                if 0 <= deadline <= now():
                    raise
                umbel.yield_()


@mutant(45, "BrokenStreamError: .*bsend")
class BreaksBothDirections(Proxy):
    is_broken = False

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        try:
            return self.inner.receive_into(buffer, deadline)
        except DeadlineError:
            self.is_broken = True
            raise

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        if self.is_broken:
            raise BrokenStreamError
        self.inner.send(buffers, deadline)


@mutant(46, "bytes were lost")
class LosesBytesOfATimedOutReceive(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = self.inner.receive_into(buffer, deadline)
        if 0 < deadline <= now():
            raise DeadlineError
        return count


@mutant(46, "bytes were lost")
class LosesBytesWhereItAccepted(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        return LosesBytesOfATimedOutReceive(self.inner.accept(deadline))


@mutant(46, "bytes were lost", driver="asyncio")
class LosesBytesOfPairs(Mutant):
    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        left, right = mem.transport.pair(context)
        return LosesBytesOfATimedOutReceive(left), LosesBytesOfATimedOutReceive(right)


@mutant(46, "bytes were lost", driver="threads")
class LosesBytesWhereItConnected(Mutant):
    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        return LosesBytesOfATimedOutReceive(self.base.connect(context))


@mutant(47, "bytes_done")
class ForgetsHowMuchItSent(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            self.inner.send(buffers, deadline)
        except DeadlineError:
            raise DeadlineError from None


@mutant(48, "sipped at")
class RestartsTheDeadlineOfSends(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        span = deadline - now()
        for view in buffers:
            for at in range(0, view.nbytes, 20_000):
                until = now() + span if deadline > 0 else deadline
                self.inner.send([view[at : at + 20_000]], until)


@mutant(48, "close that is dripped at")
class RestartsTheDeadlineOfCloses(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        def drain(stream: Stream, context: CloseContext) -> int:
            scratch = memoryview(bytearray(1 << 16))
            span = context.deadline - now()
            while stream.receive_into(scratch, now() + span):
                pass
            return 0

        return close_by(context, drain)


@mutant(49, "of a processor", driver="threads", scheme="ipc")
class SpinsAtAFullBacklog(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        while True:
            try:
                at_once = ConnectContext(context.address, 0, context.options)
                return self.base.connect(at_once)
            except DeadlineError:
                if now() >= context.deadline:
                    raise


@mutant(49, "DeadlineError must come", driver="threads", scheme="ipc")
class TellsTheDeadlinePlainly(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            return self.base.connect(context)
        except DeadlineError:
            raise TimeoutError(errno.ETIMEDOUT, "timed out") from None


@mutant(49, "32 connections", driver="threads", scheme="ipc")
class ConnectsToNobody(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            at_once = ConnectContext(context.address, 0, context.options)
            return self.base.connect(at_once)
        except DeadlineError:
            return SocketStream(socket.socket(socket.AF_UNIX))


@mutant(49, "a backlog of 1 took 32")
class HasALargerBacklog(Mutant):
    """As a plain `sock.listen()` has."""

    backlog = 128

    def do_listen(self, context: ListenContext) -> Listener:
        listening = ListenContext(context.address, self.backlog, context.options)
        return self.base.listen(listening)


@mutant(49, "a backlog of 1 took 32", scheme="ipc")
class HasALargerBacklogInTheKernel(HasALargerBacklog):
    pass


@mutant(49, "a backlog of 20 took only 5")
class HasASmallerBacklog(HasALargerBacklog):
    backlog = 5


@mutant(50, "a canceled call gave ETIMEDOUT")
class TakesCancellationForTheDeadline(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        try:
            return self.inner.receive_into(buffer, deadline)
        except umbel.Canceled:
            raise DeadlineError from None


@mutant(51, r"BrokenStreamError: .*closing\.result")
class BreaksWhenCanceled(Proxy):
    is_broken = False

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if self.is_broken:
            raise BrokenStreamError
        try:
            return self.inner.receive_into(buffer, deadline)
        except umbel.Canceled:
            self.is_broken = True
            raise


@mutant(52, "bytes|DeadlineError: .*receive")
class LosesBytesOfACanceledReceive(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = self.inner.receive_into(buffer, deadline)
        umbel.msleep(now() + 3)  # canceled in here, the byte is gone
        return count


@mutant(54, "a cancellation came")
class DefersCancellation(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        try:
            return self.inner.receive_into(buffer, deadline)
        except umbel.Canceled:
            time.sleep(0.1)
            raise


# Two users of one direction: core keeps them apart, so it is core that is broken here.


@mutant(55, "a second send gave None")
class SwallowsBusy(Mutant):
    def __init__(self, base: Base) -> None:
        super().__init__(base)

        def swallow(
            me: Coroutine,
            connection: Connection,
            call: Callable[[A, int], None],
            data: A,
            deadline: int,
        ) -> None:
            try:
                send_by(me, connection, call, data, deadline)
            except umbel.BusyError:
                pass

        setattr(sending, "send_by", swallow)  # noqa: B010 - it is not sending's own


@mutant(56, r"DeadlineError|hangs", driver="threads")
class HasOneLockForBothDirections(Proxy):
    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.lock = threading.Lock()

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        with self.lock:
            self.inner.send(buffers, deadline)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        with self.lock:
            return self.inner.receive_into(buffer, deadline)


@mutant(60, "another thread failed")
class BelongsToItsThread(Proxy):
    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.thread = threading.get_ident()

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        assert self.thread == threading.get_ident(), "that is another's stream"
        return self.inner.receive_into(buffer, deadline)
