"""What an asyncio transport over a stream receives, and tells its protocol.

It is the lower storey of `StreamTransport`, for a file of its own.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final, cast

from umbel.aio.receiving import receive
from umbel.aio.stream import AsyncStreamHandle
from umbel.streams.connection import Connection

#: What one receive asks for at most.
RECEIVE_SIZE: Final = 1 << 16
#: Seconds for which a receiver that never has to wait keeps the loop from others.
LONGEST_TURN: Final = 0.002

CALLBACK: Final = "a callback of the protocol failed"


class InboundTransport(asyncio.Transport):
    """Reads, as long as nobody pauses it or ends it; `StreamTransport` sets it.

    Attributes:
        handle: of the stream, which the transport owns.
        connection: what the handle names.
    """

    handle: AsyncStreamHandle
    connection: Connection
    _loop: asyncio.AbstractEventLoop
    _protocol: asyncio.BaseProtocol
    _is_closing: bool
    #: While reading is paused: what the receiver waits for.
    _gate: asyncio.Future[None] | None
    #: None once it has received all.
    _receiver: asyncio.Task[None] | None

    @abstractmethod
    def _lose(self, error: Exception | None) -> None:
        """End at once, for that reason."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As `BaseTransport.set_protocol`."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """As `BaseTransport.get_protocol`."""
        return self._protocol

    def is_closing(self) -> bool:
        """As `BaseTransport.is_closing`."""
        return self._is_closing

    def is_reading(self) -> bool:
        """As `ReadTransport.is_reading`."""
        return self._gate is None and not self._is_closing

    def pause_reading(self) -> None:
        """As `ReadTransport.pause_reading`."""
        if self._gate is None:
            self._gate = self._loop.create_future()

    def resume_reading(self) -> None:
        """As `ReadTransport.resume_reading`."""
        gate, self._gate = self._gate, None
        if gate is not None and not gate.done():
            gate.set_result(None)

    async def _receive_all(self) -> None:
        try:
            data = b"-"
            turn_at = self._loop.time()
            while data and not self._is_closing:
                await self._pass_gate()
                if not self.connection.readiness.is_drained:
                    turn_at = await self._let_others_run(turn_at)
                data = await receive(self.handle, RECEIVE_SIZE)
                left = await self._tell_received(data)
                while left and not self._is_closing:
                    left = await self._tell_received(left)
        except asyncio.CancelledError:
            if not self._is_closing:
                self._lose(None)  # the loop is shut down
            raise
        except OSError as error:
            if not self._is_closing:
                self._lose(error)
        except Exception as error:  # noqa: BLE001 - of a transport that breaks its contract
            self._fail(error, "to receive from the stream failed")
        finally:
            self._receiver = None  # whose error would keep us, who keep it

    async def _let_others_run(self, turn_at: float) -> float:
        """Give the loop a turn, if the last one was long ago; tell when that was."""
        if self._loop.time() - turn_at < LONGEST_TURN:
            return turn_at
        await asyncio.sleep(0)
        return self._loop.time()

    async def _pass_gate(self) -> None:
        while self._gate is not None:
            await self._gate

    async def _tell_received(self, data: bytes) -> bytes:
        """Give the protocol of this moment what it takes; return what is left."""
        await self._pass_gate()  # paused meanwhile
        # asyncio looks for one class only, too: who writes a protocol need not derive.
        protocol = cast("asyncio.Protocol | asyncio.BufferedProtocol", self._protocol)
        try:
            if not data:
                if not protocol.eof_received():
                    self.close()
            elif isinstance(protocol, asyncio.BufferedProtocol):
                return _feed(protocol, data)
            else:
                protocol.data_received(data)
        except Exception as error:  # noqa: BLE001 - told to the loop's handler
            self._fail(error, f"receiving: {CALLBACK}")
        return b""

    # Failures.

    def _fail(self, error: Exception, what: str) -> None:
        """Be lost by an error that is told to the loop's handler as well."""
        self._report(error, what)
        self._lose(error)

    def _report(self, error: Exception, what: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: {what}",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> bytes:
    """Fill the protocol's buffer once; return what did not fit."""
    room = memoryview(protocol.get_buffer(len(data))).cast("B")
    count = min(len(data), len(room))
    if not count:
        message = "get_buffer() gave an empty buffer"
        raise RuntimeError(message)
    room[:count] = data[:count]
    protocol.buffer_updated(count)
    return data[count:]
