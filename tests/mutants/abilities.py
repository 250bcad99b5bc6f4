"""Capabilities, leaks and manners: behaviours 74 to 80."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from functools import partial
from typing import TypeVar, cast

import umbel
from tests.mutants.making import (
    PASSED_ON,
    ListenerProxy,
    Mutant,
    Proxy,
    fd_of,
    mutant,
)
from umbel.spi import (
    AdoptContext,
    BrokenStreamError,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    DescriptorPassing,
    Fileno,
    ListenContext,
    Listener,
    ListenerAttempts,
    Names,
    PairContext,
    PeerIdentity,
    SocketListener,
    SocketStream,
    Stream,
    Traits,
    Transfer,
    UnreadBytes,
    hookimpl,
    shut_down,
)
from umbel_transports import mem

T = TypeVar("T")


@mutant(74, "close-on-exec")
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


@mutant(74, "nobody asked for")
class LeaksDescriptors(Proxy):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        while True:
            try:
                with socket.socket(fileno=os.dup(fd_of(self.inner))) as sock:
                    flags = socket.MSG_DONTWAIT
                    return sock.recvmsg_into([buffer], 1024, flags)[0]
            except BlockingIOError:
                umbel.fdin(fd_of(self.inner), deadline)


class Passing(Proxy):
    """Passes descriptors in its own way."""

    def query(self, kind: type[T]) -> T | None:
        found = super().query(kind)
        if isinstance(found, DescriptorPassing):
            self.passing: DescriptorPassing = found
            return cast("T", DescriptorPassing(self.send_fds, self.receive_fds))
        return found

    def send_fds(self, data: memoryview, fds: Sequence[int], deadline: int) -> None:
        self.passing.send(data, fds, deadline)

    def receive_fds(
        self, size: int, limit: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        return self.passing.receive(size, limit, deadline)


@mutant(74, "hangs: receive_with_fds")
class WaitsForDescriptorsForEver(Passing):
    def receive_fds(
        self, size: int, limit: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        return self.passing.receive(size, limit, -1)


@mutant(74, "hangs: send_with_fds")
class WaitsForRoomForDescriptorsForEver(Passing):
    def send_fds(self, data: memoryview, fds: Sequence[int], deadline: int) -> None:
        self.passing.send(data, fds, -1)


@mutant(74, "BrokenStreamError: .*receive_with_fds")
class EndsDescriptorsByAReset(Passing):
    def receive_fds(
        self, size: int, limit: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        data, descriptors = self.passing.receive(size, limit, deadline)
        if not data:
            raise BrokenStreamError
        return data, descriptors


@mutant(74, "received behind them")
class DropsWhatIsBehindDescriptors(Passing):
    """As one of messages does, whose buffer is larger than what was asked for."""

    def receive_fds(
        self, size: int, limit: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        data, descriptors = self.passing.receive(65536, limit, deadline)
        return data[:size], descriptors


@mutant(74, "DeadlineError: .*t.receive_with_fds")
class ReceivesNoDescriptorsAtOnce(Passing):
    def receive_fds(
        self, size: int, limit: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        if 0 <= deadline <= umbel.now():
            raise DeadlineError
        return self.passing.receive(size, limit, deadline)


@mutant(74, "descriptors to a peer that has gone gave None")
class PassesDescriptorsToNobody(Passing):
    def send_fds(self, data: memoryview, fds: Sequence[int], deadline: int) -> None:
        try:
            self.passing.send(data, fds, deadline)
        except BrokenStreamError:
            pass


@mutant(39, "EBADF of receive_with_fds came", driver="threads")
class WaitsForDescriptorsOutsideTheHub(Passing):
    def receive_fds(
        self, size: int, limit: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        select.select([fd_of(self.inner)], [], [], 0.2)
        return self.passing.receive(size, limit, deadline)


@mutant(40, "SIGPIPE was raised", scheme="ipc")
class RaisesSignalsWithDescriptors(Passing):
    def send_fds(self, data: memoryview, fds: Sequence[int], deadline: int) -> None:
        with socket.socket(fileno=os.dup(fd_of(self.inner))) as sock:
            try:
                socket.send_fds(sock, [data], list(fds), socket.MSG_DONTWAIT)
            except BrokenPipeError:
                raise BrokenStreamError from None


@mutant(75, "the child", scheme="ipc")
class TakesUsForThePeer(Proxy):
    def query(self, kind: type[T]) -> T | None:
        if kind is not PeerIdentity:
            return super().query(kind)
        return cast("T", PeerIdentity(os.getpid(), os.geteuid(), os.getegid()))


@mutant(76, "is declared, and None")
class DeclaresWhatItLacks(Proxy):
    def query(self, kind: type[T]) -> T | None:
        return None if kind is UnreadBytes else super().query(kind)


@mutant(76, "not declared")
class LacksADeclaration(Mutant):
    def do_traits(self) -> Traits:
        return Traits("mem://{name}", self.base.traits().capabilities - {UnreadBytes})


@mutant(76, "counts as read")
class CountsWhatWasSentAsRead(Proxy):
    def query(self, kind: type[T]) -> T | None:
        if kind is not UnreadBytes:
            return super().query(kind)
        return cast("T", UnreadBytes(lambda: True, _never_wait))


class ChangedFlush(Proxy):
    """Waits in its own way for the peer to read everything."""

    def wait(self, unread: UnreadBytes, deadline: int) -> None:
        unread.wait(deadline)

    def query(self, kind: type[T]) -> T | None:
        found = super().query(kind)
        if not isinstance(found, UnreadBytes):
            return found
        return cast("T", UnreadBytes(found.is_zero, partial(self.wait, found)))


@mutant(76, "flush to a peer that has gone gave None")
class TakesAPeerThatHasGoneForOneThatRead(ChangedFlush):
    def wait(self, unread: UnreadBytes, deadline: int) -> None:
        try:
            unread.wait(deadline)
        except BrokenStreamError:
            pass


@mutant(76, r"DeadlineError: .*flush\(left, 0")
class FlushesNothingAtOnce(ChangedFlush):
    def wait(self, unread: UnreadBytes, deadline: int) -> None:
        if 0 <= deadline <= umbel.now():
            raise DeadlineError
        unread.wait(deadline)


def _never_wait(deadline: int) -> None:
    pass


@mutant(76, "what its socket was given", scheme="tcp")
class ShowsTheSocketBelow(Proxy):
    """What changes bytes shows the socket that has the changed ones."""

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        changed = [memoryview(bytes(view).swapcase()) for view in buffers]
        self.inner.send(changed, deadline)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = self.inner.receive_into(buffer, deadline)
        buffer[:count] = bytes(buffer[:count]).swapcase()
        return count


class ReadsAhead(Proxy):
    """It takes all that has come, and gives it bit by bit."""

    _ahead = b""

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if not self._ahead:
            space = bytearray(65536)
            count = self.inner.receive_into(memoryview(space), deadline)
            self._ahead = bytes(space[:count])
        count = min(len(buffer), len(self._ahead))
        buffer[:count], self._ahead = self._ahead[:count], self._ahead[count:]
        return count


@mutant(76, "left in the socket", scheme="tcp")
class ShowsASocketThatItHasReadFrom(ReadsAhead):
    """Whoever goes on with the descriptor misses what was read ahead."""


@mutant(76, "received by a moved stream|was still under way|DeadlineError")
class MovesWithoutWhatItHasRead(Mutant):
    def do_traits(self) -> Traits:
        traits = self.base.traits()
        capabilities = traits.capabilities - {Fileno}
        return Traits(traits.address, capabilities, is_filesystem=traits.is_filesystem)

    def wrap(self, stream: Stream) -> Stream:
        return WithoutDescriptor(stream)


class WithoutDescriptor(ReadsAhead):
    def query(self, kind: type[T]) -> T | None:
        return None if kind is Fileno else super().query(kind)


@mutant(76, "would inherit")
class LetsItsDescriptorsBeInherited(Mutant):
    def wrap(self, stream: Stream) -> Stream:
        os.set_inheritable(fd_of(stream), True)
        return super().wrap(stream)


@mutant(76, "a file, which is not declared", scheme="ipc")
class HidesThatItIsAFile(Mutant):
    def do_traits(self) -> Traits:
        traits = self.base.traits()
        return Traits(traits.address, traits.capabilities)


@mutant(76, "KeyError")
class KnowsNoUnknownClass(ListenerProxy):
    def query(self, kind: type[T]) -> T | None:
        if kind is not ListenerAttempts and kind not in PASSED_ON:
            raise KeyError(kind)
        return super().query(kind)


@mutant(76, "told by us", scheme="tcp")
class TellsItsOwnNameForThePeers(Proxy):
    def query(self, kind: type[T]) -> T | None:
        found = super().query(kind)
        if not isinstance(found, Names):
            return found
        names: Names = found
        return cast("T", Names(names.local, names.local))


@mutant(76, "BrokenStreamError|moved|EndOfStreamError")
class EndsWhatMoves(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        with socket.socket(fileno=os.dup(context.fd)) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        return self.base.adopt(context)


@mutant(76, r"FileNotFoundError: .*connect\(address", scheme="ipc")
class TakesTheFileOfWhatHasMoved(ListenerProxy):
    def query(self, kind: type[T]) -> T | None:
        found = super().query(kind)
        if not isinstance(found, Transfer):
            return found
        transfer: Transfer = found
        return cast("T", Transfer(transfer.fd, transfer.state, _forget_nothing))


def _forget_nothing() -> None:
    pass


@mutant(76, "a moved listener's file is left", scheme="ipc")
class LeavesTheFileOfWhatHasMoved(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        if not context.is_listener:
            return self.base.adopt(context)
        return self.base.adopt(AdoptContext(context.address, context.fd, True))


@mutant(78, "close that timed out left")
class LeaksAtALateClose(Mutant):
    def do_close(self, context: CloseContext) -> CloseReport:
        try:
            return shut_down(context)
        except DeadlineError:
            os.open(os.devnull, os.O_RDONLY)
            raise


@mutant(78, "canceled connect left", scheme="ipc")
class LeaksAtACanceledConnect(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            return self.base.connect(context)
        except umbel.Canceled:
            os.open(os.devnull, os.O_RDONLY)
            raise


@mutant(78, "refused left", scheme="ipc")
class LeaksAtARefusedConnect(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        try:
            return self.base.connect(context)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
            raise


@mutant(78, "pair without descriptors left left")
class LeaksAPairHalfMade(Mutant):
    """As one that makes two pipes, and does not get the second."""

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        first = os.open(os.devnull, os.O_RDONLY)
        ends = mem.transport.pair(context)
        os.close(first)
        return ends


@mutant(78, "listen without descriptors left left", scheme="ipc")
class LeaksAListenerHalfMade(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        first = os.open(os.devnull, os.O_RDONLY)
        listener = self.base.listen(context)
        os.close(first)
        return listener


@mutant(79, "refused descriptor was closed")
class ClosesWhatItRefuses(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        try:
            return self.base.adopt(context)
        except OSError:
            if context.fd >= 0:
                os.close(context.fd)
            raise


@mutant(79, "as a stream gave")
class AdoptsWhatIsNotConnected(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        try:
            return self.base.adopt(context)
        except OSError as error:
            if "not connected" not in str(error):
                raise
            return SocketStream(socket.socket(fileno=context.fd))


@mutant(79, "as a listener gave", scheme="ipc")
class AdoptsAStreamAsAListener(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        try:
            return self.base.adopt(context)
        except OSError:
            if not context.is_listener:
                raise
            adopted = self.base.adopt(AdoptContext(context.address, context.fd))
            return SocketListener(
                cast("SocketStream", adopted)._socket, context.address
            )


@mutant(79, "does not block any more")
class ChangesTheModeOfWhatItRefuses(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        if context.fd >= 0:
            os.set_blocking(context.fd, False)
        return self.base.adopt(context)


@mutant(79, "adopted listener's file was removed", scheme="ipc")
class RemovesTheFileOfAnAdoptedListener(Mutant):
    def do_adopt(self, context: AdoptContext) -> Stream | Listener:
        adopted = self.base.adopt(context)
        if context.is_listener:
            file = os.lstat(cast("Listener", adopted).address.location)
            setattr(adopted, "_file", file)  # noqa: B010 - as if it had made it
        return adopted


@mutant(80, "option that nobody knows")
class TakesAnyOption(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        return self.base.connect(ConnectContext(context.address, context.deadline, {}))


@mutant(80, "hook `traits` is missing")
class DeclaresNothing(Mutant):
    traits = None  # type: ignore[assignment]


@mutant(80, "waits: a loop's task")
class WaitsToListen(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        umbel.msleep(umbel.now() + 1)
        return self.base.listen(context)


@mutant(80, "waits: a loop's task")
class WaitsToPair(Mutant):
    def wrap(self, stream: Stream) -> Stream:
        umbel.yield_()
        return super().wrap(stream)
