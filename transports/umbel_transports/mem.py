"""mem: socket pairs within one process, under names in a `Memory`.

    mem://name

Chapters, as in every transport, if it needs them: the plugin, streams, names,
listening, connecting, errors. Its streams are socket streams, and closing is
`shut_down`.
"""

from __future__ import annotations

import errno
import socket
from _socket import socketpair  # of plain sockets, which cost half
from collections import deque
from typing import TypeVar

from umbel.spi import (
    LOCAL_CAPABILITIES,
    SHARED_MEMORY,
    Address,
    AdoptContext,
    BadHandleError,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    ListenContext,
    Memory,
    Options,
    PairContext,
    SocketListener,
    SocketStream,
    Stream,
    Traits,
    WaitQueue,
    adopt_socket,
    hookimpl,
    shut_down,
    system_error,
    take_options,
)

T = TypeVar("T")


# The plugin.


class MemTransport:
    """The plugin."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> MemListener:
        """Listen under a name that nobody listens under."""
        memory = _memory(context.options)
        name = context.address.location
        if not name:
            message = "a mem listener needs a name, such as mem://name"
            raise system_error(errno.EINVAL, message)
        listener = MemListener(memory, context.address, context.backlog)
        with memory.lock:
            if name in memory.listeners:
                message = f"mem://{name} has a listener in this Memory: close it first"
                raise system_error(errno.EADDRINUSE, message)
            memory.listeners[name] = listener
        return listener

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        """Connect to a listener, waiting while its backlog is full."""
        memory = _memory(context.options)
        with memory.lock:
            listener = memory.listeners.get(context.address.location)
        if not isinstance(listener, MemListener):
            raise _refused(context.address)
        return listener.connect(context.deadline)

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        """Make a socket pair."""
        _memory(context.options)
        left, right = socketpair()
        return SocketStream(left), SocketStream(right)

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> SocketStream | SocketListener:
        """Take over a socket; it has no name here."""
        sock = adopt_socket(context.fd, is_listening=context.is_listener)
        if context.is_listener:
            return SocketListener(sock, context.address)
        return SocketStream(sock)

    @hookimpl.traits
    def traits(self) -> Traits:
        """Declare what a socket pair can do."""
        return Traits(address="mem://{name}", capabilities=LOCAL_CAPABILITIES)

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        """Shut down as any local stream: done, then drain."""
        return shut_down(context)


# Names.


def _memory(options: Options) -> Memory:
    memory = take_options(options, memory=Memory).get("memory", SHARED_MEMORY)
    assert isinstance(memory, Memory)
    return memory


# Listening and connecting.


class MemListener:
    """A name, and the far ends of connections that wait to be accepted."""

    def __init__(self, memory: Memory, address: Address, backlog: int) -> None:
        self.address = address
        self._memory = memory
        self._backlog = max(backlog, 1)
        self._queue: deque[socket.SocketType] = deque()
        self._arrivals = WaitQueue()
        self._departures = WaitQueue()
        self._is_closed = False

    def accept(self, deadline: int) -> Stream:
        """As `Listener.accept`."""
        while True:
            ticket = self._arrivals.ticket()
            if self._is_closed:
                raise BadHandleError
            accepted = self._take()
            if accepted is not None:
                # One: if all looked each time, n that wait would cost n * n looks.
                self._departures.wake_one()
                return SocketStream(accepted)
            self._arrivals.wait(ticket, deadline)

    def abort(self) -> None:
        """As `Listener.abort`. Connections that nobody accepted are closed."""
        with self._memory.lock:
            self._is_closed = True
            if self._memory.listeners.get(self.address.location) is self:
                del self._memory.listeners[self.address.location]
        self._close_queue()
        self._arrivals.wake_all()
        self._departures.wake_all()

    def query(self, kind: type[T]) -> T | None:
        """As `Listener.query`: there is nothing special about it."""
        return None

    def connect(self, deadline: int) -> Stream:
        """Queue a new connection, once there is room for it.

        Raises:
            OSError: ECONNREFUSED, the listener was closed.
            DeadlineError: ETIMEDOUT, its backlog was full all the time.
        """
        while True:
            ticket = self._departures.ticket()
            try:
                near = self._enqueue()
            except BaseException:
                self._departures.wake_one()  # the room is for the next one
                raise
            if near is not None:
                self._arrivals.wake_all()
                return SocketStream(near)
            try:
                self._departures.wait(ticket, deadline)
            except DeadlineError:
                message = (
                    f"the backlog of {self.address} ({self._backlog}) was full until "
                    "the deadline: accept faster, or listen with a larger one"
                )
                raise DeadlineError(message) from None

    def _enqueue(self) -> socket.SocketType | None:
        self._require_open()
        if len(self._queue) >= self._backlog:
            return None
        near, far = socketpair()
        self._queue.append(far)
        if self._is_closed:  # meanwhile, by another thread or a signal's handler
            self._close_queue()
        return near

    def _require_open(self) -> None:
        if self._is_closed:
            raise _refused(self.address)

    def _take(self) -> socket.SocketType | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None  # or another thread took the last

    def _close_queue(self) -> None:
        while (far := self._take()) is not None:
            far.close()


# Errors.


def _refused(address: Address) -> OSError:
    message = f"nobody listens at {address} in this Memory: listen there first"
    return system_error(errno.ECONNREFUSED, message)


transport = MemTransport()
