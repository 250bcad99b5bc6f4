"""A transport's plain OSErrors come out as umbel's own, whichever verb met them."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

import umbel
from tests.support import calls
from umbel import aio
from umbel.plugins.registry import add_transport, remove_transport
from umbel.spi import (
    Address,
    CloseContext,
    CloseReport,
    ListenContext,
    PairContext,
    hookimpl,
)
from umbel.streams.connection import find_connection

T = TypeVar("T")

#: What a plain error comes out as.
OWN = {
    errno.ECONNRESET: umbel.BrokenStreamError,
    errno.EPIPE: umbel.BrokenStreamError,
    errno.ECONNABORTED: umbel.BrokenStreamError,
    errno.ETIMEDOUT: umbel.DeadlineError,
    errno.EBADF: umbel.BadHandleError,
}


class Failing:
    """A stream, or a listener, that fails in whatever is asked of it."""

    address = Address("plain", "x")

    def __init__(self, number: int) -> None:
        self.number = number
        self.left = b""

    def fail(self, moved: int = 0) -> OSError:
        error = OSError(self.number, os.strerror(self.number))
        error.bytes_done = moved  # type: ignore[attr-defined]
        return error

    def send(self, buffers: object, deadline: int) -> None:
        raise self.fail(5)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        if not self.left:
            raise self.fail()
        count = len(self.left)
        buffer[:count], self.left = self.left, b""
        return count

    def done(self, deadline: int) -> None:
        raise self.fail()

    def accept(self, deadline: int) -> Failing:
        raise self.fail()

    def abort(self) -> None:
        pass

    def query(self, kind: type[T]) -> T | None:
        return None


class PlainTransport:
    def __init__(self) -> None:
        self.number = 0

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Failing, Failing]:
        return Failing(self.number), Failing(self.number)

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Failing:
        return Failing(self.number)

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        raise OSError(self.number, os.strerror(self.number))


@pytest.fixture(params=OWN, ids=errno.errorcode.get)
def transport(request: pytest.FixtureRequest) -> Iterator[PlainTransport]:
    made = PlainTransport()
    made.number = request.param
    add_transport(made, "plain")
    yield made
    remove_transport("plain")


@pytest.fixture
def stream(transport: PlainTransport) -> Iterator[umbel.StreamHandle]:
    left, right = umbel.pair("plain")
    yield left
    for end in (left, right):
        umbel.hclose(end)


def test_a_send_that_fails_tells_how_much_went(
    transport: PlainTransport, stream: umbel.StreamHandle
) -> None:
    with pytest.raises(OWN[transport.number]) as caught:
        umbel.bsend(stream, b"0123456789")
    with pytest.raises(umbel.BrokenStreamError):
        umbel.bsend(stream, b"again")

    assert caught.value.bytes_done == 5
    assert isinstance(caught.value.__cause__, OSError)


def test_a_brecv_that_fails_tells_how_much_came(
    transport: PlainTransport, stream: umbel.StreamHandle
) -> None:
    failing = find_connection(stream).stream
    assert isinstance(failing, Failing)
    failing.left = b"12345"

    with pytest.raises(OWN[transport.number]) as caught:
        umbel.brecv(stream, 10)

    assert caught.value.bytes_done == 5


def test_receive_and_done_and_accept_and_close_fail_with_umbels_own(
    transport: PlainTransport, stream: umbel.StreamHandle
) -> None:
    own = OWN[transport.number]
    listener = umbel.listen("plain:x")

    with pytest.raises(own):
        umbel.receive(stream)
    with pytest.raises(own):
        umbel.done(stream)
    with pytest.raises(own):
        umbel.accept(listener)
    umbel.hclose(listener)
    left, right = umbel.pair("plain")
    with pytest.raises(own) as caught:
        umbel.close(left)
    umbel.hclose(right)

    assert caught.value.report == umbel.CloseReport()


def test_a_receive_breaks_only_what_is_broken(
    transport: PlainTransport, stream: umbel.StreamHandle
) -> None:
    with pytest.raises(OWN[transport.number]):
        umbel.receive(stream)
    is_broken = find_connection(stream).inbound_error is not None

    assert is_broken is (OWN[transport.number] is umbel.BrokenStreamError)


def test_awaited_verbs_fail_alike(
    transport: PlainTransport, stream: umbel.StreamHandle
) -> None:
    own = OWN[transport.number]

    async def main() -> None:
        with pytest.raises(own):
            await aio.receive(stream)
        with pytest.raises(own) as caught:
            await aio.bsend(stream, b"0123456789")
        assert caught.value.bytes_done == 5

    asyncio.run(main())


def test_an_error_that_has_no_twin_is_let_through_as_it_is(
    stream: umbel.StreamHandle,
) -> None:
    failing = find_connection(stream).stream
    assert isinstance(failing, Failing)
    failing.number = errno.EIO

    for verb in calls(
        lambda: umbel.brecv(stream, 1), lambda: umbel.bsend(stream, b"x")
    ):
        with pytest.raises(OSError, match="Input/output") as caught:
            verb()
        assert caught.value.__cause__ is None
