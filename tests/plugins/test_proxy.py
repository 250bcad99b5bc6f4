"""Streams in front of others: `StreamProxy`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

import umbel
from umbel.bridges import as_socket
from umbel.plugins import add_plugin, remove_plugin
from umbel.spi import (
    DescriptorPassing,
    Fileno,
    Outcome,
    PairContext,
    PeerIdentity,
    Stream,
    StreamAttempts,
    StreamProxy,
    Transfer,
    UnreadBytes,
    Wrapped,
    hookimpl,
)
from umbel.streams.connection import find_connection

WITHHELD = (StreamAttempts, DescriptorPassing, Transfer, Fileno)


class Loud(StreamProxy):
    __slots__ = ()

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        super().send([memoryview(bytes(b).upper()) for b in buffers], deadline)


class Frank(StreamProxy):
    """Offers all that the stream behind it does."""

    __slots__ = ()

    def attempts(self, found: StreamAttempts) -> StreamAttempts:
        return found

    def descriptor_passing(self, found: DescriptorPassing) -> DescriptorPassing:
        return found

    def transfer(self, found: Transfer) -> Transfer:
        return found

    def fileno(self, found: Fileno) -> Fileno:
        return found


@contextmanager
def put_in_front(proxy: type[StreamProxy]) -> Iterator[None]:
    class Putting:
        @hookimpl.pair.wrapper
        def pairing(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
            outcome = yield
            if outcome.value is not None:
                left, right = outcome.value
                outcome = Outcome((proxy(left), proxy(right)))
            return outcome

    add_plugin(Putting(), "putting")
    try:
        yield
    finally:
        remove_plugin("putting")


def test_each_byte_passes_by_a_proxy() -> None:
    with put_in_front(Loud):
        left, right = umbel.ipc_pair()
    with left, right:
        for size in (1, 100, 100_000, 3_000_000):
            data = b"a" * size
            with umbel.go(umbel.bsendl, left, [data, data]):
                assert umbel.brecv(right, 2 * size) == b"A" * (2 * size)
        umbel.done(left)
        umbel.done(right)


def test_what_would_pass_by_it_is_withheld() -> None:
    with put_in_front(Loud):
        left, right = umbel.ipc_pair()
    for kind in WITHHELD:
        with pytest.raises(umbel.NotSupportedError):
            umbel.hquery(left, kind)
    with pytest.raises(umbel.NotSupportedError, match="no stream socket"):
        as_socket(left)

    assert umbel.hquery(left, UnreadBytes).is_zero()
    umbel.hquery(left, PeerIdentity)
    umbel.hclose(left)
    umbel.hclose(right)


def test_what_a_proxy_offers_is_used() -> None:
    with put_in_front(Frank):
        left, right = umbel.ipc_pair()
    for kind in WITHHELD:
        umbel.hquery(left, kind)
    with as_socket(left) as sock:
        sock.sendall(b"raw")
        assert umbel.brecv(right, 3) == b"raw"
    umbel.hclose(right)


def test_a_stream_behind_is_found_by_its_class() -> None:
    with put_in_front(Loud):
        left, right = umbel.ipc_pair()
    front = find_connection(left).stream
    assert isinstance(front, Loud)

    assert umbel.hquery(left, Loud) is front
    assert umbel.hquery(left, type(front.inner)) is front.inner
    umbel.hclose(left)
    umbel.hclose(right)
