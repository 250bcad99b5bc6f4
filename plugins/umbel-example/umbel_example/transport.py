"""example: streams in the memory of one process, without a descriptor.

    example://name

Its only use is to be read and copied: of umbel it imports nothing but `umbel.spi`. A
stream is two pipes of bytes, one for each direction. A call that finds a pipe empty or
full waits in the pipe's queue, and is woken when the other side has changed something.
As everywhere, waiting is written as a blocking call: umbel runs it in threads,
coroutines, asyncio and trio.

Chapters, as in every transport, if it needs them: the plugin, streams, names,
listening, connecting, errors.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from umbel.spi import (
    Address,
    BadHandleError,
    BrokenStreamError,
    ConnectContext,
    ListenContext,
    PairContext,
    Traits,
    WaitQueue,
    add_bytes_done,
    hookimpl,
    system_error,
    take_options,
)

T = TypeVar("T")

#: Bytes of one direction that wait to be received; a sender waits for room.
CAPACITY = 65536


# The plugin.


class ExampleTransport:
    """The plugin. It has no hook `close`: umbel's standard one closes its streams."""

    def __init__(self) -> None:
        self.listeners: dict[str, ExampleListener] = {}
        # Reentrant: a listener that is forgotten is closed by the garbage collector,
        # which may run while its thread holds it.
        self.lock = threading.RLock()

    @hookimpl.listen
    def listen(self, context: ListenContext) -> ExampleListener:
        """Listen under a name that nobody listens under."""
        take_options(context.options)
        name = context.address.location
        if not name:
            raise system_error(errno.EINVAL, "write example://name")
        with self.lock:
            if name in self.listeners:
                message = f"{context.address} has a listener: close it first"
                raise system_error(errno.EADDRINUSE, message)
            listener = ExampleListener(self, context.address, max(context.backlog, 1))
            self.listeners[name] = listener
        return listener

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> ExampleStream:
        """Connect to a listener, waiting while its backlog is full."""
        take_options(context.options)
        with self.lock:
            listener = self.listeners.get(context.address.location)
        if listener is None:
            raise refused(context.address)
        return listener.connect(context.deadline)

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[ExampleStream, ExampleStream]:
        """Make two streams that are each other's peers."""
        take_options(context.options)  # there are none: another is a TypeError
        return make_pair()

    @hookimpl.traits
    def traits(self) -> Traits:
        """Declare where `umbel check` can try it, and what it can do."""
        return Traits(address="example://{name}", shows_abort=True)


# Streams.


class Pipe:
    """The bytes of one direction that wait to be received."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._lock = threading.RLock()  # as above
        self._changed = WaitQueue()
        self._has_ended = False
        self._is_broken = False

    def put(self, view: memoryview, deadline: int) -> int:
        """Take as much of *view* as there is room for, waiting for some."""
        while True:
            ticket = self._changed.ticket()
            with self._lock:
                if self._is_broken:
                    raise BrokenStreamError
                taken = view[: CAPACITY - len(self._bytes)]
                self._bytes += taken
            if taken.nbytes:
                self._changed.wake_all()
                return taken.nbytes
            self._changed.wait(ticket, deadline)

    def take(self, buffer: memoryview, deadline: int) -> int:
        """Fill the front of *buffer*, waiting for a byte; 0 at the end."""
        while True:
            ticket = self._changed.ticket()
            with self._lock:
                count = min(len(buffer), len(self._bytes))
                buffer[:count] = self._bytes[:count]
                del self._bytes[:count]
                if not count and self._is_broken and not self._has_ended:
                    raise BrokenStreamError
                is_over = self._has_ended and not self._bytes
            if count:
                self._changed.wake_all()
            if count or is_over:
                return count
            self._changed.wait(ticket, deadline)

    def end(self) -> None:
        """Let the end follow what is in the pipe."""
        self._has_ended = True
        self._changed.wake_all()

    def break_off(self) -> None:
        """Let both sides fail: for the receiver, only if no end was sent."""
        self._is_broken = True
        self._changed.wake_all()


class ExampleStream:
    """What `umbel.spi.Stream` asks for, and nothing else."""

    def __init__(self, outbound: Pipe, inbound: Pipe) -> None:
        self._outbound = outbound
        self._inbound = inbound

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """As `Stream.send`."""
        moved = 0
        try:
            for view in buffers:
                sent = 0
                while sent < view.nbytes:
                    count = self._outbound.put(view[sent:], deadline)
                    sent += count
                    moved += count
        except BaseException as error:
            add_bytes_done(error, moved)  # so that the sender knows how far it came
            raise

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        return self._inbound.take(buffer, deadline)

    def done(self, deadline: int) -> None:
        """As `Stream.done`. Never waits."""
        self._outbound.end()

    def abort(self) -> None:
        """As `Stream.abort`."""
        self._outbound.break_off()
        self._inbound.break_off()

    def query(self, kind: type[T]) -> T | None:
        """As `Stream.query`: there is nothing special about it."""
        return None


def make_pair() -> tuple[ExampleStream, ExampleStream]:
    """Make two streams that are each other's peers."""
    there, back = Pipe(), Pipe()
    return ExampleStream(there, back), ExampleStream(back, there)


# Listening and connecting.


class ExampleListener:
    """What `umbel.spi.Listener` asks for, and `connect` for the transport."""

    def __init__(
        self, transport: ExampleTransport, address: Address, backlog: int
    ) -> None:
        self.address = address
        self._transport = transport
        self._backlog = backlog
        self._queue: deque[ExampleStream] = deque()
        self._changed = WaitQueue()
        self._is_closed = False

    def accept(self, deadline: int) -> ExampleStream:
        """As `Listener.accept`."""
        while True:
            ticket = self._changed.ticket()
            if self._is_closed:
                raise BadHandleError
            if self._queue:
                stream = self._queue.popleft()
                self._changed.wake_all()
                return stream
            self._changed.wait(ticket, deadline)

    def connect(self, deadline: int) -> ExampleStream:
        """Queue a new stream's peer, once there is room for it."""
        while True:
            ticket = self._changed.ticket()
            with self._transport.lock:
                if self._is_closed:
                    raise refused(self.address)
                if len(self._queue) < self._backlog:
                    return self._enqueue()
            self._changed.wait(ticket, deadline)

    def _enqueue(self) -> ExampleStream:
        near, far = make_pair()
        self._queue.append(far)
        self._changed.wake_all()
        return near

    def abort(self) -> None:
        """As `Listener.abort`. Streams that nobody accepted are broken off."""
        with self._transport.lock:
            self._is_closed = True
            if self._transport.listeners.get(self.address.location) is self:
                del self._transport.listeners[self.address.location]
        while self._queue:
            self._queue.popleft().abort()
        self._changed.wake_all()

    def query(self, kind: type[T]) -> T | None:
        """As `Listener.query`: there is nothing special about it."""
        return None


# Errors.


def refused(address: Address) -> OSError:
    """Make the error for an address where nobody listens."""
    message = f"nobody listens at {address}: listen there first"
    return system_error(errno.ECONNREFUSED, message)


transport = ExampleTransport()
