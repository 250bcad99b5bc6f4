"""What third parties' streams and listeners may do that the built-in ones never do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeVar

import pytest

import umbel
from tests.support import PATIENCE, wait_until, wait_until_blocked
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.bridges import as_asyncio_transport, as_socket
from umbel.handle import AnyHandle, open_handles
from umbel.plugins import remove_plugin
from umbel.plugins.registry import add_transport, remove_transport
from umbel.spi import (
    Address,
    CloseContext,
    CloseReport,
    ConnectContext,
    Fileno,
    ListenContext,
    Listener,
    ListenerAttempts,
    Readiness,
    Stream,
    StreamAttempts,
    Traits,
    UnreadBytes,
    WaitQueue,
    add_bytes_done,
    hookimpl,
    system_error,
)
from umbel.streams.connection import find_connection
from umbel_plugins import faults

T = TypeVar("T")
H = TypeVar("H", bound=AnyHandle)


class Odd:
    """A stream without descriptor or attempts, whose peer is nowhere."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.dones = 0
        self.aborts = 0

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        for view in buffers:
            self.sent += view

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def done(self, deadline: int) -> None:
        self.dones += 1

    def abort(self) -> None:
        self.aborts += 1

    def query(self, kind: type[T]) -> T | None:
        return None


class OddTransport:
    """Connects to the stream, or listens by the listener, that it was given."""

    def __init__(self, stream: Stream | None, listener: Listener | None) -> None:
        self.stream = stream
        self.listener = listener

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        assert self.stream is not None
        return self.stream

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        assert self.listener is not None
        return self.listener


@contextmanager
def made(transport: OddTransport, make: Callable[[str], H]) -> Iterator[H]:
    """Give the handle that *make* makes by *transport*."""
    add_transport(transport, "odd")
    try:
        handle = make("odd://x")
        yield handle
        if handle in open_handles:
            handle.abort()
    finally:
        remove_transport("odd")


def opened(stream: Stream) -> AbstractContextManager[umbel.StreamHandle]:
    """Give *stream* a handle."""
    return made(OddTransport(stream, None), umbel.connect)


def listening(listener: Listener) -> AbstractContextManager[umbel.ListenerHandle]:
    """Give *listener* a handle."""
    return made(OddTransport(None, listener), umbel.listen)


# done.


@pytest.mark.parametrize(
    "error",
    [umbel.NotSupportedError(), OSError(errno.ENOTSUP, "plain")],
    ids=["own", "plain"],
)
def test_a_done_that_is_not_supported_breaks_nothing(error: OSError) -> None:
    class NoHalfClose(Odd):
        def done(self, deadline: int) -> None:
            raise error

    stream = NoHalfClose()
    with opened(stream) as handle:
        for _ in range(2):
            with pytest.raises(OSError, match=r"ENOTSUP|plain|can't do that") as caught:
                umbel.done(handle)
            assert caught.value.errno == errno.ENOTSUP
        umbel.bsend(handle, b"still open")

    assert stream.sent == b"still open"


def test_a_done_that_is_refused_breaks_nothing_either() -> None:
    class Forbidden(Odd):
        def done(self, deadline: int) -> None:
            raise system_error(errno.EPERM, "not before the signature")

    with opened(Forbidden()) as handle:
        for _ in range(2):
            with pytest.raises(PermissionError, match="signature"):
                umbel.done(handle)


def test_a_close_that_overtakes_done_does_not_do_it_again() -> None:
    class Slow(Odd):
        queue = WaitQueue()

        def done(self, deadline: int) -> None:
            super().done(deadline)
            self.queue.wait(self.queue.ticket(), deadline)

    stream = Slow()
    told: list[type[BaseException]] = []

    def end() -> None:
        try:
            umbel.done(handle)
        except umbel.BadHandleError as error:
            told.append(type(error))

    with (
        opened(stream) as handle,
        umbel.go(end),
        pytest.raises(umbel.BrokenStreamError),
    ):
        umbel.close(handle, umbel.within(5))

    assert told == [umbel.BadHandleError]
    assert stream.dones == 1


def test_a_done_that_ends_well_as_it_is_closed_keeps_no_closer_waiting() -> None:
    closer = current_hub().main

    class Slow(Odd):
        queue = WaitQueue()

        def done(self, deadline: int) -> None:
            with suppress(umbel.BadHandleError):
                self.queue.wait(self.queue.ticket(), deadline)
            wait_until(lambda: closer.is_parked, "the closer")

    with opened(Slow()) as handle:
        may_end = threading.Event()

        def end() -> None:
            umbel.done(handle)
            may_end.wait(PATIENCE)  # a thread that ends leaves all that it uses

        ending = threading.Thread(target=end)
        ending.start()
        wait_until_blocked(handle)
        start = umbel.now()
        with pytest.raises(umbel.BrokenStreamError):
            umbel.close(handle, umbel.within(10))
        took = umbel.now() - start
        may_end.set()
        ending.join()

    assert took < 5000


# Streams that never have to wait.


class Endless(Odd):
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        buffer[:1] = b"z"
        return 1


@pytest.mark.parametrize(
    "call",
    [
        umbel.close,
        lambda handle, until: umbel.brecv(handle, 1 << 40, until),
        lambda handle, until: umbel.brecv(handle, bytearray(1 << 26), until),
        lambda handle, until: umbel.brecv(handle, umbel.Skip(1 << 40), until),
    ],
    ids=["close", "bytes", "buffer", "skip"],
)
def test_who_never_has_to_wait_heeds_its_deadline_and_lets_others_run(
    call: Callable[[umbel.StreamHandle, int], object],
) -> None:
    ran: list[int] = []

    def other() -> None:
        while True:
            umbel.msleep(umbel.within(0.001))
            ran.append(1)

    with opened(Endless()) as handle, umbel.bundle() as bundle:
        bundle.go(other)
        with pytest.raises(umbel.DeadlineError):
            call(handle, umbel.within(0.2))
        assert ran
        umbel.hclose(bundle)


def test_an_attempt_that_forgets_to_say_that_all_is_drained_is_not_repeated() -> None:
    class Forgetful(Odd):
        def __init__(self, fd: int) -> None:
            super().__init__()
            self.readiness = Readiness(fd)
            self.tries = 0

        def attempt(self, max_bytes: int) -> bytes | None:
            self.tries += 1
            return None

        def query(self, kind: type[T]) -> T | None:
            found = StreamAttempts(self.attempt, len, self.readiness)
            return found if isinstance(found, kind) else None

        def abort(self) -> None:
            self.readiness.forget()

    left, right = umbel.pair()
    for call in (blocking_brecv, awaited_brecv):
        stream = Forgetful(left.fileno())
        with opened(stream) as handle, pytest.raises(umbel.DeadlineError):
            call(handle)
        assert stream.tries < 5
    umbel.hclose(left)
    umbel.hclose(right)


def blocking_brecv(handle: umbel.StreamHandle) -> None:
    umbel.brecv(handle, 9, umbel.within(0.05))


def awaited_brecv(handle: umbel.StreamHandle) -> None:
    async def main() -> None:
        await aio.brecv(handle, 9, umbel.within(0.05))

    asyncio.run(main())


def test_a_stream_over_a_socket_of_packets_is_not_given_as_one() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Packets(Odd):
        def query(self, kind: type[T]) -> T | None:
            found = Fileno(left.fileno())
            return found if isinstance(found, kind) else None

    with left, right, opened(Packets()) as handle:
        with pytest.raises(umbel.NotSupportedError, match="no stream socket"):
            as_socket(handle)

        umbel.bsend(handle, b"still open")


# Nonsense, and errors.


@pytest.mark.parametrize("count", [None, -1, 11, True, "1"])
def test_a_count_that_is_none_is_a_plugin_error(count: object) -> None:
    class Wrong(Odd):
        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            return count  # type: ignore[return-value]  # that is the point

    for call in (
        lambda handle: umbel.receive(handle, 10),
        lambda handle: umbel.brecv(handle, 10),
        lambda handle: umbel.brecv(handle, bytearray(10)),
        lambda handle: umbel.brecv(handle, umbel.Skip(10)),
    ):
        with (
            opened(Wrong()) as handle,
            pytest.raises(umbel.PluginError, match="receive_into"),
        ):
            call(handle)


def test_the_bytes_that_a_plain_error_has_moved_are_told() -> None:
    class Failing(Odd):
        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            error = OSError(errno.EPIPE, "plain")
            add_bytes_done(error, 3)
            add_bytes_done(error, 2)
            raise error

    with (
        opened(Failing()) as handle,
        pytest.raises(umbel.BrokenStreamError) as caught,
    ):
        umbel.bsend(handle, bytes(9))

    assert caught.value.bytes_done == 5


@pytest.mark.parametrize("error", [umbel.NotSupportedError, umbel.BusyError])
def test_a_send_that_is_refused_halfway_breaks(error: type[umbel.UmbelError]) -> None:
    class Halfway(Odd):
        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            failure = error()
            add_bytes_done(failure, 3)
            raise failure

    with opened(Halfway()) as handle:
        with pytest.raises(error):
            umbel.bsend(handle, b"123456")
        with pytest.raises(umbel.BrokenStreamError):
            umbel.bsend(handle, b"123456")


def test_a_failure_with_a_number_that_is_no_errno_breaks() -> None:
    class Layered(Odd):
        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            raise ssl.SSLError(errno.EPERM, "half a record was sent")

    with opened(Layered()) as handle:
        with pytest.raises(ssl.SSLError, match="half a record"):
            umbel.bsend(handle, b"x")
        with pytest.raises(umbel.BrokenStreamError):
            umbel.bsend(handle, b"x")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNRESET, umbel.BrokenStreamError),
        (errno.ETIMEDOUT, umbel.DeadlineError),
        (errno.ENOTSUP, umbel.NotSupportedError),
    ],
)
def test_a_transports_own_words_are_told(
    number: int, kind: type[umbel.UmbelError]
) -> None:
    class Wordy(Odd):
        words = "renew the certificate"

        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            raise system_error(number, self.words)

        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            raise OSError(number, os.strerror(number))

    with opened(Wordy()) as handle:
        with pytest.raises(kind, match=f"{os.strerror(number)}: {Wordy.words}"):
            umbel.bsend(handle, b"x")
        with pytest.raises(kind, match=kind.advice[:20]):  # more than the kernel's
            umbel.receive(handle)


def test_so_they_are_if_a_close_is_late() -> None:
    class Wordy(Odd):
        def done(self, deadline: int) -> None:
            raise umbel.DeadlineError("wake the modem")

    with (
        opened(Wordy()) as handle,
        pytest.raises(umbel.DeadlineError, match="wake the modem"),
    ):
        umbel.close(handle)


def test_a_close_that_drains_and_never_waits_lets_others_run() -> None:
    has_run = False

    class Endless(Odd):
        chunks = 0

        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            self.chunks += 1
            return 0 if has_run or self.chunks > 10_000 else 1

    def run() -> None:
        nonlocal has_run
        umbel.yield_()
        has_run = True

    with opened(Endless()) as handle, umbel.go(run):
        umbel.close(handle)

        assert has_run


def test_an_end_inside_a_layer_is_no_end_of_the_stream() -> None:
    class Cut(Odd):
        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            raise umbel.EndOfStreamError

    with opened(Cut()) as handle:
        with pytest.raises(umbel.EndOfStreamError):
            umbel.brecv(handle, 1)
        with pytest.raises(umbel.BrokenStreamError):
            umbel.brecv(handle, 1)


def test_the_error_that_ended_a_close_is_told_though_unread_bytes_are_unknown() -> None:
    class Unsure(Odd):
        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            raise umbel.DeadlineError

        def query(self, kind: type[T]) -> T | None:
            found = UnreadBytes(self.fail, lambda _: None)
            return found if isinstance(found, kind) else None

        def fail(self) -> bool:
            raise OSError(errno.EIO, "no idea")

    with opened(Unsure()) as handle, pytest.raises(umbel.DeadlineError) as caught:
        umbel.close(handle)

    assert caught.value.report == CloseReport(None, 0)


def test_a_close_hook_finds_its_own_stream_behind_bytes_that_were_kept() -> None:
    found: list[Odd | None] = []

    class Mine(OddTransport):
        @hookimpl.close
        def close(self, context: CloseContext) -> CloseReport:
            found.append(context.endpoint.query(Odd))
            return CloseReport()

    stream = Odd()
    add_transport(Mine(stream, None), "mine")
    try:
        handle = umbel.connect("mine://x")
        find_connection(handle).keep(b"kept")
        umbel.close(handle)
    finally:
        remove_transport("mine")

    assert found == [stream]


@pytest.mark.parametrize("call", ["receive", "send"])
def test_asyncios_transport_is_lost_if_its_stream_breaks_the_contract(
    call: str,
) -> None:
    class Breaking(Odd):
        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            raise ValueError("odd")

        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            if call == "send":
                umbel.msleep(deadline)
            raise ValueError("odd")

    lost: list[Exception | None] = []
    told: list[dict[str, object]] = []

    class Waiting(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    async def main(handle: umbel.StreamHandle) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        transport = as_asyncio_transport(handle, Waiting())
        if call == "send":
            transport.write(b"x")
        await asyncio.wait_for(transport.wait_lost(), 5)

    with opened(Breaking()) as handle:
        asyncio.run(main(handle))

    assert [type(error) for error in lost] == [ValueError]
    (context,) = told
    # And not a callback of the protocol, as where that fails.
    assert f"to {call}" in str(context["message"])


@pytest.mark.parametrize("can", [True, False])
def test_asyncios_transport_tells_whether_a_direction_can_end(can: bool) -> None:
    class Declaring(OddTransport):
        @hookimpl.traits
        def traits(self) -> Traits:
            return Traits(address="odd://{name}", half_close=can)

    async def main(handle: umbel.StreamHandle) -> None:
        transport = as_asyncio_transport(handle, asyncio.Protocol())
        assert transport.can_write_eof() is can
        transport.abort()

    with made(Declaring(Odd(), None), umbel.connect) as handle:
        asyncio.run(main(handle))


def test_a_planned_reset_wakes_who_waits_on_a_stream_without_a_descriptor() -> None:
    class Waiting(Odd):
        queue = WaitQueue()

        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            ticket = self.queue.ticket()
            if not self.aborts:
                self.queue.wait(ticket, deadline)
            raise umbel.BadHandleError

        def abort(self) -> None:
            super().abort()
            self.queue.wake_all()

    def wait(handle: umbel.StreamHandle) -> None:
        with pytest.raises(umbel.BrokenStreamError, match="planned"):
            umbel.receive(handle)

    with faults.plan(reset_after=4), opened(Waiting()) as handle, umbel.bundle() as b:
        b.go(wait, handle)
        with pytest.raises(umbel.BrokenStreamError, match="planned") as caught:
            umbel.bsend(handle, b"123456")
        assert caught.value.bytes_done == 4
        umbel.bundle_wait(b, umbel.within(5))
    remove_plugin("faults")


# Listeners.


class OddListener:
    """Accepts what *accept_one* gives."""

    address = Address("odd", "x")

    def __init__(
        self, accept_one: Callable[[], Stream], readiness: Readiness | None = None
    ) -> None:
        self.accept_one = accept_one
        self.readiness = readiness

    def accept(self, deadline: int) -> Stream:
        return self.accept_one()

    def abort(self) -> None:
        pass

    def query(self, kind: type[T]) -> T | None:
        if self.readiness is None:
            return None
        found = ListenerAttempts(self.accept_one, self.readiness)
        return found if isinstance(found, kind) else None


@pytest.mark.parametrize(
    ("number", "own"),
    [
        (errno.ETIMEDOUT, umbel.DeadlineError),
        (errno.ECONNABORTED, umbel.BrokenStreamError),
        (errno.EBADF, umbel.BadHandleError),
    ],
)
@pytest.mark.parametrize("is_attempt", [True, False])
def test_plain_errors_of_accepting_are_explained_to_tasks_too(
    number: int, own: type[OSError], is_attempt: bool
) -> None:
    def fail() -> Stream:
        raise OSError(number, "plain")

    async def main(handle: umbel.ListenerHandle) -> None:
        with pytest.raises(own) as caught:
            await aio.accept(handle)
        assert type(caught.value) is own

    with listening(OddListener(fail, Readiness(0) if is_attempt else None)) as handle:
        with pytest.raises(own):
            umbel.accept(handle)
        asyncio.run(main(handle))


def stale() -> Stream:
    """Fail to accept, because of a handle that has nothing to do with the listener."""
    umbel.receive(1 << 40)  # type: ignore[arg-type]  # a number will do
    raise AssertionError


def test_ebadf_of_something_else_is_not_the_end_of_a_listener() -> None:
    with (
        listening(OddListener(stale)) as handle,
        pytest.raises(umbel.BadHandleError),
    ):
        next(iter(handle))

    async def main(handle: umbel.ListenerHandle) -> None:
        listener = aio.as_async(handle)
        with pytest.raises(umbel.BadHandleError):
            async for _ in listener:
                pass
        listener.abort()

    with listening(OddListener(stale)) as handle:
        asyncio.run(main(handle))


def test_nor_of_a_server() -> None:
    with (
        listening(OddListener(stale)) as handle,
        pytest.raises(umbel.BadHandleError),
    ):
        umbel.serve(handle, lambda _: None)

    async def main(handle: umbel.ListenerHandle) -> None:
        async def attend(_: object) -> None:
            pass

        with pytest.raises(umbel.BadHandleError):
            await aio.serve(handle, attend)

    with listening(OddListener(stale)) as handle:
        asyncio.run(main(handle))


def test_hclose_of_a_listener_whose_descriptor_is_gone_frees_it_at_once() -> None:
    queue = WaitQueue()
    freed: list[int] = []

    def wait() -> Stream:
        queue.wait(queue.ticket(), -1)
        raise AssertionError

    class Gone(OddListener):
        def query(self, kind: type[T]) -> T | None:
            if issubclass(kind, Fileno):
                raise OSError(errno.EBADF, "gone")
            return None

        def abort(self) -> None:
            freed.append(1)

    def accept(handle: umbel.ListenerHandle) -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.accept(handle)

    with listening(Gone(wait)) as handle:
        with pytest.raises(umbel.BadHandleError):
            umbel.query(handle, Fileno)
        accepting = threading.Thread(target=accept, args=(handle,))
        accepting.start()
        wait_until_blocked(handle)
        umbel.hclose(handle)
        assert freed
        accepting.join(5)
        assert not accepting.is_alive()


def test_a_receive_that_is_not_supported_breaks_nothing() -> None:
    class Refusing(Odd):
        calls = 0

        def receive_into(self, buffer: memoryview, deadline: int) -> int:
            self.calls += 1
            if self.calls == 1:
                raise umbel.NotSupportedError
            buffer[:1] = b"x"
            return 1

    with opened(Refusing()) as handle:
        with pytest.raises(umbel.NotSupportedError):
            umbel.brecv(handle, 1)

        assert umbel.brecv(handle, 1) == b"x"
