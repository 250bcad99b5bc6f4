"""A stream as an asyncio transport, for code that was written for asyncio's protocols.

At most two tasks work for a transport, unseen by the program: see `Backstage`. One
receives as long as it is open. The other sends what did not fit at once, ends our
direction and closes; it is there only while there is such work to do. Whatever ends
the transport goes through `_lose`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast, final

from umbel.aio.entry import enter
from umbel.aio.guest import Guest
from umbel.aio.handle import close
from umbel.aio.sending import bsend, done
from umbel.aio.stream import AsyncStreamHandle
from umbel.bridges.asyncio_inbound import CALLBACK, InboundTransport
from umbel.bridges.asyncio_patience import Patience
from umbel.bridges.names import names_of
from umbel.deadline import check_seconds, within
from umbel.errors import DeadlineError, EndOfStreamError, PluginError
from umbel.handle import CLOSE_GRACE, hclose_if_open, hown, recast
from umbel.streams.connection import find_connection
from umbel.streams.uses import send_by
from umbel.transport import Fileno, StreamAttempts
from umbel.values.peer import PeerIdentity

if TYPE_CHECKING:
    from umbel.aio.asyncio_host import AsyncioHost
    from umbel.aio.stream import AnyStream

#: What one send of the backlog gives at most.
SEND_SIZE: Final = 1 << 18
#: The same where the kernel can't be asked how much of a piece has been taken.
SMALL_SEND_SIZE: Final = 1 << 12
#: Of the backlog, in bytes: as asyncio's own.
HIGH_WATER: Final = 1 << 16


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
class StreamTransport(InboundTransport):
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
        self._gate = self._receiver = None
        self._worker: asyncio.Task[None] | None = None
        #: Also where there is no task yet: an eager one begins before it is there.
        self._is_working = False
        #: Our direction; it may have ended before.
        self._must_end = self._has_ended = (
            self.connection.outbound_error is EndOfStreamError
        )
        self._is_closing = self._is_lost = False
        #: While it closes and has a backlog.
        self._patience: Patience | None = None
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
            if not task.done():  # as an eager one may be
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

    def close(self) -> None:
        """As `BaseTransport.close`; in good order."""
        if not self._is_closing:
            self._is_closing = True
            if self._receiver is not None:
                self._receiver.cancel()
            if (self._is_working or self._backlog) and self._grace < math.inf:
                self._patience = Patience(
                    self._loop,
                    self.connection,
                    self._grace,
                    self.get_write_buffer_size,
                    self._lose,
                )
                self._patience.begin()
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
        try:
            traits = self.connection.transport.traits()
        except PluginError:
            return True  # asked for a bool; a write_eof that can't be raises
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

    def _look_no_more(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.end()

    async def _part(self) -> None:
        self._look_no_more()  # from here on there is a deadline
        try:
            await close(self.handle, within(self._grace))
        except DeadlineError as error:
            # A peer that has read everything and stays is no failure of ours.
            if error.report is None or not error.report.consumed:
                raise

    # The end.

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
            self._report(error, f"flow control: {CALLBACK}")


_EXTRA: Final[dict[str, Callable[[StreamTransport], object]]] = {
    "peername": lambda transport: transport._names[1],
    "sockname": lambda transport: transport._names[0],
    "umbel.address": lambda transport: transport.connection.address,
    "umbel.handle": lambda transport: transport.handle,
    "umbel.peer": lambda transport: transport.connection.query(PeerIdentity),
}
