"""A stream as an asyncio transport, for code that was written for asyncio's protocols.

At most two tasks work for a transport, unseen by the program: see `Backstage`. One
receives as long as it is open. The other sends what did not fit at once, ends our
direction and closes; it is there only while there is such work to do. Whatever ends
the transport goes through `_lose`.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import sys
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast, final

from umbel.aio.entry import enter
from umbel.aio.guest import Guest
from umbel.aio.handle import close
from umbel.aio.receiving import receive
from umbel.aio.sending import bsend, done
from umbel.aio.stream import AsyncStreamHandle
from umbel.bridges.names import names_of
from umbel.connection import Connection, find_connection
from umbel.deadline import FOREVER, check_seconds, now, within
from umbel.errors import DeadlineError, EndOfStreamError
from umbel.handle import CLOSE_GRACE, hclose_if_open, hown, recast
from umbel.peer import PeerIdentity
from umbel.transport import Fileno, StreamAttempts
from umbel.unread import INT_SIZE
from umbel.uses import send_by

if TYPE_CHECKING:
    from umbel.aio.asyncio_host import AsyncioHost
    from umbel.aio.stream import AnyStream

#: What one receive asks for, and one send of the backlog gives, at most.
RECEIVE_SIZE: Final = 1 << 16
SEND_SIZE: Final = 1 << 18
#: The same where the kernel can't be asked how much of a piece has been taken.
SMALL_SEND_SIZE: Final = 1 << 12
#: Seconds for which a receiver that never has to wait keeps the loop from others.
LONGEST_TURN: Final = 0.002
#: How often, within the grace of a close, it is looked whether something has moved.
LOOKS: Final = 10
#: Of the backlog, in bytes: as asyncio's own.
HIGH_WATER: Final = 1 << 16

_CALLBACK: Final = "a callback of the protocol failed"


def as_asyncio_transport(
    handle: AnyStream,
    protocol: asyncio.BaseProtocol,
    *,
    grace: float = CLOSE_GRACE,
) -> StreamTransport:
    """Turn a stream into an asyncio transport, which drives *protocol*.

    On return, `connection_made` has been called. `close` sends the backlog and closes
    in good order: `connection_lost` comes when the peer has ended its direction too,
    with an error if it left bytes of ours unread.

    Besides "peername" and "sockname", `get_extra_info` knows "umbel.handle",
    "umbel.address" and "umbel.peer" (a `PeerIdentity`).

    Args:
        handle: a byte stream. Taken over: the transport owns it.
        protocol: an `asyncio.BufferedProtocol`, or with the methods of an
            `asyncio.Protocol`.
        grace: seconds that a close waits for a peer that takes nothing of the backlog,
            and that the orderly close may take once all is sent.

    Returns:
        the transport.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is no byte stream.
        ValueError: *grace* is negative.
        RuntimeError: no asyncio loop runs in this thread.

    Source:
        own; asyncio's transports.
    """
    transport = StreamTransport(handle, protocol, grace)
    transport.begin()
    return transport


@final
class StreamTransport(asyncio.Transport):
    """A transport over an umbel stream; made by `as_asyncio_transport`.

    Attributes:
        handle: of the stream, which the transport owns.
        connection: what the handle names.
    """

    def __init__(
        self, handle: AnyStream, protocol: asyncio.BaseProtocol, grace: float
    ) -> None:
        super().__init__()
        check_seconds(grace, "grace")
        self._loop = asyncio.get_running_loop()
        self.connection = find_connection(handle)
        #: Kept, for who asks when the connection has been lost.
        self._names = names_of(self.connection)
        host = cast("AsyncioHost", enter())
        self._backstage = host.backstage
        self._guest = Guest(host.hub)
        has_descriptor = self.connection.query(Fileno) is not None
        self._send_size = SEND_SIZE if has_descriptor else SMALL_SEND_SIZE
        #: None: each send goes through the worker.
        self._attempts = self.connection.query(StreamAttempts)
        self._sent = 0
        self.handle = recast(hown(handle), AsyncStreamHandle)
        self._protocol = protocol
        self._grace = grace
        self._backlog = bytearray()
        #: Of the backlog, with what of it is being sent.
        self._backlog_size = 0
        self._low, self._high = HIGH_WATER // 4, HIGH_WATER
        self._has_paused_writing = False
        #: While reading is paused: what the receiver waits for.
        self._gate: asyncio.Future[None] | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        #: Also where there is no task yet: an eager one begins before it is there.
        self._has_received_all = self._is_working = False
        #: Our direction; it may have ended before.
        self._must_end = self._has_ended = (
            self.connection.outbound_error is EndOfStreamError
        )
        self._is_closing = self._is_lost = False
        #: While it closes: what was unsent when something last moved; when to give up.
        self._unsent = 0, 0
        self._until = FOREVER
        self._look_at: asyncio.TimerHandle | None = None
        self._told = self._loop.create_future()

    def begin(self) -> None:
        """Tell the protocol, and start to receive."""
        try:
            self._protocol.connection_made(self)
        except BaseException:
            self._is_lost = self._is_closing = True
            hclose_if_open(self.handle)  # it may have aborted us before it failed
            raise
        if not self._is_closing:
            task = self._backstage.start(self._receive_all())
            if not self._has_received_all:
                self._receiver = task

    # What asyncio asks of every transport.

    def get_extra_info(self, name: str, default: object = None) -> object:
        """As `BaseTransport.get_extra_info`."""
        find = _EXTRA.get(name)
        try:
            found = None if find is None else find(self)
        except OSError:
            return default  # the peer is gone, or it is closed
        return default if found is None else found

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As `BaseTransport.set_protocol`."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """As `BaseTransport.get_protocol`."""
        return self._protocol

    def is_closing(self) -> bool:
        """As `BaseTransport.is_closing`."""
        return self._is_closing

    def close(self) -> None:
        """As `BaseTransport.close`; in good order."""
        if not self._is_closing:
            self._is_closing = True
            if self._receiver is not None:
                self._receiver.cancel()
            if (self._is_working or self._backlog) and self._grace < math.inf:
                self._be_patient()
            self._stir()

    def abort(self) -> None:
        """As `WriteTransport.abort`."""
        self._lose(None)

    async def wait_lost(self) -> None:
        """Return once `connection_lost` has been called."""
        await asyncio.shield(self._told)

    def __repr__(self) -> str:
        state = "lost" if self._is_lost else "closing" if self._is_closing else "open"
        return f"<StreamTransport {self.connection.address} {state}>"

    #: By these two, asyncio's `start_tls` knows a transport that it can put TLS on.
    _start_tls_compatible = True

    def _force_close(self, error: Exception | None) -> None:
        self._lose(error)

    # Receiving.

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
            self._has_received_all = True
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
            self._fail(error, f"receiving: {_CALLBACK}")
        return b""

    # Sending.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As `WriteTransport.write`."""
        if self._must_end:
            message = "write() after write_eof(): our direction has ended"
            raise RuntimeError(message)
        if self._is_closing and not self._backlog_size:
            return  # as asyncio's own, which take it as long as they hold something
        view = memoryview(data).cast("B")
        if not self._is_working and not self._backlog:
            view = view[self._send_now(view) :]
        if view.nbytes and not self._is_lost:
            self._backlog += view
            self._backlog_size += view.nbytes
            self._pause_if_high()
            self._stir()

    def _send_now(self, view: memoryview) -> int:
        if self._attempts is None or not view.nbytes:
            return 0
        try:
            send_by(self._guest, self.connection, self._attempt, view, 0)
        except OSError as error:
            self._lose(error)
            return 0
        self.connection.bytes_out += self._sent
        return self._sent

    def _attempt(self, view: memoryview, _: int) -> None:
        assert self._attempts is not None
        self._sent = self._attempts.send(view)

    def can_write_eof(self) -> bool:
        """As `WriteTransport.can_write_eof`."""
        traits = self.connection.transport.traits()
        return traits is None or traits.half_close

    def write_eof(self) -> None:
        """As `WriteTransport.write_eof`."""
        if not self._must_end and not self._is_closing:
            self._must_end = True
            self._stir()

    def get_write_buffer_size(self) -> int:
        """As `WriteTransport.get_write_buffer_size`."""
        return self._backlog_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As `WriteTransport.get_write_buffer_limits`."""
        return self._low, self._high

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """As `WriteTransport.set_write_buffer_limits`."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            message = f"high={high} must be at least low={low}, and that at least 0"
            raise ValueError(message)
        self._low, self._high = low, high
        self._pause_if_high()

    def _pause_if_high(self) -> None:
        if self._backlog_size > self._high and not self._has_paused_writing:
            self._has_paused_writing = True
            self._tell(self._protocol.pause_writing)

    def _resume_if_low(self) -> None:
        if self._has_paused_writing and self._backlog_size <= self._low:
            self._has_paused_writing = False
            self._tell(self._protocol.resume_writing)

    # The worker: sends the backlog, ends our direction, closes.

    def _stir(self) -> None:
        if not self._is_working and not self._is_lost:
            self._is_working = True
            task = self._backstage.start(self._work())
            if self._is_working:
                self._worker = task

    async def _work(self) -> None:
        try:
            while not self._is_lost:
                if self._backlog:
                    await self._send_backlog()
                elif self._must_end and not self._has_ended:
                    await done(self.handle)
                    self._has_ended = True
                elif self._is_closing:
                    await self._part()
                    self._lose(None)
                else:
                    return
        except asyncio.CancelledError:
            self._lose(None)
            raise
        except OSError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - of a transport that breaks its contract
            self._fail(error, "to send on the stream failed")
        finally:
            self._is_working = False
            self._worker = None

    async def _send_backlog(self) -> None:
        backlog, self._backlog = memoryview(self._backlog), bytearray()
        for start in range(0, backlog.nbytes, self._send_size):
            piece = backlog[start : start + self._send_size]
            await bsend(self.handle, piece)
            self._backlog_size -= piece.nbytes
            self._resume_if_low()

    def _be_patient(self) -> None:
        """Give up, while it closes, once nothing has moved for the grace."""
        unsent = self._backlog_size, _in_kernel(self.connection)
        if self._look_at is None or unsent != self._unsent:
            self._unsent, self._until = unsent, within(self._grace)
        elif now() >= self._until:
            message = f"the peer took nothing for {self._grace} s: it is closed hard"
            self._lose(DeadlineError(message))
            return
        self._look_at = self._loop.call_later(self._grace / LOOKS, self._be_patient)

    def _look_no_more(self) -> None:
        if self._look_at is not None:
            self._look_at.cancel()

    async def _part(self) -> None:
        self._look_no_more()  # from here on there is a deadline
        try:
            await close(self.handle, within(self._grace))
        except DeadlineError as error:
            # A peer that has read everything and stays is no failure of ours.
            if error.report is None or not error.report.consumed:
                raise

    # The end.

    def _fail(self, error: Exception, what: str) -> None:
        """Be lost by an error that is told to the loop's handler as well."""
        self._report(error, what)
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._backlog.clear()
        self._backlog_size = 0
        self._look_no_more()
        hclose_if_open(self.handle)
        for task in (self._receiver, self._worker):
            if task is not None:
                task.cancel()
        if not self._loop.is_closed():
            self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            if not self._told.done():
                self._told.set_result(None)

    def _tell(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - told to the loop's handler
            self._report(error, f"flow control: {_CALLBACK}")

    def _report(self, error: Exception, what: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: {what}",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )


def _in_kernel(connection: Connection) -> int:
    """Tell how much the kernel holds for the peer, in its own measure; 0: unknown."""
    answer = bytearray(INT_SIZE)
    try:
        found = connection.query(Fileno)
        if found is not None:
            fcntl.ioctl(found.fd, termios.TIOCOUTQ, answer)
    except OSError:
        pass  # it is no socket, or is just being closed
    return int.from_bytes(answer, sys.byteorder)


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


_EXTRA: Final[dict[str, Callable[[StreamTransport], object]]] = {
    "peername": lambda transport: transport._names[1],
    "sockname": lambda transport: transport._names[0],
    "umbel.address": lambda transport: transport.connection.address,
    "umbel.handle": lambda transport: transport.handle,
    "umbel.peer": lambda transport: transport.connection.query(PeerIdentity),
}
