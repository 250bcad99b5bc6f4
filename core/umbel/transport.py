"""The interface between core and transports.

Declarations only; transports import them from `umbel.spi`. The contract of each method
is here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeGuard, TypeVar, final

from umbel.fd import Readiness
from umbel.values.address import Address
from umbel.values.record import Record

T = TypeVar("T")


class Stream(Protocol):
    """A byte stream, as a transport provides it.

    Core never has two calls of `send` running at the same time, nor two of
    `receive_into`; it may have one of each, from different coroutines or threads. It
    calls `done` at most once, and after `abort` nothing but `query`. Errors are
    OSErrors with an errno, such as `system_error` makes; a peer that is gone is
    ECONNRESET in both directions. Core gives them the class that umbel has for the
    errno, and its own advice instead of the kernel's words; words of yours are kept.
    """

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """Send all bytes of all *buffers* (flat, of bytes, perhaps none), in order.

        An error that is raised after some bytes were sent carries their count in
        `bytes_done`. After ENOTSUP, EPERM or ETOOMANYREFS without one nothing was sent,
        and core lets others send; after any other error it lets nobody. The buffers are
        borrowed until the call returns.
        """

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """Fill the front of *buffer* (1 byte or more); return how many bytes.

        1 or more; 0 at the end of the stream, then and in every later call. An error
        must not lose bytes: after ETIMEDOUT or ECANCELED the next call goes on. A reset
        is never told as the end, although a send was told of it first. The buffer is
        borrowed until the call returns.
        """

    def done(self, deadline: int) -> None:
        """End our direction: the peer sees the end after all that was sent.

        After ENOTSUP or EPERM nothing was done; any other error breaks that direction.
        """

    def abort(self) -> None:
        """Free everything now. Never blocks or raises.

        May be called again, and from any thread.
        """

    def query(self, kind: type[T]) -> T | None:
        """Give the capability *kind* (a concrete class), None if there is none."""


class Listener(Protocol):
    """What accepts streams, as a transport provides it."""

    @property
    def address(self) -> Address:
        """Where others can connect to it. An attribute will do."""

    def accept(self, deadline: int) -> Stream:
        """Give the next stream. Raises EMFILE and the like; the listener stays open."""

    def abort(self) -> None:
        """Free everything now. Never blocks or raises.

        May be called again, and from any thread.
        """

    def query(self, kind: type[T]) -> T | None:
        """Give the capability *kind* (a concrete class), None if there is none."""


def is_stream(endpoint: Stream | Listener) -> TypeGuard[Stream]:
    """Tell whether *endpoint* is a stream; if not, it is a listener.

    Source:
        own.
    """
    return hasattr(endpoint, "receive_into")


#: Of `umbel.listen`, `connect` and `pair`, by their names: see `take_options`.
Options = Mapping[str, object]


class ListenContext(Record):
    """What `umbel_listen` is asked for."""

    address: Address
    backlog: int
    options: Options


class ConnectContext(Record):
    """What `umbel_connect` is asked for."""

    address: Address
    deadline: int
    options: Options

    def __init__(self, address: Address, deadline: int, options: Options) -> None:
        # As in Record: half the time, for what each connection needs.
        fields = self.__dict__
        fields["address"] = address
        fields["deadline"] = deadline
        fields["options"] = options


class PairContext(Record):
    """What `umbel_pair` is asked for."""

    scheme: str
    options: Options


class AdoptContext(Record):
    """What `umbel_adopt` is asked for.

    Attributes:
        address: with the scheme; where it was connected or listened, if known.
        fd: the descriptor; the endpoint's on success, else still the caller's.
        is_listener: whether it must listen; otherwise it must be connected.
        state: that of `Transfer`, if it came from another process.
        is_trusted: its connection was made by our own user, who could do to our files
            whatever *state* makes us do.
    """

    address: Address
    fd: int
    is_listener: bool = False
    state: Mapping[str, object] | None = None
    is_trusted: bool = True


class CloseContext(Record):
    """What `umbel_close` is asked for: the orderly end of *endpoint*.

    Attributes:
        handle: its number, for the record; it is not open any more.
        endpoint: the stream or listener. Core aborts it afterwards in any case.
        deadline: when to give up.
        address: where it was connected or listened.
        is_done: our direction was ended before.
        has_ended: the peer's end of stream was received before.
        drain_limit: inbound bytes that may be discarded; None: any number.
    """

    handle: int
    endpoint: Stream | Listener
    deadline: int
    address: Address
    is_done: bool = False
    has_ended: bool = False
    drain_limit: int | None = None

    def __init__(
        self,
        handle: int,
        endpoint: Stream | Listener,
        deadline: int,
        address: Address,
        is_done: bool = False,
        has_ended: bool = False,
        drain_limit: int | None = None,
    ) -> None:
        # As in ConnectContext.
        fields = self.__dict__
        fields["handle"] = handle
        fields["endpoint"] = endpoint
        fields["deadline"] = deadline
        fields["address"] = address
        fields["is_done"] = is_done
        fields["has_ended"] = has_ended
        fields["drain_limit"] = drain_limit


class AcceptContext(Record):
    """What wrappers of `umbel_accept` see."""

    handle: int
    address: Address
    deadline: int


class DoneContext(Record):
    """What wrappers of `umbel_done` see."""

    handle: int
    address: Address
    deadline: int


# What a transport says of itself.


class Traits(Record):
    """What `umbel_traits` declares of a transport; the conformance kit verifies it.

    Attributes:
        address: of a listener to try it with; `{folder}` stands for an empty folder,
            `{name}` for a new name. Empty: it can only make pairs.
        capabilities: those that `query` gives for every one of its streams.
        half_close: `done` works, and the peer can go on sending; else it is ENOTSUP,
            and the transport needs a hook `close`, since `shut_down` begins with it.
        shows_abort: the peer of an aborted stream gets ECONNRESET, and not the end.
        is_filesystem: a listener is a file, at the address's location. If `listen`
            takes the options `unlink` or `mode`, the kit tries them as those of ipc.
    """

    address: str
    capabilities: frozenset[type] = frozenset()
    half_close: bool = True
    shows_abort: bool = False
    is_filesystem: bool = False


# Capabilities: optional abilities, which `query` finds by their class.


@final
class Fileno(Record):
    """The endpoint has a descriptor, which it still owns.

    If that is a stream socket, its bytes are those of the stream, unchanged, and none
    has been read ahead: `umbel.bridges.as_socket` gives it to the program.
    """

    fd: int


@final
class Names(Record):
    """The stream's two ends have addresses.

    Attributes:
        local: our own.
        remote: the peer's.
    """

    local: Address
    remote: Address


@final
class StreamAttempts(Record):
    """The stream can try without waiting, and says what to wait with.

    All verbs are faster with it: a call that can be done at once is one attempt, and
    `umbel.aio` needs no coroutine for each call.

    Attributes:
        receive: (max_bytes) -> bytes, as `Stream.receive_into`; it may ask for less.
            None: nothing has come, and the readiness is drained. The hub calls it too,
            for a coroutine that waits: so it must not matter which coroutine of the
            thread runs.
        send: (buffer) -> how many bytes found room, 0 or more.
        readiness: what to wait with: before an attempt to receive, if it is drained;
            after one to send, if not everything found room.
    """

    receive: Callable[[int], bytes | None]
    send: Callable[[bytes | memoryview], int]
    readiness: Readiness

    def __init__(
        self,
        receive: Callable[[int], bytes | None],
        send: Callable[[bytes | memoryview], int],
        readiness: Readiness,
    ) -> None:
        # As in ConnectContext.
        fields = self.__dict__
        fields["receive"] = receive
        fields["send"] = send
        fields["readiness"] = readiness


@final
class ListenerAttempts(Record):
    """The listener can try to accept without waiting.

    Attributes:
        accept: () -> a stream, or None: nobody has come.
        readiness: what to wait with, by `wait_in`.
    """

    accept: Callable[[], Stream | None]
    readiness: Readiness


@final
class UnreadBytes(Record):
    """The stream knows whether its peer has read everything.

    Attributes:
        is_zero: () -> whether the peer has read everything; raises BrokenStreamError,
            ECONNRESET, if it has gone without.
        wait: (deadline); returns once the peer has read everything.
    """

    is_zero: Callable[[], bool]
    wait: Callable[[int], None]

    def __init__(
        self, is_zero: Callable[[], bool], wait: Callable[[int], None]
    ) -> None:
        # As in ConnectContext.
        fields = self.__dict__
        fields["is_zero"] = is_zero
        fields["wait"] = wait


@final
class DescriptorPassing(Record):
    """Descriptors can travel in the stream, at their place in the data.

    Attributes:
        send: (data, descriptors, deadline): data of at least one byte; the descriptors
            stay ours.
        receive: (max_bytes, max_descriptors, deadline) -> data, descriptors. Nothing is
            lost by ETIMEDOUT or ECANCELED: the next call goes on.
    """

    send: Callable[[memoryview, Sequence[int], int], None]
    receive: Callable[[int, int, int], tuple[bytes, list[int]]]


@final
class Transfer(Record):
    """The endpoint can be moved to another process, where its transport adopts it.

    Attributes:
        fd: its descriptor, which it still owns.
        state: what its transport must know there: strings, ints and bools.
        release: (); forget what `abort` would otherwise undo, such as a listener's
            file.
    """

    fd: int
    state: Mapping[str, str | int | bool]
    release: Callable[[], None]
