"""asyncio's transports over a stream: protocols, TLS, closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import socket
import ssl
import threading
import warnings
import weakref
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.support import PATIENCE, Ends, drain, pattern, soon, tcp_pair
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.aio.asyncio_host import AsyncioHost
from umbel.bridges import (
    as_asyncio_transport,
    asyncio_inbound,
    asyncio_transport,
)
from umbel.handle import open_handles
from umbel.streams.connection import find_connection

if TYPE_CHECKING:
    from umbel.bridges.asyncio_transport import StreamTransport
from tests.bridges.recording import (
    MUCH,
    Buffered,
    Busy,
    Meanwhile,
    Plain,
    Recorder,
    Refilling,
    Run,
    close_writer,
    streams_over,
)


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
