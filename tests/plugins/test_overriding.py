"""Transports that derive from `SocketStream` and `SocketListener` and override them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest

import umbel
from umbel import aio
from umbel.bridges import as_socket
from umbel.spi import (
    Address,
    ConnectContext,
    DescriptorPassing,
    Fileno,
    ListenContext,
    Listener,
    PairContext,
    SocketListener,
    SocketStream,
    Stream,
    StreamAttempts,
    hookimpl,
    system_error,
)
from umbel.streams.connection import find_connection
from umbel.testing import transport_at_hand

T = TypeVar("T")


def flipped(data: memoryview) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)


class Flips:
    """Changes what is sent; to be mixed in."""

    __slots__ = ()

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        views = [memoryview(flipped(view)) for view in buffers]
        super().send(views, deadline)  # type: ignore[misc]  # of what it is mixed into


class Flipping(Flips, SocketStream):
    __slots__ = ()


class Unflipping(SocketStream):
    __slots__ = ()

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        count = super().receive_into(buffer, deadline)
        buffer[:count] = flipped(buffer[:count])
        return count


class Choosy(SocketListener):
    """Refuses every other peer."""

    __slots__ = ("_asked",)

    def accept(self, deadline: int) -> Stream:
        stream = super().accept(deadline)
        self._asked = not getattr(self, "_asked", False)
        if self._asked:
            stream.abort()
            raise system_error(errno.EACCES, "you again?")
        return stream


class Overriding:
    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        near, far = socket.socketpair()
        return Flipping(near), Unflipping(far)

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        sock = socket.create_server(("127.0.0.1", 0), backlog=context.backlog)
        port = sock.getsockname()[1]
        return Choosy(sock, Address(context.address.scheme, str(port)))

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        port = int(context.address.location)
        return SocketStream(socket.create_connection(("127.0.0.1", port), timeout=5))


@pytest.fixture(autouse=True)
def scheme() -> Iterator[str]:
    with transport_at_hand(Overriding(), "own"):
        yield "own"


def test_a_stream_that_overrides_a_direction_is_asked_each_time(scheme: str) -> None:
    near, far = umbel.pair(scheme)
    with near, far:
        umbel.bsend(near, b"secret")
        umbel.bsendl(near, [b"more", bytes(100_000)])

        assert umbel.receive(far, 6) == b"secret"
        assert umbel.brecv(far, 4) == b"more"
        assert umbel.brecv(far, 100_000) == bytes(100_000)

        umbel.bsend(far, b"as it is")  # each has the other direction as it was
        assert umbel.brecv(near, 8) == b"as it is"
        umbel.done(near)
        umbel.done(far)


def test_so_is_it_in_a_task(scheme: str) -> None:
    async def main() -> None:
        near, far = aio.pair(scheme)
        receiving = asyncio.create_task(far.receive_exactly(6))
        await asyncio.sleep(0)
        await near.send(b"secret")
        assert await receiving == b"secret"
        near.abort()
        far.abort()

    asyncio.run(main())


def test_what_would_pass_by_it_is_not_offered(scheme: str) -> None:
    for handle in umbel.pair(scheme):
        with handle:
            with pytest.raises(umbel.NotSupportedError, match="no stream socket"):
                as_socket(handle)
            for kind in (StreamAttempts, DescriptorPassing, Fileno):
                with pytest.raises(umbel.NotSupportedError):
                    umbel.hquery(handle, kind)
            handle.abort()


def test_a_query_of_its_own_may_offer_it() -> None:
    class Counting(SocketStream):
        __slots__ = ("sent",)
        sent: int

        def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
            self.sent += sum(view.nbytes for view in buffers)
            super().send(buffers, deadline)

        def query(self, kind: type[T]) -> T | None:
            attempts = StreamAttempts(self.try_receive, self._count, self._readiness)
            return attempts if isinstance(attempts, kind) else super().query(kind)

        def _count(self, buffer: bytes | memoryview) -> int:
            count = self.try_send(buffer)
            self.sent += count
            return count

    class Counted(Overriding):
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            streams = tuple(map(Counting, socket.socketpair()))
            for stream in streams:
                stream.sent = 0
            return streams[0], streams[1]

    with transport_at_hand(Counted(), "counted"):
        near, far = umbel.pair("counted")
        with near, far:
            umbel.bsend(near, b"123")
            stream = find_connection(near).stream
            assert isinstance(stream, Counting)
            assert stream.sent == 3
            umbel.done(near)
            umbel.done(far)


def test_a_listener_that_overrides_accept_is_asked_each_time(scheme: str) -> None:
    with umbel.listen(f"{scheme}:x") as listener:
        first = umbel.connect(listener.address)
        second = umbel.connect(listener.address)
        with pytest.raises(PermissionError, match="you again"):
            umbel.accept(listener, umbel.within(5))
        umbel.accept(listener, umbel.within(5)).abort()
        first.abort()
        second.abort()


def test_a_socket_that_came_with_a_timeout_waits_for_none(scheme: str) -> None:
    sock, peer = socket.socketpair()
    sock.settimeout(0.01)

    class Timed(Overriding):
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            return SocketStream(sock), SocketStream(peer)

    with transport_at_hand(Timed(), "timed"):
        near, far = umbel.pair("timed")
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(near, deadline=umbel.now() + 50)
        late = umbel.go(umbel.bsend, far, b"late")
        assert umbel.receive(near) == b"late"
        late.abort()
        near.abort()
        far.abort()


@pytest.mark.parametrize("takes_descriptors", [False, True])
def test_an_attempt_that_is_overridden_is_made(*, takes_descriptors: bool) -> None:
    class Upper(SocketStream):
        __slots__ = ()

        def try_receive(self, max_bytes: int) -> bytes | None:
            data = super().try_receive(max_bytes)
            return None if data is None else data.upper()

    class Louder(Overriding):
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            near, far = socket.socketpair()
            return (
                Upper(near, takes_descriptors=takes_descriptors),
                Upper(far, takes_descriptors=takes_descriptors),
            )

    with transport_at_hand(Louder(), "louder"):
        near, far = umbel.pair("louder")
        umbel.bsend(near, b"abc")
        assert umbel.receive(far) == b"ABC"
        near.abort()
        far.abort()
