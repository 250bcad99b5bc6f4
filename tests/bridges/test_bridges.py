"""Bridges, each with what it leads to: sockets, files, asyncio, anyio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import math
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
import weakref
from array import array
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.mutants import opaque
from tests.support import PATIENCE, Ends, drain, fill, pattern, soon, tcp_pair
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.aio.asyncio_host import AsyncioHost
from umbel.bridges import (
    as_asyncio_transport,
    as_socket,
    asyncio_inbound,
    asyncio_transport,
    create_server,
    open_connection,
    start_server,
)
from umbel.handle import open_handles
from umbel.streams.connection import find_connection
from umbel.testing.transports import transport_at_hand

if TYPE_CHECKING:
    from umbel.bridges.asyncio_transport import StreamTransport

anyio = pytest.importorskip("anyio")

HAS_UVLOOP = find_spec("uvloop") is not None
if HAS_UVLOOP:
    import uvloop

    uvloop.new_event_loop().close()  # the first one opens what stays open for good

#: More than any buffer in between can hold.
MUCH = pattern(6 << 20)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(
    request: pytest.FixtureRequest,
) -> Callable[[Callable[[], Coroutine[object, object, None]]], None]:
    """Give what runs a test's main in asyncio's own loop, and in uvloop."""
    if request.param == "uvloop" and not HAS_UVLOOP:
        pytest.skip("uvloop is not installed")

    def run_main(main: Callable[[], Coroutine[object, object, None]]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run_main


Run = Callable[[Callable[[], Coroutine[object, object, None]]], None]

# Sockets.


def test_a_socket_goes_on_where_the_stream_stopped(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"lies unread")
    umbel.bsend(left, b"sent before, ")

    with as_socket(left) as sock:
        assert left not in open_handles
        assert sock.recv(100) == b"lies unread"
        sock.sendall(b"and after")
        assert umbel.brecv(right, 22, soon()) == b"sent before, and after"
        assert sock.gettimeout() is None
        assert sock.getblocking()
    assert umbel.receive(right, 1, soon()) == b""


def test_a_socket_may_outlive_the_loop_that_its_stream_was_used_in(ends: Ends) -> None:
    left, right = ends
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(left, 1, umbel.within(0.001))  # it is watched from now on

    with as_socket(left) as sock:
        umbel.bsend(right, b"x")
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(right, 1, umbel.within(0.001))  # no event of it disturbs
        assert sock.recv(1) == b"x"


def test_a_socket_keeps_the_directions_that_have_ended(ends: Ends) -> None:
    left, right = ends
    umbel.done(left)

    with as_socket(left) as sock:
        assert umbel.receive(right, 1, soon()) == b""
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")
        umbel.bsend(right, b"still open")
        assert sock.recv(100) == b"still open"


def test_multiprocessing_speaks_over_a_socket_of_ours(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = (as_socket(end) for end in ends)
    with Connection(left.detach()) as ours, Connection(right.detach()) as theirs:
        sent = {"numbers": [1, 2, 3], "much": MUCH}
        sending = threads.submit(ours.send, sent)

        assert theirs.recv() == sent
        sending.result()


def test_a_child_process_takes_a_socket_of_ours_as_its_input_and_output() -> None:
    left, right = umbel.ipc_pair()
    code = "import sys; print(sys.stdin.readline().upper(), end='', flush=True)"
    with as_socket(right) as sock:
        command = [sys.executable, "-c", code]
        child = subprocess.Popen(command, stdin=sock.fileno(), stdout=sock.fileno())
    umbel.bsend(left, b"a line\n")

    assert umbel.brecv(left, 7, soon()) == b"A LINE\n"
    assert child.wait(PATIENCE) == 0
    umbel.hclose(left)


def test_what_is_no_idle_stream_with_a_descriptor_becomes_no_socket(
    ends: Ends,
) -> None:
    left, right = ends
    receiving = umbel.go(umbel.receive, left)
    with pytest.raises(umbel.BusyError):
        as_socket(left)
    umbel.hclose(receiving)
    fill(left)
    with pytest.raises(umbel.BrokenStreamError):
        as_socket(left)
    assert left in open_handles
    with transport_at_hand(opaque.transport, "opaque"):
        for end in umbel.pair("opaque"):
            with pytest.raises(umbel.NotSupportedError, match="as_file"):
                as_socket(end)
            umbel.hclose(end)
    umbel.hclose(right)
    with pytest.raises(umbel.BadHandleError):
        as_socket(right)


# asyncio.


async def close_writer(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await asyncio.wait_for(writer.wait_closed(), PATIENCE)


def streams_over(
    handle: umbel.StreamHandle,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = as_asyncio_transport(handle, protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def test_asyncios_streams_carry_much_both_ways(any_ends: Ends, run: Run) -> None:
    left, right = any_ends

    async def main() -> None:
        reader, writer = streams_over(left)
        their_reader, their_writer = streams_over(right)

        async def other_side() -> None:
            while chunk := await their_reader.read(1 << 16):
                their_writer.write(chunk)
                await their_writer.drain()
            await close_writer(their_writer)

        async def send() -> None:
            for start in range(0, len(MUCH), 100_000):
                writer.write(MUCH[start : start + 100_000])
                await writer.drain()
            writer.write_eof()

        echoing, sending = (asyncio.create_task(w()) for w in (other_side, send))
        assert await reader.read() == MUCH
        await sending
        await close_writer(writer)
        await echoing

    run(main)


def test_what_was_written_before_a_close_arrives(any_ends: Ends, run: Run) -> None:
    left, right = any_ends

    async def main() -> None:
        _, writer = streams_over(left)
        writer.write(MUCH)
        writer.close()
        received = await aio.run_blocking(drain, right)
        assert received == MUCH
        await aio.close(right, soon())
        await writer.wait_closed()

    run(main)


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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with a key and a certificate for "umbel", signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    )
    rest = "-days 2 -subj /CN=umbel -addext subjectAltName=DNS:umbel"
    if not which("openssl"):
        pytest.skip("openssl is not installed")
    key = path.with_name("key.pem")
    subprocess.run(
        [*command.split(), *rest.split(), "-keyout", str(key), "-out", str(path)],
        check=True,
        capture_output=True,
    )
    path.write_text(key.read_text() + path.read_text())
    return path


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


def test_asyncio_puts_tls_on_any_stream(any_ends: Ends, certificate: Path) -> None:
    left, right = any_ends
    ours = ssl.create_default_context(cafile=certificate)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader, writer = streams_over(left)
        protocol = Recorder()
        plain = as_asyncio_transport(right, protocol)
        starting = loop.start_tls(plain, protocol, theirs, server_side=True)
        securing = asyncio.create_task(starting)
        await asyncio.wait_for(writer.start_tls(ours, server_hostname="umbel"), 10)
        secured = await securing
        assert secured is not None
        assert writer.get_extra_info("cipher")
        secured.write(MUCH)
        assert await reader.readexactly(len(MUCH)) == MUCH
        writer.write(b"secret")
        await protocol.wait()
        assert protocol.events[-1] == b"secret"
        writer.close()
        await protocol.wait_lost()

    asyncio.run(main())


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


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.events: list[object] = []
        self.lost = asyncio.get_running_loop().create_future()
        self.stays_open = False
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.events.append(data)
        self.came.set()

    def eof_received(self) -> bool:
        self.events.append("end")
        self.came.set()
        return self.stays_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")
        self.came.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(error)

    async def wait(self) -> None:
        await asyncio.wait_for(self.came.wait(), PATIENCE)
        self.came.clear()

    async def wait_lost(self) -> Exception | None:
        error: Exception | None = await asyncio.wait_for(self.lost, PATIENCE)
        return error


def test_a_protocol_is_told_of_everything_in_order(any_ends: Ends, run: Run) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        assert protocol.transport is transport
        assert left not in open_handles
        await aio.bsend(right, b"data")
        await protocol.wait()
        await aio.done(right)
        await protocol.wait()
        assert await aio.receive(right, 1, soon()) == b""
        assert await protocol.wait_lost() is None
        assert protocol.events == ["made", b"data", "end", "lost"]
        assert transport.is_closing()

    run(main)


def test_whether_it_can_end_is_a_bool_also_if_the_transport_cannot_tell(
    any_ends: Ends, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = any_ends

    def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        transport = as_asyncio_transport(left, Recorder())
        functions = find_connection(transport.handle).transport.functions
        monkeypatch.setitem(functions, "umbel_traits", fail)
        assert transport.can_write_eof()
        transport.abort()
        umbel.hclose(right)

    run(main)


def test_a_protocol_may_keep_its_direction_open_after_the_peers_end(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        protocol.stays_open = True
        transport = as_asyncio_transport(left, protocol)
        await aio.done(right)
        await protocol.wait()
        transport.write(b"a word ")
        transport.write(b"more")
        assert transport.can_write_eof()
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"too late")
        received = await aio.run_blocking(drain, right)
        assert received == b"a word more"
        transport.close()
        await aio.close(right, soon())
        assert await protocol.wait_lost() is None

    run(main)


def test_a_direction_that_had_ended_before_may_be_ended_again(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        umbel.done(left)
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        transport.write_eof()
        assert await aio.receive(right, 1, soon()) == b""
        await aio.bsend(right, b"answer")
        await protocol.wait()
        assert protocol.events == ["made", b"answer"]
        transport.abort()
        umbel.hclose(right)
        await protocol.wait_lost()

    run(main)


def test_writing_is_paused_above_the_high_mark_and_resumed_below_the_low(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.write(MUCH)
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > 1000
        transport.write(b"!")

        received = await aio.brecv(right, len(MUCH) + 1, soon())

        assert received == MUCH + b"!"
        await protocol.wait()
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() == 0
        with pytest.raises(ValueError, match="high=1"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.abort()

    run(main)


def test_while_reading_is_paused_nothing_is_told(any_ends: Ends, run: Run) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        assert transport.is_reading()
        await asyncio.sleep(0.001)  # it is receiving now
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        await aio.bsend(right, b"held back")
        await asyncio.sleep(0.005)
        assert protocol.events == ["made"]
        transport.resume_reading()
        await protocol.wait()
        assert protocol.events == ["made", b"held back"]
        transport.abort()

    run(main)


def test_an_aborted_transport_is_closed_at_once_and_tells_so_once(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        transport.write(MUCH)
        transport.abort()
        transport.abort()
        transport.close()
        transport.write(b"dropped")
        assert protocol.events == ["made", "pause"]  # told in the loop's next round
        assert await protocol.wait_lost() is None
        assert protocol.events == ["made", "pause", "lost"]
        with contextlib.suppress(umbel.BrokenStreamError):
            await aio.run_blocking(drain, right)

    run(main)


def test_a_peer_that_leaves_our_bytes_unread_is_told_as_an_error(
    ends: Ends, run: Run
) -> None:
    left, right = ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        transport.write(b"never read")
        transport.close()
        umbel.hclose(right)
        assert isinstance(await protocol.wait_lost(), umbel.BrokenStreamError)

    run(main)


@pytest.mark.parametrize("does", ["receives", "sends"])
def test_a_peer_that_goes_amid_a_call_is_told_as_an_error(
    any_ends: Ends, run: Run, does: str
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        if does == "sends":
            transport.pause_reading()
            transport.write(MUCH)
        else:
            transport.write(b"never read")
        await asyncio.sleep(0.001)  # the call waits from now on
        umbel.hclose(right)
        assert isinstance(await protocol.wait_lost(), umbel.BrokenStreamError)

    run(main)


def test_a_peer_that_has_not_read_everything_and_stays_is_an_error(
    ends: Ends, run: Run
) -> None:
    left, _ = ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol, grace=0.01)
        transport.write(b"never read")
        transport.close()
        assert isinstance(await protocol.wait_lost(), umbel.DeadlineError)

    run(main)


def test_after_a_close_writes_are_taken_as_long_as_some_are_unsent_as_asyncio_does(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol, grace=math.inf)
        transport.write(MUCH)
        transport.close()
        transport.write(b"last")
        assert await aio.run_blocking(drain, right) == MUCH + b"last"
        await aio.close(right, soon())
        assert await protocol.wait_lost() is None
        transport.write(b"dropped")

    run(main)


def test_with_none_unsent_they_are_dropped(any_ends: Ends, run: Run) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol, grace=math.inf)
        transport.close()
        transport.write(b"dropped")
        assert await aio.run_blocking(drain, right) == b""
        await aio.close(right, soon())
        assert await protocol.wait_lost() is None

    run(main)


def test_the_tasks_of_transports_that_have_ended_are_forgotten(run: Run) -> None:
    async def main() -> None:
        left, right = umbel.ipc_pair()
        transport = as_asyncio_transport(left, Recorder())
        host = current_hub().host
        assert isinstance(host, AsyncioHost)
        assert len(host.backstage._tasks) == 1
        transport.abort()
        await transport.wait_lost()
        await asyncio.sleep(0)
        assert not host.backstage._tasks
        umbel.hclose(right)

    run(main)


def test_an_aborted_transport_whose_reading_is_paused_leaves_nothing_behind(
    ends: Ends, run: Run
) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(ends[0], protocol)
        transport.pause_reading()
        await asyncio.sleep(0.001)
        transport.abort()
        await protocol.wait_lost()
        there = weakref.ref(transport)
        del transport, protocol
        await asyncio.sleep(0.001)  # its task ends, if it was told to
        gc.collect()
        assert there() is None

    run(main)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_transport_whose_loop_was_just_closed_is_collected(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        as_asyncio_transport(left, Recorder())
        await asyncio.sleep(0.001)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    asyncio.run(aio.msleep(0))  # the hub is another loop's
    gc.collect()

    assert umbel.receive(right, 1, soon()) == b""


def test_a_peer_that_has_read_everything_and_stays_is_no_error(
    ends: Ends, run: Run
) -> None:
    left, right = ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol, grace=0.01)
        transport.write(b"read")
        assert await aio.brecv(right, 4, soon()) == b"read"
        transport.close()
        assert await protocol.wait_lost() is None

    run(main)


def test_what_comes_after_a_close_is_not_told(
    any_ends: Ends, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = any_ends
    monkeypatch.setattr(asyncio_inbound, "RECEIVE_SIZE", 3)
    umbel.bsend(right, b"onetwo")

    class Closing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            assert self.transport is not None
            self.transport.close()

    async def main() -> None:
        protocol = Closing()
        as_asyncio_transport(left, protocol)
        await aio.close(right, soon())
        assert await protocol.wait_lost() is None
        assert protocol.events == ["made", b"one", "lost"]

    run(main)


@pytest.mark.parametrize("moment", ["before", "while", "pausing"])
def test_a_peer_that_stays_and_reads_nothing_holds_up_no_close(
    any_ends: Ends, run: Run, moment: str
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol, grace=0.05)
        if moment == "pausing":
            protocol.pause_writing = transport.close  # type: ignore[method-assign]
        transport.write(MUCH)
        if moment == "while":
            await asyncio.sleep(0.005)  # it is being sent
        began = umbel.now()
        transport.close()
        assert isinstance(await protocol.wait_lost(), umbel.DeadlineError)
        assert 50 <= umbel.now() - began < 5000
        umbel.hclose(right)

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("pair", [umbel.ipc_pair, tcp_pair], ids=["ipc", "tcp"])
def test_a_peer_that_reads_slowly_gets_all_of_it(pair: Callable[[], Ends]) -> None:
    left, right = pair()

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol, grace=0.4)
        transport.write(MUCH)
        transport.close()
        received = bytearray()
        until = umbel.within(0.8)  # twice the grace
        while chunk := await aio.receive(right, 1 << 16, soon()):
            received += chunk
            if umbel.now() < until:
                await asyncio.sleep(0.02)
        assert received == MUCH
        await aio.close(right, soon())
        assert await protocol.wait_lost() is None

    asyncio.run(main())


class Buffered(asyncio.BufferedProtocol):
    """Takes what comes into a small buffer of its own."""

    def __init__(self) -> None:
        self.buffer: bytearray | array[int] = bytearray(7)
        self.taken = b""
        self.ended = asyncio.Event()

    def get_buffer(self, sizehint: int) -> bytearray | array[int]:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.taken += memoryview(self.buffer).cast("B")[:nbytes]

    def eof_received(self) -> None:
        self.ended.set()


@pytest.mark.parametrize("buffer", [bytearray(7), array("H", [0] * 7)], ids=repr)
def test_a_buffered_protocol_gets_all_in_its_own_buffer(
    buffer: bytearray | array[int], any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Buffered()
        protocol.buffer = buffer
        as_asyncio_transport(left, protocol)
        await aio.bsend(right, pattern(100))
        await aio.close(right, soon())
        await asyncio.wait_for(protocol.ended.wait(), PATIENCE)
        assert protocol.taken == pattern(100)

    run(main)


class Meanwhile(Buffered):
    """Does something as the first part of what came is told."""

    def __init__(self, act: Callable[[asyncio.Transport], object]) -> None:
        super().__init__()
        self.act = act

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.taken == b"abcdefg":
            self.act(self.transport)


@pytest.mark.parametrize("kind", ["asyncio's own", "umbel's"])
@pytest.mark.parametrize("act", ["pause_reading", "close", "abort", "set_protocol"])
def test_a_buffered_protocol_that_has_enough_gets_no_more(act: str, kind: str) -> None:
    async def main() -> None:
        other = Buffered()
        arguments = [other] if act == "set_protocol" else []
        protocol = Meanwhile(lambda transport: getattr(transport, act)(*arguments))
        near, far = socket.socketpair()
        if kind == "umbel's":
            as_asyncio_transport(umbel.ipc_fromfd(near.detach()), protocol)
        else:
            near.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: protocol, sock=near)
        with far:
            far.sendall(b"abcdefghijklmn")
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert protocol.taken == b"abcdefg"
            assert other.taken == (b"hijklmn" if arguments else b"")
            protocol.transport.resume_reading()
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert protocol.taken == b"abcdefg" + b"hijklmn" * (act == "pause_reading")
            protocol.transport.abort()
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_protocol_that_fails_is_reported_to_the_loop_and_closed(
    ends: Ends, run: Run
) -> None:
    left, right = ends

    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ValueError("I can't read this")

    async def main() -> None:
        told: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        protocol = Failing()
        as_asyncio_transport(left, protocol)
        await aio.bsend(right, b"x")
        assert isinstance(await protocol.wait_lost(), ValueError)
        assert isinstance(told[0]["exception"], ValueError)

    run(main)


@pytest.mark.parametrize("does_abort", [False, True])
def test_a_protocol_that_fails_at_once_leaves_nothing_open(
    does_abort: bool, ends: Ends
) -> None:
    left, right = ends

    class Failing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            if does_abort:
                transport.abort()
            raise ValueError("not today")

    async def main() -> None:
        with pytest.raises(ValueError, match="not today"):
            as_asyncio_transport(left, Failing())
        assert await aio.receive(right, 1, soon()) == b""

    asyncio.run(main())


def test_a_loop_that_ends_closes_its_transports(any_ends: Ends, run: Run) -> None:
    left, right = any_ends
    kept: list[StreamTransport] = []

    async def main() -> None:
        kept.append(as_asyncio_transport(left, Recorder()))
        await asyncio.sleep(0)

    run(main)

    assert kept[0].is_closing()
    assert umbel.receive(right, 1, soon()) == b""


def test_a_handler_can_say_goodbye_when_all_tasks_are_canceled(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            await asyncio.sleep(0)  # as who must look something up first
            writer.write(b"bye")
            await writer.drain()
            writer.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, talk)
        as_asyncio_transport(left, protocol)
        await asyncio.sleep(0)
        others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        assert len(others) == 1  # the handler: what is behind it is no task of ours
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=PATIENCE)

    run(main)

    assert umbel.brecv(right, 3, soon()) == b"bye"
    assert umbel.receive(right, 1, soon()) == b""


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


class Plain:
    """A protocol by its methods alone, as asyncio takes it."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.events.append(data)

    def eof_received(self) -> None:
        self.events.append("end")

    def connection_lost(self, error: Exception | None) -> None:
        pass


def test_a_protocol_need_not_derive_from_asyncios(any_ends: Ends, run: Run) -> None:
    left, right = any_ends
    umbel.bsend(right, b"hello")
    umbel.done(right)
    protocol = Plain()

    async def main() -> None:
        transport = as_asyncio_transport(left, protocol)  # type: ignore[arg-type]  # what it is about
        closing = asyncio.create_task(aio.run_blocking(umbel.close, right, soon()))
        await asyncio.wait_for(transport.wait_lost(), PATIENCE)
        await closing

    run(main)

    assert protocol.events == [b"hello", "end"]


def test_a_protocol_that_can_take_nothing_is_reported(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"hello")
    reports: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, report: reports.append(report["exception"])
        )
        transport = as_asyncio_transport(left, asyncio.BaseProtocol())
        await asyncio.wait_for(transport.wait_lost(), PATIENCE)

    asyncio.run(main())

    assert "data_received" in str(reports[0])


def test_names_are_told_also_when_the_connection_is_lost(run: Run) -> None:
    left, right = tcp_pair()

    async def main() -> None:
        transport = as_asyncio_transport(left, Recorder())
        names = [transport.get_extra_info(f"{which}name") for which in ("peer", "sock")]
        assert all(names)
        transport.abort()
        await transport.wait_lost()
        assert names == [
            transport.get_extra_info(f"{which}name") for which in ("peer", "sock")
        ]

    run(main)
    umbel.hclose(right)


class Busy(Recorder):
    """Takes long for each piece; notes how many turns others have had by then."""

    turns = 0

    def data_received(self, data: bytes) -> None:
        self.events.append(self.turns)
        time.sleep(2 * asyncio_inbound.LONGEST_TURN)


def test_a_busy_protocol_and_a_flood_do_not_keep_others_from_running(run: Run) -> None:
    left, right = umbel.pair("ipc")
    stop = threading.Event()

    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while not stop.is_set():
                umbel.bsend(right, bytes(1 << 20))
        umbel.hclose(right)

    async def main() -> None:
        protocol = Busy()
        transport = as_asyncio_transport(left, protocol)
        while len(protocol.events) < 20:
            protocol.turns += 1
            await asyncio.sleep(0)
        transport.abort()
        # At most two pieces in one turn: one that it waited for, and the next.
        assert max(map(protocol.events.count, range(protocol.turns + 1))) <= 2

    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood)
        run(main)
        stop.set()
        flooding.result()


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


def test_a_transport_tells_whose_it_is(ends: Ends) -> None:
    left, right = ends
    over_tcp = tcp_pair()

    async def main() -> None:
        transport = as_asyncio_transport(left, Recorder())
        peer = transport.get_extra_info("umbel.peer")
        assert isinstance(peer, umbel.PeerIdentity)
        assert transport.get_extra_info("peername") == ""
        assert transport.get_extra_info("socket") is None
        assert transport.get_extra_info("nonsense", 5) == 5
        assert transport.get_extra_info("umbel.handle") in open_handles
        transport.abort()
        transport = as_asyncio_transport(over_tcp[0], Recorder())
        peer_name = transport.get_extra_info("peername")
        assert isinstance(peer_name, tuple)
        assert peer_name[0] == "127.0.0.1"
        assert peer_name[1] > 0
        assert "open" in repr(transport)
        transport.abort()
        umbel.hclose(over_tcp[1])
        umbel.hclose(right)

    asyncio.run(main())


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


class Refilling(Recorder):
    """Writes more as soon as there is room, from within the call that tells so."""

    def resume_writing(self) -> None:
        super().resume_writing()
        assert self.transport is not None
        self.transport.write(b"last")


@pytest.fixture
def be_eager() -> Callable[[], None]:
    """Give what makes the running loop begin each task at once."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks are of Python 3.12")
    return lambda: asyncio.get_running_loop().set_task_factory(factory)


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


def test_what_eager_tasks_send_keeps_its_order(
    any_ends: Ends, be_eager: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = any_ends
    data = pattern(3000)
    monkeypatch.setattr(asyncio_transport, "SEND_SIZE", 1000)

    async def main() -> None:
        be_eager()
        transport = as_asyncio_transport(left, Refilling())
        transport.set_write_buffer_limits(high=2500, low=2000)
        transport.write(data)
        transport.write_eof()
        received = await aio.run_blocking(drain, right)
        assert received in (data, data + b"last")  # it may never have been full
        transport.abort()

    asyncio.run(main())


# anyio.


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


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


def test_importing_the_bridges_imports_neither_asyncio_nor_anyio() -> None:
    from tests.support import run_python

    code = "import sys, umbel.bridges; print({'asyncio', 'anyio'} & set(sys.modules))"
    assert run_python(code) == "set()\n"


def test_a_transport_that_comes_after_the_loop_has_shut_down_can_be_ended(
    ends: Ends,
) -> None:
    left, right = ends

    async def main() -> None:
        loop = asyncio.get_running_loop()
        early, _ = umbel.pair("mem")
        as_asyncio_transport(early, Recorder())
        await loop.shutdown_asyncgens()
        kept.append(as_asyncio_transport(left, Recorder()))
        # Here asyncio.run cancels all tasks.

    kept: list[StreamTransport] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of `_`, which is forgotten
        asyncio.run(main())

    assert kept[0].is_closing()
    assert umbel.receive(right, 1, soon()) == b""


def test_a_socket_blocks_whatever_the_mode_of_its_stream(
    listener: umbel.ListenerHandle, threads: ThreadPoolExecutor
) -> None:
    left = umbel.connect(listener.address)  # whose descriptor does not block
    right = umbel.accept(listener)

    with as_socket(left) as sock:
        receiving = threads.submit(sock.recv, 1)
        time.sleep(0.01)
        umbel.bsend(right, b"x")
        assert receiving.result(PATIENCE) == b"x"
    umbel.hclose(right)


def test_of_the_two_limits_of_a_writer_the_other_follows(ends: Ends) -> None:
    async def main() -> None:
        transport = as_asyncio_transport(ends[0], Recorder())
        transport.set_write_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (1 << 14, 1 << 16)
        transport.abort()

    asyncio.run(main())


def test_who_wants_nothing_buffered_goes_on_once_all_is_sent(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        transport.set_write_buffer_limits(0)
        transport.write(MUCH)
        await aio.brecv(right, len(MUCH), soon())
        await protocol.wait()
        assert protocol.events == ["made", "pause", "resume"]
        transport.abort()

    run(main)


def test_a_transport_can_be_aborted_when_its_loop_was_closed(ends: Ends) -> None:
    async def main() -> StreamTransport:
        return as_asyncio_transport(ends[0], asyncio.Protocol())

    loop = asyncio.new_event_loop()
    transport = loop.run_until_complete(main())
    loop.close()

    transport.abort()

    assert transport.handle not in open_handles
    assert umbel.receive(ends[1], 1, soon()) == b""


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


def test_of_two_who_wait_for_the_end_one_is_canceled_alone(
    ends: Ends, run: Run
) -> None:
    async def main() -> None:
        transport = as_asyncio_transport(ends[0], Recorder())
        first, second = (asyncio.create_task(transport.wait_lost()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        transport.abort()
        await asyncio.wait_for(second, PATIENCE)

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


def test_a_direction_that_had_ended_before_keeps_no_close_from_good_order(
    any_ends: Ends, run: Run
) -> None:
    left, right = any_ends

    async def main() -> None:
        umbel.done(left)
        protocol = Recorder()
        transport = as_asyncio_transport(left, protocol)
        transport.close()
        await aio.close(right, soon())
        assert await protocol.wait_lost() is None

    run(main)
