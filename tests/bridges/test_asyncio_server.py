"""asyncio's way to connect and to serve."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.support import PATIENCE, Ends, soon
from umbel import aio
from umbel.bridges import (
    as_socket,
    create_server,
    open_connection,
    start_server,
)
from umbel.handle import open_handles

if TYPE_CHECKING:
    pass
from tests.bridges.recording import MUCH, Recorder, Run, close_writer


def test_a_reader_holds_as_much_as_it_was_told_to() -> None:
    line = bytes(100_000) + b"\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def main() -> None:
        size = len(line)
        listener = aio.listen("mem://lines")
        with pytest.raises(ValueError, match="Limit"):
            await start_server(listener, talk, reader_limit=0)
        with pytest.raises(ValueError, match="Limit"):
            await open_connection("mem://lines", soon(), reader_limit=0)
        async with await start_server(listener, talk, reader_limit=size):
            reader, writer = await open_connection(
                "mem://lines", soon(), reader_limit=size
            )
            writer.write(line)
            assert await reader.readline() == line
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_an_asyncio_server_and_client_over_any_address(run: Run) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await close_writer(writer)

    async def main() -> None:
        async with await start_server(aio.listen("mem://asyncio"), talk) as server:
            assert server.is_serving()
            reader, writer = await open_connection("mem://asyncio", soon())
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            await close_writer(writer)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await open_connection("mem://asyncio", soon())

    run(main)


def test_a_second_server_at_once_is_refused_and_leaves_the_first(run: Run) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        listener = aio.listen("mem://twice")
        async with await start_server(listener, talk) as first:
            with pytest.raises(umbel.BusyError):
                await start_server(listener, talk)
            assert first.is_serving()
            client = await aio.connect("mem://twice")
            assert await client.receive(deadline=umbel.within(5)) == b""
            client.abort()

    run(main)


def test_a_talk_that_ends_before_it_began_leaves_no_connection(run: Run) -> None:
    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise AssertionError

    async def main() -> None:
        server = await start_server(aio.listen("mem://unbegun"), talk)
        client = await aio.connect("mem://unbegun")
        before = asyncio.all_tasks()
        while not (begun := asyncio.all_tasks() - before):
            await asyncio.sleep(0)
        for task in begun:
            task.cancel()
        assert await client.receive(deadline=umbel.within(5)) == b""
        client.abort()
        server.close()
        await server.wait_closed()

    run(main)


def test_a_talk_that_fails_is_told_of_and_its_connection_closed(run: Run) -> None:
    told: list[dict[str, object]] = []

    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise KeyError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        server = await start_server(aio.listen("mem://failed"), talk)
        client = await aio.connect("mem://failed")
        assert await client.receive(deadline=umbel.within(5)) == b""
        client.abort()
        server.close()
        await server.wait_closed()

    run(main)

    (context,) = told
    assert isinstance(context["exception"], KeyError)


def test_a_writer_puts_tls_on_its_stream_on_any_loop(
    certificate: Path, run: Run
) -> None:
    ours = ssl.create_default_context(cafile=certificate)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(theirs)
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def main() -> None:
        async with await start_server(aio.listen("mem://tls"), talk):
            reader, writer = await open_connection("mem://tls", soon())
            await writer.start_tls(ours, server_hostname="umbel")
            assert writer.get_extra_info("cipher")
            assert isinstance(writer.get_extra_info("umbel.peer"), umbel.PeerIdentity)
            reading = asyncio.create_task(reader.readexactly(len(MUCH)))
            writer.write(MUCH)
            assert await asyncio.wait_for(reading, PATIENCE) == MUCH
            await close_writer(writer)

    run(main)


def test_so_can_the_handlers_of_a_server(run: Run) -> None:
    came: list[aio.AsyncStreamHandle] = []
    has_begun = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(5)
            has_begun.set()
            await reader.read()
        finally:
            await asyncio.sleep(0)
            writer.write(b"bye")
            await writer.drain()

    async def main() -> None:
        await start_server(aio.listen("mem://goodbye"), talk)
        came.append(umbel.hown(await aio.connect("mem://goodbye")))
        await came[0].send(b"hello")
        await asyncio.wait_for(has_begun.wait(), PATIENCE)
        # Here asyncio.run cancels all tasks.

    run(main)

    with as_socket(came[0]) as client:
        assert client.recv(100) == b"bye"


def test_a_connection_that_is_not_made_in_time_is_etimedout(run: Run) -> None:
    async def main() -> None:
        listener = aio.listen("mem://full", 1)
        queued = umbel.connect("mem://full")
        with pytest.raises(umbel.DeadlineError):
            await open_connection("mem://full", umbel.within(0.01))
        listener.abort()
        queued.abort()

    run(main)


def test_a_server_of_protocols_holds_its_limit_and_its_clients(run: Run) -> None:
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async def main() -> None:
        listener = aio.listen("mem://protocols")
        server = await create_server(listener, make, limit=1)
        assert server.sockets == ()
        assert server.get_loop() is asyncio.get_running_loop()
        await server.start_serving()
        first = await aio.connect("mem://protocols", soon())
        second = await aio.connect("mem://protocols", soon())
        await first.send(b"1")
        await second.send(b"2")
        while not made:
            await asyncio.sleep(0.001)
        await made[0].wait()
        await asyncio.sleep(0.005)
        assert len(made) == 1
        server.close_clients()
        assert await first.receive(1, soon()) == b""
        await first.close(soon())
        while len(made) < 2:
            await asyncio.sleep(0.001)
        await made[1].wait()
        server.close()
        assert not server.is_serving()
        server.abort_clients()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)
        assert await second.receive(1, soon()) == b""
        second.abort()

    run(main)


def test_serve_forever_ends_when_it_is_canceled(run: Run) -> None:
    async def main() -> None:
        server = await create_server(aio.listen("mem://forever"), Recorder)
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0.001)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()
        await server.wait_closed()

    run(main)


def test_a_server_that_is_closed_before_it_began_has_not_failed(run: Run) -> None:
    async def main() -> None:
        told: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        server = await create_server(aio.listen("mem://at-once"), Recorder)
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)
        await server.serve_forever()
        assert told == []

    run(main)


def test_a_server_whose_listener_is_busy_has_failed(run: Run) -> None:
    async def main() -> None:
        told: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        listener = aio.listen("mem://busy")
        accepting = asyncio.create_task(aio.accept(listener))
        server = await create_server(listener, Recorder)
        await asyncio.wait_for(server.wait_closed(), PATIENCE)
        await asyncio.sleep(0)  # until it is told
        assert isinstance(told[0]["exception"], umbel.BusyError)
        accepting.cancel()
        listener.abort()

    run(main)


def test_a_server_on_what_is_no_listener_is_refused(ends: Ends) -> None:
    async def main() -> None:
        with pytest.raises(umbel.NotSupportedError):
            await create_server(ends[0], Recorder)  # type: ignore[arg-type]  # ditto
        listener = aio.listen("mem://refused")
        with pytest.raises(OSError, match="limit is 0") as caught:
            await create_server(listener, Recorder, limit=0)
        assert caught.value.errno == errno.EINVAL
        listener.abort()

    asyncio.run(main())


def test_a_writer_is_closed_where_tasks_are_eager(be_eager: Callable[[], None]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await close_writer(writer)

    async def main() -> None:
        be_eager()
        async with await start_server(aio.listen("mem://eager"), talk):
            reader, writer = await open_connection("mem://eager", soon())
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"HELLO"
            await close_writer(writer)

    asyncio.run(main())


def test_a_protocol_that_fails_at_its_end_keeps_no_place_in_a_server(run: Run) -> None:
    class Failing(Recorder):
        def connection_lost(self, error: Exception | None) -> None:
            raise ValueError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        listener = aio.listen("mem://failing")
        server = await create_server(listener, Failing, limit=1)
        for _ in range(2):
            async with await aio.connect("mem://failing", soon()) as stream:
                await stream.done()
                assert await stream.receive(1, soon()) == b""
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)

    run(main)


def test_a_server_that_is_canceled_as_it_begins_listens_no_more(run: Run) -> None:
    async def main() -> None:
        listener = aio.listen("mem://never")
        beginning = asyncio.create_task(create_server(listener, Recorder))
        await asyncio.sleep(0)
        beginning.cancel()
        await asyncio.wait([beginning])
        assert beginning.cancelled()
        assert listener not in open_handles

    run(main)
