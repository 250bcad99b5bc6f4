"""Transports that are broken on purpose, each in one way that real ones were.

    python -m tests.mutants NAME        tries the behaviour meant for it, and tells

Each is a working transport with one thing changed. What is changed is a proxy round a
stream or listener where that is enough, and the transport itself where it is not.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import umbel
from umbel.connection import Connection
from umbel.registry import find_transport, remove_transport
from umbel.spi import (
    AdoptContext,
    BrokenStreamError,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    DescriptorPassing,
    DirectReceive,
    DirectSend,
    Fileno,
    ListenContext,
    Listener,
    PairContext,
    PeerIdentity,
    SocketStream,
    Stream,
    Traits,
    UnreadBytes,
    hookimpl,
    now,
    shut_down,
)
from umbel.testing import transport_at_hand
from umbel.testing.conformance import BEHAVIOURS, Subject, Trial, try_behaviour
from umbel_transports import ipc, mem, tcp

T = TypeVar("T")

#: Seconds that what never comes is waited for: the whole point is that it doesn't.
PATIENCE = 1.5


class Proxy:
    """A stream that does what another does. Nothing faster: all calls come here."""

    def __init__(self, inner: Stream) -> None:
        self.inner = inner

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers, deadline)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return self.inner.receive_into(buffer, deadline)

    def done(self, deadline: int) -> None:
        self.inner.done(deadline)

    def abort(self) -> None:
        self.inner.abort()

    def query(self, kind: type[T]) -> T | None:
        if kind in (DirectReceive, DirectSend):
            return None
        return self.inner.query(kind)


class ListenerProxy:
    """A listener that does what another does."""

    def __init__(self, inner: Listener, wrap: Callable[[Stream], Stream]) -> None:
        self.inner = inner
        self.wrap = wrap
        self.address = inner.address

    def accept(self, deadline: int) -> Stream:
        return self.wrap(self.inner.accept(deadline))

    def abort(self) -> None:
        self.inner.abort()

    def query(self, kind: type[T]) -> T | None:
        return self.inner.query(kind)


Base = ipc.IpcTransport | mem.MemTransport | tcp.TcpTransport


class Mutant:
    """A transport that does what another does, but for what a subclass changes."""

    stream: type[Proxy] = Proxy
    listener: type[ListenerProxy] = ListenerProxy

    def __init__(self, base: Base) -> None:
        self.base = base

    def wrap(self, stream: Stream) -> Stream:
        return self.stream(stream)

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        return self.listener(self.do_listen(context), self.wrap)

    def do_listen(self, context: ListenContext) -> Listener:
        return self.base.listen(context)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        return self.wrap(self.do_connect(context))

    def do_connect(self, context: ConnectContext) -> Stream:
        return self.base.connect(context)

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        assert not isinstance(self.base, tcp.TcpTransport)
        left, right = self.base.pair(context)
        return self.wrap(left), self.wrap(right)

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> Stream | Listener:
        return self.do_adopt(context)

    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        return self.base.adopt(context)

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        return self.do_close(context)

    def do_close(self, context: CloseContext) -> CloseReport:
        return shut_down(context)

    @hookimpl.traits
    def traits(self) -> Traits:
        return self.do_traits()

    def do_traits(self) -> Traits:
        return self.base.traits()


class TcpMutant(Mutant):
    """One that can't make pairs, as TCP can't: its hook is not there."""

    pair = None  # type: ignore[assignment]


class Entry(NamedTuple):
    number: int
    driver: str
    scheme: str
    make: Callable[[Base], object]


MUTANTS: dict[str, Entry] = {}
BASES: dict[str, Base] = {
    "ipc": ipc.transport,
    "mem": mem.transport,
    "tcp": tcp.transport,
}


def mutant(
    number: int, driver: str = "coroutines", scheme: str = "mem"
) -> Callable[[type], type]:
    """Enter a changed stream, listener or transport, meant for behaviour *number*."""

    def enter(changed: type) -> type:
        def make(base: Base) -> object:
            kind: type[Mutant] = TcpMutant if scheme == "tcp" else Mutant
            if issubclass(changed, Mutant):
                return changed(base)
            name = "stream" if issubclass(changed, Proxy) else "listener"
            return type(changed.__name__, (kind,), {name: changed})(base)

        MUTANTS[changed.__name__] = Entry(number, driver, scheme, make)
        return changed

    return enter


def fd_of(stream: Stream) -> int:
    found = stream.query(Fileno)
    assert found is not None
    return found.fd


# Bytes.


@mutant(4)
class SendsLater(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        if sum(view.nbytes for view in buffers) > 1000:
            self.inner.send(buffers, deadline)
        else:
            threading.Timer(0.02, self.inner.send, (buffers, deadline)).start()


@mutant(4)
class SendsNotAll(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send([view[:100_000] for view in buffers], deadline)


@mutant(8)
class SendsListsBackwards(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers[::-1], deadline)


@mutant(10)
class GivesEmptyPieces(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        try:
            return self.inner.receive_into(buffer, now() + 1)
        except DeadlineError:
            return 0


@mutant(12, "threads")
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


# Ends.


@mutant(14)
class IgnoresDone(Proxy):
    def done(self, deadline: int) -> None:
        pass


@mutant(15)
class EndsOnlyOnce(Proxy):
    has_ended = False

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if self.has_ended:
            raise BrokenStreamError
        count = self.inner.receive_into(buffer, deadline)
        self.has_ended = not count
        return count


@mutant(17)
class EndsBothDirections(Proxy):
    def done(self, deadline: int) -> None:
        with socket.socket(fileno=os.dup(fd_of(self.inner))) as sock:
            sock.shutdown(socket.SHUT_RDWR)


# Closing.


@mutant(19)
class ClosesAtOnce(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        stream = cast("Stream", context.endpoint)
        if not isinstance(stream, ListenerProxy):
            # As one with a buffer of its own that a close does not send.
            fd = fd_of(stream)
            with socket.socket(fileno=os.dup(fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        return CloseReport()


def close_by(
    context: CloseContext, drain: Callable[[Stream, CloseContext], int]
) -> CloseReport:
    if isinstance(context.endpoint, ListenerProxy):
        return shut_down(context)
    stream = cast("Stream", context.endpoint)
    if not context.is_done:
        stream.done(context.deadline)
    return CloseReport(None, 0 if context.has_ended else drain(stream, context))


@mutant(26)
class StopsDrainingAtTheFirstRead(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        def drain(stream: Stream, context: CloseContext) -> int:
            return stream.receive_into(memoryview(bytearray(1 << 20)), context.deadline)

        return close_by(context, drain)


@mutant(27)
class DrainsWithoutLimit(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        def drain(stream: Stream, context: CloseContext) -> int:
            scratch = memoryview(bytearray(1 << 16))
            total = 0
            while count := stream.receive_into(scratch, context.deadline):
                total += count
            return total

        return close_by(context, drain)


@mutant(28)
class HidesWhatWasNotRead(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except ConnectionResetError:
            return CloseReport(True)


@mutant(29, "threads", "tcp")
class DoesNotDrain(TcpMutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        return close_by(context, lambda _stream, _context: 0)


@mutant(32)
class ClosesOnlyInTime(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        if context.deadline == 0:
            raise DeadlineError
        return shut_down(context)


@mutant(36)
class LingersInAbort(Proxy):
    def abort(self) -> None:
        time.sleep(0.2)
        self.inner.abort()


@mutant(37)
class AbortsWithoutClosing(Proxy):
    def abort(self) -> None:
        if fd_of(self.inner) >= 0:
            os.dup(fd_of(self.inner))
        self.inner.abort()


@mutant(39, "threads")
class WaitsOutsideTheHub(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        select.select([fd_of(self.inner)], [], [], 1)
        return self.inner.receive_into(buffer, deadline)


@mutant(40, scheme="ipc")
class RaisesSignals(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            os.writev(fd_of(self.inner), buffers)
        except BrokenPipeError:
            raise BrokenStreamError from None


@mutant(41)
class ClosesTwice(Proxy):
    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.fd = fd_of(inner)

    def abort(self) -> None:
        if fd_of(self.inner) >= 0:
            self.inner.abort()
            return
        try:
            os.close(self.fd)
        except OSError:
            pass


# Deadlines.


@mutant(42)
class GivesUpEarly(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return self.inner.receive_into(buffer, deadline - 30 if deadline > 0 else -1)


@mutant(42)
class GivesUpLate(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        self.inner.send(buffers, deadline + 100 if deadline > 0 else deadline)


@mutant(42)
class AcceptsForEver(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        return super().accept(-1)


@mutant(43)
class NeverTriesOnce(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if 0 <= deadline <= now():
            raise DeadlineError
        return self.inner.receive_into(buffer, deadline)


@mutant(44)
class WaitsASecondForEver(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        limit = now() + 100
        return self.inner.receive_into(buffer, limit if deadline < 0 else deadline)


@mutant(44)
class BelievesTheWallClock(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        end = time.time() + (deadline - now()) / 1000
        while deadline > 0 and time.time() < end:
            try:
                return self.inner.receive_into(buffer, now() + 5)
            except DeadlineError:
                continue
        return self.inner.receive_into(buffer, min(deadline, 0))


@mutant(45)
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


@mutant(46)
class LosesBytesOfATimedOutReceive(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = self.inner.receive_into(buffer, deadline)
        if 0 < deadline <= now():
            raise DeadlineError
        return count


@mutant(47)
class ForgetsHowMuchItSent(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            self.inner.send(buffers, deadline)
        except DeadlineError:
            raise DeadlineError from None


@mutant(48)
class RestartsTheDeadlineOfSends(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        span = deadline - now()
        for view in buffers:
            for at in range(0, view.nbytes, 20_000):
                until = now() + span if deadline > 0 else deadline
                self.inner.send([view[at : at + 20_000]], until)


@mutant(48)
class RestartsTheDeadlineOfCloses(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        def drain(stream: Stream, context: CloseContext) -> int:
            scratch = memoryview(bytearray(1 << 16))
            span = context.deadline - now()
            while stream.receive_into(scratch, now() + span):
                pass
            return 0

        return close_by(context, drain)


@mutant(49, "threads", "ipc")
class SpinsAtAFullBacklog(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        while True:
            try:
                at_once = ConnectContext(context.address, 0, context.options)
                return self.base.connect(at_once)
            except DeadlineError:
                if now() >= context.deadline:
                    raise


@mutant(49, "threads", "ipc")
class ConnectsToNobody(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            at_once = ConnectContext(context.address, 0, context.options)
            return self.base.connect(at_once)
        except DeadlineError:
            return SocketStream(socket.socket(socket.AF_UNIX))


@mutant(52)
class LosesBytesOfACanceledReceive(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = self.inner.receive_into(buffer[:1], deadline)
        umbel.yield_()
        umbel.msleep(now() + 1)  # canceled in here, the byte is gone
        return count


# Several tasks: this is in core, so that it is core that must be broken.


@mutant(55)
class SwallowsBusy(Mutant):
    def __init__(self, base: Base) -> None:
        super().__init__(base)

        def outbound(
            connection: Connection,
            _me: object,
            call: Callable[[object, int], None],
            data: object,
            deadline: int,
        ) -> None:
            call(data, deadline)

        Connection.outbound = outbound  # type: ignore[assignment,method-assign]


# Listeners.


@mutant(61)
class AcceptsTheNewestFirst(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        inner = cast("mem.MemListener", self.inner)
        inner._queue.reverse()
        try:
            return super().accept(deadline)
        finally:
            inner._queue.reverse()


@mutant(66, "threads")
class ForgetsItsQueue(ListenerProxy):
    kept: list[object] = []  # noqa: RUF012 - for all of them

    def abort(self) -> None:
        inner = cast("mem.MemListener", self.inner)
        self.kept += inner._queue
        inner._queue.clear()
        super().abort()


@mutant(67, scheme="tcp")
class TellsTheWrongAddress(ListenerProxy):
    def __init__(self, inner: Listener, wrap: Callable[[Stream], Stream]) -> None:
        super().__init__(inner, wrap)
        self.address = umbel.Address("tcp", "127.0.0.1:0")


@mutant(69, scheme="ipc")
class SwallowsEmfile(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        while True:
            try:
                return super().accept(deadline)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                umbel.msleep(now() + 10)
                if 0 < deadline <= now():
                    raise DeadlineError from None


@mutant(70)
class ShakesHandsInAccept(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        stream = super().accept(deadline)
        assert isinstance(stream, Proxy)
        umbel.fdin(fd_of(stream), deadline)
        return stream


@mutant(71, scheme="ipc")
class StealsALiveAddress(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        place = context.address.location
        if os.path.exists(place) and not os.path.isfile(place):
            os.unlink(place)
        return self.base.listen(context)


@mutant(71, scheme="ipc")
class RemovesAnyFile(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        if os.path.isfile(context.address.location):
            os.unlink(context.address.location)
        return self.base.listen(context)


@mutant(71, scheme="ipc")
class ForgetsTheInodeCheck(ListenerProxy):
    def abort(self) -> None:
        super().abort()
        try:
            os.unlink(self.address.location)
        except OSError:
            pass


@mutant(72, scheme="ipc")
class TakesAFullBacklogForStale(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        try:
            self.base.connect(ConnectContext(context.address, 0, {})).abort()
        except DeadlineError:
            os.unlink(context.address.location)
        except OSError:
            pass
        return self.base.listen(context)


@mutant(73, "threads", "ipc")
class UnlinksInAChild(ListenerProxy):
    def abort(self) -> None:
        cast("ipc.IpcListener", self.inner)._owner_pid = os.getpid()
        super().abort()


# Capabilities, leaks, manners.


@mutant(74)
class ForgetsCloseOnExec(Proxy):
    def query(self, kind: type[T]) -> T | None:
        found = super().query(kind)
        if not isinstance(found, DescriptorPassing):
            return found
        passing: DescriptorPassing = found

        def receive(size: int, limit: int, deadline: int) -> tuple[bytes, list[int]]:
            data, descriptors = passing.receive(size, limit, deadline)
            for fd in descriptors:
                os.set_inheritable(fd, True)
            return data, descriptors

        return cast("T", DescriptorPassing(passing.send, receive))


@mutant(74)
class LeaksDescriptors(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        while True:
            try:
                with socket.socket(fileno=os.dup(fd_of(self.inner))) as sock:
                    flags = socket.MSG_DONTWAIT
                    return sock.recvmsg_into([buffer], 1024, flags)[0]
            except BlockingIOError:
                umbel.fdin(fd_of(self.inner), deadline)


@mutant(75, scheme="ipc")
class TakesUsForThePeer(Proxy):
    def query(self, kind: type[T]) -> T | None:
        if kind is not PeerIdentity:
            return super().query(kind)
        return cast("T", PeerIdentity(os.getpid(), os.geteuid(), os.getegid()))


@mutant(76)
class DeclaresWhatItLacks(Proxy):
    def query(self, kind: type[T]) -> T | None:
        return None if kind is UnreadBytes else super().query(kind)


@mutant(76)
class LacksADeclaration(Mutant):
    def do_traits(self) -> Traits:
        return Traits("mem://{name}", self.base.traits().capabilities - {UnreadBytes})


@mutant(76)
class CountsWhatWasSentAsRead(Proxy):
    def query(self, kind: type[T]) -> T | None:
        if kind is not UnreadBytes:
            return super().query(kind)
        return cast("T", UnreadBytes(lambda: True, _never_wait))


def _never_wait(deadline: int) -> None:
    pass


@mutant(78, scheme="ipc")
class LeaksAtACanceledConnect(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            return self.base.connect(context)
        except umbel.Canceled:
            os.open(os.devnull, os.O_RDONLY)
            raise


@mutant(78, scheme="ipc")
class LeaksAtARefusedConnect(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            return self.base.connect(context)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
            raise


@mutant(79)
class ClosesWhatItRefuses(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        try:
            return self.base.adopt(context)
        except OSError:
            if context.fd >= 0:
                os.close(context.fd)
            raise


@mutant(80)
class TakesAnyOption(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        return self.base.connect(ConnectContext(context.address, context.deadline, {}))


def main(name: str) -> None:
    """Try the behaviour that is meant for a mutant; print what the kit finds."""
    entry = MUTANTS[name]
    find_transport(entry.scheme)
    remove_transport(entry.scheme)
    Trial.patience = PATIENCE
    with transport_at_hand(entry.make(BASES[entry.scheme]), entry.scheme):
        subject = Subject(entry.scheme)
        verdict = try_behaviour(BEHAVIOURS[entry.number], subject, entry.driver)
    print(verdict.state, verdict.reason)
    sys.stdout.flush()
    os._exit(0)  # whatever it has left running


if __name__ == "__main__":
    main(sys.argv[1])
