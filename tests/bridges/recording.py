"""Protocols that record what they are told, and what else tests of bridges share."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Coroutine

import umbel
from tests.support import PATIENCE, pattern
from umbel.bridges import (
    as_asyncio_transport,
    asyncio_inbound,
)

#: More than any buffer in between can hold.
MUCH = pattern(6 << 20)


Run = Callable[[Callable[[], Coroutine[object, object, None]]], None]


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


class Busy(Recorder):
    """Takes long for each piece; notes how many turns others have had by then."""

    turns = 0

    def data_received(self, data: bytes) -> None:
        self.events.append(self.turns)
        time.sleep(2 * asyncio_inbound.LONGEST_TURN)


class Refilling(Recorder):
    """Writes more as soon as there is room, from within the call that tells so."""

    def resume_writing(self) -> None:
        super().resume_writing()
        assert self.transport is not None
        self.transport.write(b"last")
