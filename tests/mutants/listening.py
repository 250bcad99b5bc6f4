"""Listeners and files: behaviours 61 to 73."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from typing import cast

import umbel
from tests.mutants.making import (
    Base,
    ListenerProxy,
    Mutant,
    Proxy,
    fd_of,
    mutant,
)
from umbel.spi import (
    BrokenStreamError,
    ConnectContext,
    DeadlineError,
    Fileno,
    ListenContext,
    Listener,
    SocketListener,
    Stream,
    now,
)
from umbel_transports import mem
from umbel_transports._local_sockets import IpcListener


@mutant(61, "its first byte")
class AcceptsTheNewestFirst(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        inner = cast("mem.MemListener", self.inner)
        inner._queue.reverse()
        try:
            return super().accept(deadline)
        finally:
            inner._queue.reverse()


@mutant(61, "it left [0-9]+ descriptors and 0 threads behind", scheme="ipc")
class LeaksAtEachAccept(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        os.open(os.devnull, os.O_RDONLY)
        return super().accept(deadline)


@mutant(61, "descriptors and [0-9]+ threads behind", scheme="ipc")
class LeavesAThreadToEachListener(ListenerProxy):
    def __init__(self, inner: Listener, wrap: Callable[[Stream], Stream]) -> None:
        super().__init__(inner, wrap)
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


@mutant(62, "accept gave ECONNRESET")
class AcceptsNobodyAfterATimeout(ListenerProxy):
    is_broken = False

    def accept(self, deadline: int) -> Stream:
        if self.is_broken:
            raise BrokenStreamError
        try:
            return super().accept(deadline)
        except DeadlineError:
            self.is_broken = True
            raise


@mutant(64, "EBADF of accept came", driver="threads", scheme="ipc")
class AcceptsOutsideTheHub(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        found = self.inner.query(Fileno)
        assert found is not None
        select.select([found.fd], [], [], 0.2)
        return super().accept(deadline)


@mutant(65, "gave ETIMEDOUT", scheme="ipc")
class WaitsForAListener(Mutant):
    def do_connect(self, context: ConnectContext) -> Stream:
        while True:
            try:
                return self.base.connect(context)
            except ConnectionRefusedError:
                umbel.msleep(now() + 5)
                if 0 <= context.deadline <= now():
                    raise DeadlineError from None
            except FileNotFoundError:
                umbel.msleep(now() + 5)
                if 0 <= context.deadline <= now():
                    raise DeadlineError from None


@mutant(65, "in use|listening again")
class KeepsItsName(Mutant):
    """After a close nobody can listen there again."""

    def __init__(self, base: Base) -> None:
        super().__init__(base)
        self.names: set[str] = set()

    def do_listen(self, context: ListenContext) -> Listener:
        name = context.address.location
        if name in self.names:
            raise OSError(errno.EADDRINUSE, f"{name} is in use")
        self.names.add(name)
        return self.base.listen(context)


@mutant(66, "queued hangs", driver="threads")
class ForgetsItsQueue(ListenerProxy):
    kept: list[object] = []  # noqa: RUF012 - for all of them

    def abort(self) -> None:
        inner = cast("mem.MemListener", self.inner)
        self.kept += inner._queue
        inner._queue.clear()
        super().abort()


@mutant(67, "a second listener there gave")
class ListensTwice(Mutant):
    """The second listener at an address goes elsewhere, and does not say so."""

    def do_listen(self, context: ListenContext) -> Listener:
        try:
            return self.base.listen(context)
        except OSError:
            name = f"{context.address.location}-2"
            elsewhere = umbel.Address(context.address.scheme, name)
            found = self.base.listen(ListenContext(elsewhere, 1, {}))
            cast("SocketListener", found).address = context.address
            return found


@mutant(67, ".", scheme="tcp")
class TellsTheWrongAddress(ListenerProxy):
    def __init__(self, inner: Listener, wrap: Callable[[Stream], Stream]) -> None:
        super().__init__(inner, wrap)
        self.address = umbel.Address("tcp", "127.0.0.1:0")


@mutant(69, "only waited", scheme="ipc")
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


@mutant(70, "accept")
class ShakesHandsInAccept(ListenerProxy):
    def accept(self, deadline: int) -> Stream:
        stream = super().accept(deadline)
        assert isinstance(stream, Proxy)
        umbel.fdin(fd_of(stream), deadline)
        return stream


@mutant(71, "listening twice", scheme="ipc")
class StealsALiveAddress(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        place = context.address.location
        if os.path.exists(place) and not os.path.isfile(place):
            os.unlink(place)
        return self.base.listen(context)


@mutant(71, "listening at a file", scheme="ipc")
class RemovesAnyFile(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        if os.path.isfile(context.address.location):
            os.unlink(context.address.location)
        return self.base.listen(context)


@mutant(71, "not ours any more|unlink=False", scheme="ipc")
class ForgetsTheInodeCheck(ListenerProxy):
    def abort(self) -> None:
        super().abort()
        try:
            os.unlink(self.address.location)
        except OSError:
            pass


@mutant(71, "file of another's listener", scheme="ipc")
class RemovesAnySocket(ListenerProxy):
    """It looks whether it is a socket, and not whose."""

    def abort(self) -> None:
        inner = cast("IpcListener", self.inner)
        place = self.address.location
        if inner._file is not None and stat.S_ISSOCK(_mode_of(place)):
            os.unlink(place)
        inner._file = None
        super().abort()


def _mode_of(place: str) -> int:
    return os.lstat(place).st_mode if os.path.lexists(place) else 0


@mutant(71, "mode", scheme="ipc")
class IgnoresTheMode(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        options = {**context.options, "mode": 0o666}
        return self.base.listen(
            ListenContext(context.address, context.backlog, options)
        )


@mutant(71, r"a path of \d+ bytes gave .*no such file", scheme="ipc")
class CutsALongName(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        try:
            return self.base.listen(context)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise FileNotFoundError(errno.ENOENT, "no such file") from None
            raise


@mutant(72, "listening there", scheme="ipc")
class TakesAFullBacklogForStale(Mutant):
    def do_listen(self, context: ListenContext) -> Listener:
        try:
            self.base.connect(ConnectContext(context.address, 0, {})).abort()
        except DeadlineError:
            os.unlink(context.address.location)
        except OSError:
            pass
        return self.base.listen(context)


@mutant(73, "DeadlineError|ENOENT|FileNotFound", driver="threads", scheme="ipc")
class UnlinksInAChild(ListenerProxy):
    def abort(self) -> None:
        cast("IpcListener", self.inner)._owner_pid = os.getpid()
        super().abort()
