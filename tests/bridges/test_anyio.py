"""anyio's streams over ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.support import Ends, tcp_pair
from umbel.bridges import (
    as_asyncio_transport,
    create_server,
    open_connection,
    start_server,
)
from umbel.handle import open_handles

if TYPE_CHECKING:
    pass
from tests.bridges.recording import MUCH, Recorder

anyio = pytest.importorskip("anyio")


def test_a_negative_grace_is_refused_before_anything_is_taken_over(ends: Ends) -> None:
    from umbel.bridges import as_anyio_stream

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        listener = umbel.listen("mem://grace")
        with pytest.raises(ValueError, match="grace is -1"):
            as_asyncio_transport(ends[0], Recorder(), grace=-1)
        with pytest.raises(ValueError, match="grace is nan"):
            as_anyio_stream(ends[0], grace=float("nan"))
        with pytest.raises(ValueError, match="grace is -1"):
            await create_server(listener, Recorder, grace=-1)
        with pytest.raises(ValueError, match="grace is -1"):
            await start_server(listener, talk, grace=-1)
        with pytest.raises(ValueError, match="grace"):
            await open_connection(listener.address, grace=-1)
        assert ends[0] in open_handles
        umbel.hclose(listener)

    asyncio.run(main())


def test_anyios_own_streams_work_over_ours(any_ends: Ends, backend: str) -> None:
    from anyio.streams.buffered import BufferedByteReceiveStream
    from anyio.streams.text import TextStream

    from umbel.bridges import as_anyio_stream

    left, right = any_ends

    async def main() -> None:
        async with as_anyio_stream(left) as ours, as_anyio_stream(right) as theirs:
            assert left not in open_handles
            await ours.send(b"a line\nand ")
            reader = BufferedByteReceiveStream(theirs)
            assert await reader.receive_until(b"\n", 100) == b"a line"
            assert await reader.receive_exactly(4) == b"and "
            await TextStream(theirs).send("Ω")
            assert await TextStream(ours).receive() == "Ω"
            await ours.send_eof()
            await ours.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await theirs.receive()
            await theirs.send_eof()  # or the first to close would wait for the other

    anyio.run(main, backend=backend)


def test_much_goes_through_an_anyio_stream(any_ends: Ends, backend: str) -> None:
    from umbel.bridges import as_anyio_stream

    left, right = any_ends

    async def main() -> None:
        ours, theirs = as_anyio_stream(left), as_anyio_stream(right)

        async def send() -> None:
            await ours.send(MUCH)
            await ours.aclose()

        received = bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            async for chunk in theirs:
                received += chunk
            await theirs.aclose()
        assert received == MUCH

    anyio.run(main, backend=backend)


def test_the_errors_of_an_anyio_stream_are_anyios(ends: Ends, backend: str) -> None:
    from umbel.bridges import as_anyio_stream

    left, right = ends

    async def main() -> None:
        ours = as_anyio_stream(left)

        async def receive() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await ours.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await ours.receive()
            tasks.start_soon(ours.aclose)
            await anyio.wait_all_tasks_blocked()  # until the peer ends, too
            umbel.hclose(right)
        await ours.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await ours.send(b"x")

        left2, right2 = umbel.ipc_pair()
        ours = as_anyio_stream(left2)
        umbel.hclose(right2)
        with pytest.raises(anyio.BrokenResourceError):
            await ours.send(b"x")
        await ours.aclose()

    anyio.run(main, backend=backend)


def test_a_canceled_anyio_stream_loses_nothing_and_is_closed(
    any_ends: Ends, backend: str
) -> None:
    from umbel.bridges import as_anyio_stream

    left, right = any_ends

    async def main() -> None:
        ours = as_anyio_stream(left)
        with anyio.move_on_after(0.005) as scope:
            await ours.receive()
        assert scope.cancelled_caught
        umbel.bsend(right, b"all of it")
        assert await ours.receive() == b"all of it"
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ours.aclose()
        assert umbel.receive(right, 1, 0) == b""

    anyio.run(main, backend=backend)


def test_an_anyio_stream_obeys_a_scope_that_is_canceled_already(
    ends: Ends, backend: str
) -> None:
    from umbel.bridges import as_anyio_stream

    async def main() -> None:
        left, right = as_anyio_stream(ends[0]), as_anyio_stream(ends[1])
        await left.send(b"xy")
        for call in (left.receive, lambda: right.send(b"z"), right.receive):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        assert await right.receive() == b"xy"
        await left.aclose()
        await right.aclose()

    anyio.run(main, backend=backend)


def test_an_anyio_stream_tells_whose_it_is(ends: Ends, backend: str) -> None:
    from umbel.bridges import UmbelAttribute, as_anyio_stream

    left, right = ends
    address = left.address

    async def main() -> None:
        ours = as_anyio_stream(left)
        assert ours.extra(UmbelAttribute.handle) in open_handles
        assert ours.extra(UmbelAttribute.address) == address
        assert ours.extra(UmbelAttribute.peer).uid >= 0
        assert ours.extra(anyio.abc.SocketAttribute.remote_address) == ""
        with pytest.raises(anyio.TypedAttributeLookupError):
            ours.extra(anyio.abc.SocketAttribute.raw_socket)
        umbel.hclose(right)
        await ours.aclose()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_what_a_stream_does_not_know_gives_the_default(kind: str, backend: str) -> None:
    from umbel.bridges import UmbelAttribute, as_anyio_stream

    left, right = tcp_pair() if kind == "tcp" else umbel.pair(kind)

    async def main() -> None:
        ours = as_anyio_stream(left)
        name = ours.extra(anyio.abc.SocketAttribute.remote_address)
        if kind == "tcp":
            assert ours.extra(UmbelAttribute.peer, None) is None
        umbel.hclose(right)
        await ours.aclose()
        assert ours.extra(UmbelAttribute.peer, None) is None
        with pytest.raises(anyio.TypedAttributeLookupError):
            ours.extra(UmbelAttribute.peer)
        assert ours.extra(anyio.abc.SocketAttribute.remote_address) == name
        assert len(ours.extra_attributes) == len({**ours.extra_attributes}) == 4

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("size", [0, -1])
def test_to_receive_nothing_is_refused_and_breaks_nothing(
    ends: Ends, size: int, backend: str
) -> None:
    from umbel.bridges import as_anyio_stream

    left, right = ends

    async def main() -> None:
        ours = as_anyio_stream(left)
        with pytest.raises(ValueError, match="max_bytes"):
            await ours.receive(size)
        umbel.bsend(right, b"data")
        assert await ours.receive() == b"data"
        umbel.hclose(right)
        await ours.aclose()

    anyio.run(main, backend=backend)
