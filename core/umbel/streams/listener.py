"""Listeners by handle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, TypeVar, final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel.deadline import FOREVER, within
from umbel.errors import BadHandleError, BusyError, DeadlineError
from umbel.fd import unpark
from umbel.handle import (
    AnyHandle,
    Handle,
    Resource,
    hclose_if_open,
    lookup,
    open_handles,
    refusal,
    register,
)
from umbel.plugins.loaded import Transport, known_streams
from umbel.plugins.observers import is_wrapped, run_hook
from umbel.report import CloseReport
from umbel.streams.connection import Connection
from umbel.streams.plain_errors import explain, is_plain, query_endpoint
from umbel.streams.stream import StreamHandle
from umbel.transport import (
    AcceptContext,
    CloseContext,
    Fileno,
    Listener,
    ListenerAttempts,
    Stream,
)
from umbel.values.address import Address

H = TypeVar("H", bound=AnyHandle)
T = TypeVar("T")


#: Seconds that a close waits at most for another thread's call of accept(2), which
#: itself never waits.
LEAVE_TIME: Final = 1.0
#: What to do about a listener that is busy.
IN_ACCEPT: Final = (
    "another task is accepting from the listener: let one task accept for all, or "
    "cancel it first"
)


@final
class ListenerHandle(Handle):
    """Names a listener.

    `for stream in listener` accepts until the listener is closed.
    """

    def accept(self, deadline: int = FOREVER) -> StreamHandle:
        """Accept the next stream, as `accept`."""
        return accept(self, deadline)

    @property
    def address(self) -> Address:
        """Where others can connect to it."""
        return lookup(self, Listening).listener.address

    def __iter__(self) -> Iterator[StreamHandle]:
        while True:
            try:
                yield accept(self)
            except BadHandleError:
                if self in open_handles:
                    raise  # of something else
                return  # closed meanwhile


@final
class Listening(Resource):
    """An open listener, and who accepts from it."""

    __slots__ = (
        "accepter",
        "attempts",
        "closer",
        "is_closed",
        "kept",
        "listener",
        "transport",
    )

    handle_class = ListenerHandle
    noun: ClassVar[str] = "listener"
    verbs: ClassVar[str] = "accept and close"

    def __init__(self, listener: Listener, transport: Transport) -> None:
        self.listener = listener
        self.transport = transport
        self.accepter: Coroutine | None = None
        #: Waits until another thread's accepter has left.
        self.closer: Coroutine | None = None
        #: None: it can only wait for who comes.
        self.attempts = listener.query(ListenerAttempts)
        self.is_closed = False
        #: Accepted for tasks that were canceled meanwhile: the next ones.
        self.kept: list[StreamHandle] = []

    def query(self, kind: type[T]) -> T | None:
        """As `Resource.query`."""
        return query_endpoint(self.listener, kind)

    def describe(self) -> str:
        """As `Resource.describe`."""
        return f"a listener ({self.listener.address})"

    def disown(self) -> None:
        """As `Resource.disown`."""
        self.accepter = self.closer = None

    def accept(self, deadline: int) -> Stream:
        """Accept inside the wrappers of observers."""
        context = AcceptContext(self.number, self.listener.address, deadline)
        return run_hook("umbel_accept", context, self._run_accept)

    def _run_accept(self, context: AcceptContext) -> Stream:
        stream = self.listener.accept(context.deadline)
        if type(stream) not in known_streams:
            self.transport.require_stream("accept", stream)
        return stream

    def keep(self, stream: StreamHandle) -> None:
        """Let the next accept give *stream*, whose accepter was canceled after all."""
        if self.is_closed:
            hclose_if_open(stream)
        else:
            self.kept.append(stream)

    def leave(self, me: Coroutine) -> None:
        """End of a use that a close has overtaken: free the descriptor."""
        me.hub.evictions.note_left(me)
        self.accepter = None
        self.free()
        closer = self.closer
        if closer is not None:
            unpark(closer)

    def free(self) -> None:
        """As `Resource.free`; also for who leaves last."""
        self.listener.abort()
        while self.kept:
            hclose_if_open(self.kept.pop())

    def abort(self) -> None:
        """As `Resource.abort`; who accepts gets EBADF."""
        self.is_closed = True
        user = self.accepter
        if user is None:
            self.free()
            return

        def evict() -> None:
            if self.accepter is user:
                user.hub.evictions.evict(user, self.leave)

        if not user.hub.evictions.evict_interrupted(user, self.leave):
            user.hub.reach(evict)
        # In another thread it may be in a system call, and frees it when it leaves.
        if user.hub is current_hub() or not self._has_descriptor():
            self.free()

    def _has_descriptor(self) -> bool:
        try:
            return self.listener.query(Fileno) is not None
        except OSError:
            return False  # closed by others

    def close(self, deadline: int, drain_limit: int | None) -> CloseReport:
        """As `Resource.close`: a listener stops at once."""
        try:
            context = CloseContext(
                self.number, self.listener, deadline, self.listener.address
            )
            self.is_closed = True
            if self.accepter is not None:
                self.abort()
                self._wait_for_accepter(deadline)
            return self.transport.close(context)
        finally:
            self.abort()

    def _wait_for_accepter(self, deadline: int) -> None:
        """Let another thread leave its system call, before the descriptor is freed."""
        hub = current_hub()
        me, user = hub.current, self.accepter
        if user is None or user.hub is hub or not self._has_descriptor():
            return
        if hub.is_in_task():
            return  # it must not wait; as good as always, the other is out by now
        until = within(LEAVE_TIME)
        if deadline >= 0:
            until = min(until, deadline)
        self.closer = me
        was_shielded, me.is_shielded = me.is_shielded, True
        try:
            # One that waits is in no system call, and makes none any more.
            while self.accepter is not None and not self.accepter.is_parked:
                hub.park(until)
        except DeadlineError:
            pass  # it does something else for long, and will find all closed
        finally:
            me.is_shielded = was_shielded
            self.closer = None


class AcceptUse:
    """The time during which a coroutine is the one that accepts."""

    __slots__ = ("listening", "me")

    def __init__(self, me: Coroutine, listening: Listening) -> None:
        self.me = me
        self.listening = listening

    def __enter__(self) -> AcceptUse:
        listening = self.listening
        if listening.accepter is not None:
            raise BusyError(IN_ACCEPT)
        listening.accepter = self.me
        if listening.is_closed:
            self.__exit__()
            raise BadHandleError
        return self

    def go_on_as(self, me: Coroutine) -> None:
        """Be the accepter under another name; EBADF if it was closed meanwhile."""
        before = self.me
        self.me = self.listening.accepter = me
        if self.listening.is_closed:
            before.hub.evictions.note_left(before)  # it may have been told
            raise BadHandleError

    def __exit__(self, *_: object) -> None:
        listening = self.listening
        listening.accepter = None
        if listening.is_closed:
            listening.leave(self.me)


def open_stream(
    stream: Stream, address: Address, transport: Transport, handle_class: type[H]
) -> H:
    """Give *stream* a handle; abort it if that can't be done."""
    try:
        return register(Connection(stream, address, transport), handle_class)
    except BaseException:
        from umbel.plugins.results import discard

        discard(stream)
        raise


def open_listener(listener: Listener, transport: Transport) -> ListenerHandle:
    """Give *listener* a handle; abort it if that can't be done, so no file is left."""
    try:
        return register(Listening(listener, transport), ListenerHandle)
    except BaseException:
        from umbel.plugins.results import discard

        discard(listener)
        raise


def accept(  # noqa: C901, PLR0912 - a path that is hot where streams are short
    handle: ListenerHandle, deadline: int = FOREVER
) -> StreamHandle:
    """Accept the next stream.

    Args:
        handle: a listener.
        deadline: see `umbel.deadline`.

    Returns:
        the stream.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a listener.
        BusyError: EBUSY, another coroutine is accepting from it.
        DeadlineError: ETIMEDOUT, nobody connected in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: EMFILE, ENFILE: no descriptor is left. The listener stays open, and the
            peer stays in its queue.

    Source:
        libdill ipc_accept(3), made generic.
    """
    me = checkpoint()
    listening = open_handles.get(handle)
    if type(listening) is not Listening:
        raise refusal(handle, Listening)
    # As AcceptUse and open_stream, whose calls would be a part of what accepting costs.
    if listening.accepter is not None:
        raise BusyError(IN_ACCEPT)
    listening.accepter = me
    try:
        if listening.is_closed:
            raise BadHandleError
        if listening.kept:
            return listening.kept.pop(0)
        attempts = listening.attempts
        if attempts is None or is_wrapped("umbel_accept"):
            stream = listening.accept(deadline)
        else:
            # As `umbel.aio` does, also where the listener's own accept is another.
            try_accept, readiness = attempts.accept, attempts.readiness
            while (found := try_accept()) is None:
                readiness.wait_in(deadline)
            stream = found
            if type(stream) not in known_streams:
                listening.transport.require_stream("accept", stream)
        try:
            connection = Connection(
                stream, listening.listener.address, listening.transport
            )
            return register(connection, StreamHandle)
        except BaseException:
            from umbel.plugins.results import discard

            discard(stream)
            raise
    except OSError as error:
        if is_plain(error):
            raise explain(error) from error
        raise
    finally:
        listening.accepter = None
        if listening.is_closed:
            listening.leave(me)
