"""What mutants are made of: proxies round working transports, and their list."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

from umbel.spi import (
    LOCAL_CAPABILITIES,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    Fileno,
    ListenContext,
    Listener,
    Names,
    PairContext,
    Stream,
    StreamProxy,
    Traits,
    hookimpl,
    shut_down,
)
from umbel_transports import ipc, mem, tcp

T = TypeVar("T")


#: What a proxy passes on. Nothing faster than the protocol: all calls come to it.
PASSED_ON = {*LOCAL_CAPABILITIES, Names}


class Proxy(StreamProxy):
    """A stream that does what another does."""

    def query(self, kind: type[T]) -> T | None:
        return self.inner.query(kind) if kind in PASSED_ON else None


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
        return self.inner.query(kind) if kind in PASSED_ON else None


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
    """One mutant: what must catch it, and by which words."""

    number: int
    says: str
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
    number: int, says: str, driver: str = "coroutines", scheme: str = "mem"
) -> Callable[[type], type]:
    """Enter a changed stream, listener or transport.

    Args:
        number: of the behaviour that must catch it.
        says: what the verdict must tell; a pattern.
        driver: with which it is tried.
        scheme: of what it is made of.
    """

    def enter(changed: type) -> type:
        def make(base: Base) -> object:
            kind: type[Mutant] = TcpMutant if scheme == "tcp" else Mutant
            if issubclass(changed, Mutant):
                return changed(base)
            name = "stream" if issubclass(changed, Proxy) else "listener"
            return type(changed.__name__, (kind,), {name: changed})(base)

        MUTANTS[changed.__name__] = Entry(number, says, driver, scheme, make)
        return changed

    return enter


def close_by(
    context: CloseContext, drain: Callable[[Stream, CloseContext], int]
) -> CloseReport:
    """Close as usual, but for draining."""
    if isinstance(context.endpoint, ListenerProxy):
        return shut_down(context)
    stream = cast("Stream", context.endpoint)
    if not context.is_done:
        stream.done(context.deadline)
    return CloseReport(None, 0 if context.has_ended else drain(stream, context))


def fd_of(stream: Stream) -> int:
    found = stream.query(Fileno)
    assert found is not None
    return found.fd
