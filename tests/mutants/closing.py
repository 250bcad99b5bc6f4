"""Orderly and hard closes: behaviours 22 to 41."""

from __future__ import annotations

import copy
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import TypeVar, cast

import umbel
from tests.mutants.making import (
    ListenerProxy,
    Mutant,
    Proxy,
    TcpMutant,
    close_by,
    fd_of,
    mutant,
)
from umbel.fd import close_if_open
from umbel.spi import (
    BrokenStreamError,
    CloseContext,
    CloseReport,
    DeadlineError,
    Fileno,
    SocketStream,
    Stream,
    Traits,
    UnreadBytes,
    now,
    shut_down,
)

T = TypeVar("T")


def _changed(context: CloseContext, name: str, value: object) -> CloseContext:
    changed = copy.copy(context)
    vars(changed)[name] = value
    return changed


@mutant(19, "received|EndOfStreamError: .*brecv")
class ForgetsItsBufferInClose(Mutant):
    """Sends by the way of a buffer, which only the next send empties."""

    class Buffering(Proxy):
        kept = b""

        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            kept, self.kept = self.kept, bytes(buffers[-1])
            self.inner.send([memoryview(kept), *buffers[:-1]], deadline)

    stream = Buffering


@mutant(22, "though all was read")
class BlamesThePeer(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        shut_down(context)
        return CloseReport(False)


@mutant(22, "bytes discarded")
class CountsWhatItDidNotDiscard(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        shut_down(context)
        return CloseReport(None, 1)


@mutant(23, r"DeadlineError: .*t\.close\(end, 0\)")
class DrainsAfterTheEnd(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        if context.has_ended and context.deadline <= now():
            raise DeadlineError
        return shut_down(context)


@mutant(23, "calls of `done`")
class EndsAgainInClose(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        return shut_down(_changed(context, "is_done", False))


@mutant(22, "AttributeError: .*is_own")
class ClosesNothingButItsOwnClass(Mutant):
    """It takes the endpoint for what it gave, though a proxy may stand before that."""

    class Own(Proxy):
        is_own = True

    stream = Own

    def do_close(self, context: CloseContext) -> CloseReport:
        assert cast("ClosesNothingButItsOwnClass.Own", context.endpoint).is_own
        return shut_down(context)


@mutant(24, "hangs: close")
class ClosesForEver(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        return close_by(context, drain_for_ever)


def drain_for_ever(stream: Stream, context: CloseContext) -> int:
    scratch = memoryview(bytearray(1 << 16))
    total = 0
    while count := stream.receive_into(scratch, -1):
        total += count
    return total


@mutant(25, "report|discarded")
class ForgetsTheReport(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except DeadlineError:
            raise DeadlineError from None


@mutant(26, "BrokenStreamError|close ended before")
class StopsDrainingAtTheFirstRead(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        def drain(stream: Stream, context: CloseContext) -> int:
            return stream.receive_into(memoryview(bytearray(1 << 20)), context.deadline)

        return close_by(context, drain)


@mutant(27, "instead of EMSGSIZE")
class DrainsWithoutLimit(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        return close_by(context, drain_to_the_end)


def drain_to_the_end(stream: Stream, context: CloseContext) -> int:
    scratch = memoryview(bytearray(1 << 16))
    total = 0
    while count := stream.receive_into(scratch, context.deadline):
        total += count
    return total


@mutant(27, "gave ETIMEDOUT")
class LooksAtTheLimitInTheEnd(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        report = close_by(context, drain_to_the_end)
        if context.drain_limit is not None and report.discarded > context.drain_limit:
            error = OSError(errno.EMSGSIZE, "too much")
            setattr(error, "report", report)  # noqa: B010 - OSErrors have none
            raise error
        return report


@mutant(27, "its report is CloseReport")
class ForgetsTheReportAtTheLimit(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise OSError(errno.EMSGSIZE, "too much") from None
            raise


@mutant(27, "close with more than drain_limit gave ETIMEDOUT")
class TakesALimitOf0ForNone(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        limit = context.drain_limit or None
        return shut_down(_changed(context, "drain_limit", limit))


@mutant(28, "instead of ECONNRESET")
class HidesWhatWasNotRead(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except ConnectionResetError:
            return CloseReport(True)


@mutant(28, "which nobody read")
class CountsTheUnreadAsRead(Mutant):
    """It can't know, and says so of its streams; its close claims to."""

    class Unsure(Proxy):
        def query(self, kind: type[T]) -> T | None:
            return None if kind is UnreadBytes else super().query(kind)

    stream = Unsure

    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)._replace(consumed=True)
        except ConnectionResetError:
            return CloseReport(True)

    def do_traits(self) -> Traits:
        traits = self.base.traits()
        return Traits(traits.address, traits.capabilities - {UnreadBytes})


@mutant(28, "unread by a peer that has ended")
class TakesThePeersEndForItsReading(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        return shut_down(context)._replace(consumed=True)


@mutant(28, "unread by a peer that goes on")
class TellsThatAllWasReadInALateClose(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except DeadlineError as error:
            error.report = CloseReport(True)
            raise


@mutant(29, "BrokenStreamError", driver="threads", scheme="tcp")
class DoesNotDrain(TcpMutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        return close_by(context, lambda _stream, _context: 0)


@mutant(31, "a canceled close gave", driver="coroutines")
class SwallowsCancellationInClose(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except umbel.Canceled:
            return CloseReport()


@mutant(32, r"DeadlineError: .*t\.close\(left, 0\)")
class ClosesOnlyInTime(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        if context.deadline == 0:
            raise DeadlineError
        return shut_down(context)


@mutant(32, "came 1.. ms late")
class WaitsALittleInClose(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        later = CloseContext(
            context.handle,
            context.endpoint,
            max(context.deadline, now() + 100),
            context.address,
            context.is_done,
            context.has_ended,
        )
        return shut_down(later)


@mutant(33, "EBADF of a blocked receive came", driver="threads")
class IsTakenOverLate(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        select.select([fd_of(self.inner)], [], [], 0.2)
        return self.inner.receive_into(buffer, deadline)


@mutant(36, "hclose came")
class LingersInAbort(Proxy):
    def abort(self) -> None:
        time.sleep(0.2)
        self.inner.abort()


@mutant(37, "never told")
class AbortsWithoutClosing(Proxy):
    def abort(self) -> None:
        if fd_of(self.inner) >= 0:
            os.dup(fd_of(self.inner))
        self.inner.abort()


@mutant(37, "is not declared", scheme="tcp")
class ResetsUndeclared(Proxy):
    def abort(self) -> None:
        fd = fd_of(self.inner)
        if fd >= 0:
            with socket.socket(fileno=os.dup(fd)) as sock:
                at_once = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.inner.abort()


@mutant(37, "declared to see none")
class DeclaresAVisibleAbort(Mutant):
    def do_traits(self) -> Traits:
        traits = self.base.traits()
        return Traits(traits.address, traits.capabilities, shows_abort=True)


@mutant(38, "sending on gave")
class HidesAPeerThatHasGone(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            self.inner.send(buffers, deadline)
        except BrokenStreamError:
            pass


@mutant(38, "bytes_done")
class ForgetsWhatWentBeforeTheReset(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            self.inner.send(buffers, deadline)
        except BrokenStreamError:
            raise BrokenPipeError(errno.EPIPE, "the pipe broke") from None


@mutant(38, "receive after a send that failed")
class MakesAGoodEndOfAReset(Proxy):
    """As TCP: what one call was told, the next ones are not."""

    is_told = False

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            self.inner.send(buffers, deadline)
        except BrokenStreamError:
            self.is_told = True
            raise

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0 if self.is_told else self.inner.receive_into(buffer, deadline)


@mutant(39, "EBADF of receive came", driver="threads")
class WaitsOutsideTheHub(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        select.select([fd_of(self.inner)], [], [], 0.2)
        return self.inner.receive_into(buffer, deadline)


@mutant(40, "SIGPIPE was raised", scheme="ipc")
class RaisesSignals(Proxy):
    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        try:
            os.writev(fd_of(self.inner), buffers)
        except BrokenPipeError:
            raise BrokenStreamError from None


@mutant(41, "another's descriptor")
class ClosesTwice(Proxy):
    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.fd = fd_of(inner)

    def abort(self) -> None:
        if fd_of(self.inner) >= 0:
            self.inner.abort()
            return
        close_if_open(self.fd)


@mutant(41, "not woken under a number used before", "threads", scheme="ipc")
class ForgetsNothing(Proxy):
    """The hub goes on to watch for descriptors that were closed."""

    def abort(self) -> None:
        cast("SocketStream", self.inner)._socket.close()


@mutant(41, "another's descriptor", scheme="ipc")
class ClosesAListenerTwice(ListenerProxy):
    """As core calls `abort` again after an orderly close."""

    fd = -1

    def abort(self) -> None:
        found = self.inner.query(Fileno)
        if found is not None and found.fd >= 0:
            self.fd = found.fd
            self.inner.abort()
            return
        close_if_open(self.fd)
