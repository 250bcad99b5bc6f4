"""Clients and servers of the Model Context Protocol, over umbel."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("mcp")

import anyio
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

import umbel
from tests.support import PATIENCE, Ends, pattern, run_python, soon
from umbel import Address, aio
from umbel.handle import open_handles
from umbel_plugins.integrations.mcp_transport import (
    Inbound,
    mcp_client,
    mcp_streams,
    serve_mcp,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def make_server() -> MCPServer:
    server = MCPServer("stalks")

    # Awaited: it runs others in threads, which trio keeps for a while.
    @server.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    async def repeat(text: str, times: int) -> str:
        return text * times

    @server.resource("umbel://greeting")
    async def greeting() -> str:
        return "hello"

    return server


@asynccontextmanager
async def serving(address: Address) -> AsyncIterator[None]:
    listener = aio.listen(address)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(aio.serve, listener, partial(serve_mcp, make_server()))
        yield
        await aio.close(listener)


def run(main: Callable[[], Awaitable[None]], backend: str) -> None:
    anyio.run(main, backend=backend)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_calls_a_tool(address: Address, backend: str, mode: str) -> None:
    async def main() -> None:
        async with serving(address), Client(mcp_client(address), mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("add", {"a": 40, "b": 2})

            assert names == ["add", "repeat"]
            assert result.structured_content == {"result": 42}

    run(main, backend)


def test_a_message_may_be_longer_than_any_buffer(
    address: Address, backend: str
) -> None:
    async def main() -> None:
        async with serving(address), Client(mcp_client(address)) as client:
            arguments = {"text": "äöü\n" * 1000, "times": 500}
            result = await client.call_tool("repeat", arguments)

            assert result.structured_content == {"result": "äöü\n" * 500_000}

    run(main, backend)


def test_what_a_message_does_not_say_is_not_sent(ends: Ends, backend: str) -> None:
    left, right = ends
    message = JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized")

    async def main() -> bytes:
        async with mcp_streams(left) as (_, outbound):
            await outbound.send(SessionMessage(message))
            line = await aio.receive(right)
            umbel.done(right)
        return line

    assert json.loads(anyio.run(main, backend=backend)) == {
        "jsonrpc": "2.0",
        "method": "notifications/initialized",
    }


def test_many_clients_are_served_at_once(address: Address, backend: str) -> None:
    async def main() -> None:
        totals: list[object] = []

        async def ask(number: int) -> None:
            async with Client(mcp_client(address)) as client:
                result = await client.call_tool("add", {"a": number, "b": 1})
                totals.append(result.structured_content)

        async with serving(address), anyio.create_task_group() as asking:
            for number in range(10):
                asking.start_soon(ask, number)

        assert sorted(map(str, totals)) == sorted(
            str({"result": number + 1}) for number in range(10)
        )

    run(main, backend)


@pytest.mark.slow
def test_a_client_in_another_process_is_served(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from mcp import Client, StdioServerParameters
from umbel_plugins.integrations.mcp_transport import mcp_client

async def main():
    async with Client(mcp_client(sys.argv[1])) as client:
        result = await client.read_resource("umbel://greeting")
        print(result.contents[0].text)

asyncio.run(main())
"""
    address = Address("ipc", f"{tmp_path}/mcp.sock")

    async def main() -> None:
        async with serving(address):
            printed = await anyio.to_thread.run_sync(run_python, code, str(address))
        assert printed == "hello\n"

    anyio.run(main)


@pytest.mark.slow
def test_umbel_connect_serves_a_client_of_standard_input_and_output(
    tmp_path: Path,
) -> None:
    address = Address("ipc", str(tmp_path / "mcp.sock"))
    pipe = StdioServerParameters(
        command=sys.executable, args=["-m", "umbel", "connect", str(address)]
    )

    async def main() -> None:
        async with serving(address), Client(pipe) as client:
            result = await client.call_tool("add", {"a": 40, "b": 2})
            assert result.structured_content == {"result": 42}

    anyio.run(main)


# The streams alone.


def test_a_line_that_is_no_message_is_told_and_the_next_one_read(backend: str) -> None:
    async def main() -> None:
        ours, theirs = aio.pair()
        async with theirs, mcp_streams(ours) as (inbound, _):
            await theirs.send(b'nonsense\n{"jsonrpc": "2.0", "met')
            assert isinstance(await inbound.receive(), ValueError)
            await theirs.send(b'hod": "ping"}\n')
            found = await inbound.receive()
            assert isinstance(found, SessionMessage)
            assert isinstance(found.message, JSONRPCNotification)
            assert found.message.method == "ping"
            await theirs.done()

    run(main, backend)


def test_a_reader_that_is_canceled_loses_nothing(backend: str) -> None:
    async def main() -> None:
        ours, theirs = aio.pair()
        async with mcp_streams(ours) as (inbound, _):
            await theirs.send(b"x" * 1000)
            with anyio.move_on_after(0.01) as scope:
                await inbound.receive()
            assert scope.cancelled_caught

            await theirs.send(b'\n{"jsonrpc": "2.0", "method": "ping"}\n')
            assert isinstance(await inbound.receive(), ValueError)
            assert isinstance(await inbound.receive(), SessionMessage)
            umbel.hclose(theirs)

    run(main, backend)


def test_a_negative_grace_is_refused_before_anything_is_open(backend: str) -> None:
    async def main() -> None:
        ours, theirs = aio.pair()
        with pytest.raises(ValueError, match="grace is -1"):
            async with mcp_streams(ours, grace=-1):
                raise AssertionError("it was not refused")
        assert ours in open_handles
        with pytest.raises(ValueError, match="grace is -1"):
            async with mcp_client("mem://nobody-listens-here", grace=-1):
                raise AssertionError("it was not refused")
        umbel.hclose(ours)
        umbel.hclose(theirs)

    run(main, backend)


def test_what_is_no_stream_is_refused_and_left_alone(
    address: Address, backend: str
) -> None:
    async def main() -> None:
        with umbel.listen(address) as listener:
            with pytest.raises(umbel.NotSupportedError):
                await serve_mcp(make_server(), listener)  # type: ignore[arg-type]  # what it is about
            assert listener in open_handles

    run(main, backend)


def test_a_reader_finds_the_stream_closed(backend: str) -> None:
    async def main() -> None:
        ours, theirs = aio.pair()

        async def read(inbound: Inbound) -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await inbound.receive()

        async with (
            anyio.create_task_group() as reading,
            mcp_streams(ours, grace=0.01) as (inbound, _),
        ):
            reading.start_soon(read, inbound)
            await anyio.wait_all_tasks_blocked()
        umbel.hclose(theirs)

    run(main, backend)


def test_what_was_written_is_sent_before_the_stream_is_closed(
    ends: Ends, backend: str
) -> None:
    left, right = ends
    body = pattern(3 << 20).hex()
    note = JSONRPCNotification(jsonrpc="2.0", method="note", params={"body": body})
    received = bytearray()

    async def read() -> None:
        async with aio.as_async(right) as theirs:
            async for chunk in theirs:
                received.extend(chunk)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            async with mcp_streams(left) as (_, outbound):
                await outbound.send(SessionMessage(note))

            assert received.endswith(b"\n")
            assert json.loads(received)["params"] == {"body": body}

    run(main, backend)


def test_a_writer_that_is_canceled_leaves_no_half_of_a_message(
    ends: Ends, backend: str
) -> None:
    left, right = ends
    body = pattern(3 << 20).hex()
    note = JSONRPCNotification(jsonrpc="2.0", method="note", params={"body": body})

    async def main() -> None:
        async with mcp_streams(left) as (_, outbound):
            await outbound.send(SessionMessage(note))  # in the task that sends
            with anyio.move_on_after(0.01) as scope:
                await outbound.send(SessionMessage(note))
            assert scope.cancelled_caught

            line = b""
            while not line.endswith(b"\n"):
                line += await aio.receive(right)
            umbel.hclose(right)
        assert json.loads(line)["params"] == {"body": body}

    run(main, backend)


def test_a_peer_that_goes_away_is_the_end(ends: Ends, backend: str) -> None:
    left, right = ends
    note = JSONRPCNotification(jsonrpc="2.0", method="note")

    async def main() -> None:
        async with mcp_streams(left) as (inbound, outbound):
            await outbound.send(SessionMessage(note))
            await aio.receive(right, 1)
            umbel.hclose(right)  # with the rest unread: the stream is reset
            with pytest.raises(anyio.EndOfStream):
                await inbound.receive()
            with suppress(anyio.BrokenResourceError):
                await outbound.send(SessionMessage(note))  # this one finds it out
            with pytest.raises(anyio.BrokenResourceError):
                await outbound.send(SessionMessage(note))

    run(main, backend)


def test_a_peer_that_reads_nothing_holds_the_close_up_for_its_grace_only(
    ends: Ends, backend: str
) -> None:
    left, right = ends
    big = {"body": pattern(3 << 20).hex()}
    note = JSONRPCNotification(jsonrpc="2.0", method="note", params=big)

    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            async with mcp_streams(left, grace=0.01) as (_, outbound):
                await outbound.send(SessionMessage(note))

    run(main, backend)

    assert left not in open_handles
    umbel.hclose(right)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_message_that_is_too_long_is_an_error(
    ends: Ends, backend: str, end: bytes
) -> None:
    left, right = ends

    async def main() -> None:
        async with mcp_streams(left, limit=100) as (inbound, _):
            await aio.bsend(right, b"x" * 101 + end)
            with pytest.raises(OSError, match="100 bytes") as caught:
                await inbound.receive()
            assert caught.value.errno == errno.EMSGSIZE
            umbel.hclose(right)

    run(main, backend)


def test_an_error_in_between_closes_the_stream_hard(ends: Ends, backend: str) -> None:
    left, right = ends

    async def main() -> None:
        async with mcp_streams(left):
            raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        run(main, backend)

    assert caught.group_contains(LookupError)
    assert umbel.receive(right, 1, soon()) == b""


def test_a_reader_that_was_closed_reads_no_more(backend: str) -> None:
    async def main() -> None:
        ours, theirs = aio.pair()
        async with mcp_streams(ours) as (inbound, _):
            await aio.bsend(theirs, b"1\n2\n")
            assert isinstance(await inbound.receive(), ValueError)
            async with inbound:
                pass
            with pytest.raises(anyio.ClosedResourceError):
                await inbound.receive()
            umbel.hclose(theirs)

    run(main, backend)
