"""Servers: a coroutine for each connection, a limit on them, and an end in good order.

A server stops when its listener is closed, when `serve` is canceled or interrupted, or
at its deadline. However it stops, it first stops listening; then running handlers may
finish, within the grace; then any that remain are canceled; and `serve` returns, or
raises, when no handler runs any more.

`umbel.aio.serving` is the same for tasks; what the two share is here.
"""

from __future__ import annotations

import errno
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel.coroutines.bundle_handle import BundleHandle
from umbel.coroutines.bundles import PROGRAM_ENDS, Bundle
from umbel.deadline import FOREVER, check_seconds, now, soonest, within
from umbel.errors import (
    BadHandleError,
    BusyError,
    Canceled,
    DeadlineError,
    require_plain,
    require_run,
    system_error,
)
from umbel.handle import (
    CLOSE_GRACE,
    close,
    hclose_if_open,
    lookup,
    open_handles,
    register,
)
from umbel.streams.listener import (
    IN_ACCEPT,
    AcceptUse,
    ListenerHandle,
    Listening,
    accept,
)
from umbel.streams.stream import StreamHandle

if TYPE_CHECKING:
    import logging

#: Seconds to wait after an accept that failed, as by EMFILE; doubled up to the last.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
#: How many of the backlog a stop accepts still; listen(2) allows no more as a rule.
MOST_QUEUED: Final = 4096
#: Seconds between two warnings of them.
QUIET: Final = 10.0

_ASYNC_ADVICE: Final = "umbel.aio.serve takes such handlers, in asyncio and trio"

#: What comes again at the next accept, since the listener or the call is no good.
LASTING: Final = frozenset(
    {errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBUSY, errno.EINVAL}
)


def serve(
    handle: ListenerHandle,
    handler: Callable[[StreamHandle], object],
    deadline: int = FOREVER,
    *,
    limit: int | None = None,
    grace: float = CLOSE_GRACE,
) -> None:
    """Accept streams, and run *handler* for each in a coroutine of its own.

    A stream whose handler returns is closed in good order. A stream whose handler
    raises is closed hard; the error is logged, and the other handlers go on. If the
    process runs out of descriptors, accepting pauses until one is free.

    To stop it, cancel the caller: it accepts those who have connected already, stops
    listening, handlers may go on for *grace* seconds, and any that remain are canceled.
    A signal that raises in here, as with `exit_on_signal`, does the same; a second one
    cuts the grace short. If somebody else closes the listener, that is a stop, too; but
    those in its backlog are lost.

    Args:
        handle: a listener. Owned by this call: closed when it returns or raises, except
            after EBADF, ENOTSUP, EBUSY and any other wrong argument.
        handler: called with each stream. It may close the stream, or hand it on with
            `hown`.
        deadline: see `umbel.deadline`; when everything must be over, including the
            grace.
        limit: how many may be served at once; others wait in the listener's backlog.
            None: any number.
        grace: seconds that running handlers have after a stop; also how long the
            orderly close of each stream may take.

    Raises:
        BadHandleError: EBADF, *handle* is not open. If it is closed later, that is a
            stop.
        NotSupportedError: ENOTSUP, it is not a listener.
        BusyError: EBUSY, another coroutine is accepting from it.
        DeadlineError: ETIMEDOUT, nobody stopped it before, or the deadline cut the
            grace short.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: EINVAL, *limit* is less than 1.
        ValueError: *grace* is negative.
        TypeError: *handler* is an async function.
        BaseExceptionGroup: handlers raised something that is not an Exception. Raised
            once everything has ended.

    Source:
        own; Go's http.Server.Shutdown, with a grace.
    """
    require_plain(handler, _ASYNC_ADVICE)
    server = _Server(handle, handler, Room(limit), grace)
    try:
        server.accept_all(deadline)
    finally:
        has_cut = server.stop(deadline)
    if has_cut and is_past(deadline):
        raise DeadlineError


@final
class _Server:
    """One call of `serve`."""

    def __init__(
        self,
        handle: ListenerHandle,
        handler: Callable[[StreamHandle], object],
        room: Room,
        grace: float,
    ) -> None:
        check_seconds(grace, "grace")
        self._listening = require_listener(handle)
        self._address = str(self._listening.listener.address)
        self._retries = Retries(self._address)
        self._handle = handle
        self._handler = handler
        self._room = room
        self._grace = grace
        # Not `bundle`, which a canceled caller may not call: the listener is ours now.
        hub = current_hub()
        handlers = Bundle(hub)
        handlers.holder = hub.current  # so a handler can't close what we run in
        self._handlers = register(handlers, BundleHandle)

    def accept_all(self, deadline: int) -> None:
        """Start a handler for each stream; return when the listener is closed."""
        while True:
            try:
                stream = self._next(deadline)
            except BadHandleError:
                if self._handle in open_handles:
                    raise  # of something else
                return
            self._start(stream)
            if is_past(deadline):
                raise DeadlineError  # accept itself looks only when nobody is there

    def _start(self, stream: StreamHandle) -> None:
        self._room.count += 1
        try:
            self._handlers.go(self._attend, stream)
        except BaseException:  # we were stopped in that moment
            self._end(stream)
            raise

    def _next(self, deadline: int) -> StreamHandle:
        while True:
            while self._room.is_full:
                self._wait_for_end(deadline)
            try:
                stream = accept(self._handle, deadline)
            except OSError as error:
                until = self._retries.after(error, deadline)
            else:
                self._retries.note_success()
                return stream
            try:
                self._wait_for_end(until)
            except DeadlineError:
                pass  # it is only the pause that is over

    def _wait_for_end(self, deadline: int) -> None:
        """Return when a handler has ended; EBADF when the listener is closed."""
        count = self._room.count
        me = checkpoint()
        # As the one who accepts: so a close of the listener wakes us.
        with AcceptUse(me, self._listening), self._room.waiting(me):
            if self._room.count == count:  # none ended while we let others run
                me.hub.park(deadline)

    def _attend(self, stream: StreamHandle) -> None:
        try:
            result = self._handler(stream)
            require_run(result, _ASYNC_ADVICE)
            if stream in open_handles:
                self._part(stream)
        except Exception as error:  # noqa: BLE001 - one that fails never stops the others
            report_failure(self._address, error)
        finally:
            self._end(stream)

    def _end(self, stream: StreamHandle) -> None:
        hclose_if_open(stream)
        self._room.leave()

    def _part(self, stream: StreamHandle) -> None:
        try:
            close(stream, within(self._grace))
        except OSError as error:
            report_parting(self._address, error)

    def stop(self, deadline: int) -> bool:
        """Stop listening, wait for the grace, cancel; tell whether any had to be."""
        until = soonest(within(self._grace), deadline)
        queued: deque[StreamHandle] = deque()
        try:
            with _held_up():
                try:
                    self._take_queue(queued, until)
                finally:
                    self._stop_listening(until)
                while queued:
                    self._wait_for_room(until)
                    self._start(queued.popleft())
                lookup(self._handlers, Bundle).wait(until)
        except DeadlineError:
            report_cut(self._address, self._room.count + len(queued))
            return True
        finally:
            while queued:
                hclose_if_open(queued.popleft())
            # With what stopped it: the end of the program gives way to no failure.
            handlers = lookup(self._handlers, Bundle)
            handlers.leave(self._handlers, sys.exc_info()[1])
        return False

    def _take_queue(self, queued: deque[StreamHandle], until: int) -> None:
        """Accept those who have connected already: a close would reset them."""
        if self._handle not in open_handles or is_past(until):
            return
        # Nobody is there any more; or no descriptor is left, or it fails again.
        with suppress(Exception):
            while len(queued) < MOST_QUEUED:
                queued.append(accept(self._handle, 0))

    def _wait_for_room(self, until: int) -> None:
        while self._room.is_full:
            me = checkpoint()
            with self._room.waiting(me):
                if self._room.is_full:  # still, though we may have let others run
                    me.hub.park(until)

    def _stop_listening(self, until: int) -> None:
        if self._handle in open_handles:
            try:
                close(self._handle, until)
            except OSError as error:
                report_parting(self._address, error)


@contextmanager
def _held_up() -> Iterator[None]:
    """Let a coroutine that is being canceled wait all the same."""
    me = current_hub().current
    was_shielded, held_back = me.is_shielded, None
    # Anything else but Canceled comes once: a second signal is not held up.
    if isinstance(me.pending, Canceled):
        if me is me.hub.main:  # whose block is interrupted: nor is a first signal
            held_back, me.pending = me.pending, None
        else:
            me.is_shielded = True
    try:
        yield
    finally:
        me.is_shielded = was_shielded
        if me.pending is None:
            me.pending = held_back


# For this server and the awaitable one.


class Room:
    """How many streams are served, how many may be, and who waits for one to end."""

    __slots__ = ("count", "limit", "waiter")

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            message = f"limit is {limit}: nobody could be served; give 1 or more"
            raise system_error(errno.EINVAL, message)
        self.limit = limit
        self.count = 0
        self.waiter: Coroutine | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more may be served now."""
        return self.limit is not None and self.count >= self.limit

    def leave(self) -> None:
        """Take note that one has ended."""
        self.count -= 1
        if self.waiter is not None:
            self.waiter.hub.unpark(self.waiter)

    @contextmanager
    def waiting(self, me: Coroutine) -> Iterator[None]:
        """Be woken when one ends."""
        self.waiter = me
        try:
            yield
        finally:
            self.waiter = None


class Retries:
    """How long to wait after failed accepts: longer each time, and never busily.

    Near the limit of descriptors accepts fail and go well by turns, as fast as peers
    come: so what is logged is not each failure.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._pause = 0.0
        #: Until then, in ms, nothing more is logged.
        self._quiet_until = 0

    def note_success(self) -> None:
        """Let the next failure wait but shortly."""
        self._pause = 0.0

    def after(self, error: OSError, deadline: int) -> int:
        """Give until when to wait; raise *error* if waiting is no use."""
        if is_past(deadline):
            raise DeadlineError from error
        if error.errno in LASTING:
            try:
                raise error
            finally:
                del error  # or its traceback would refer to itself
        if is_past(self._quiet_until):
            self._quiet_until = within(QUIET)
            _log().warning(
                "%s: accepting failed, and is tried again: %s", self._address, error
            )
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        return soonest(within(self._pause), deadline)


def require_listener(handle: int) -> Listening:
    """Find a listener that nobody accepts from; EBADF, ENOTSUP or EBUSY if none."""
    _log()  # imported now: where no descriptor is left it could not be read
    listening = lookup(handle, Listening)
    if listening.accepter is not None:
        raise BusyError(IN_ACCEPT)
    return listening


def is_past(deadline: int) -> bool:
    """Tell whether *deadline* has been reached."""
    return 0 <= deadline <= now()


def ends_program(error: BaseException) -> bool:
    """Tell whether *error* is for the program; a nursery puts that into a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(PROGRAM_ENDS) is not None
    return isinstance(error, PROGRAM_ENDS)


def report_failure(address: str, error: BaseException) -> None:
    """Log that a handler failed; a peer that went away is no failure of the program."""
    # Refused: by whom the handler connects to, for its peer has been accepted.
    is_refused = isinstance(error, ConnectionRefusedError)
    if isinstance(error, ConnectionError) and not is_refused:
        _log().info("%s: a peer went away: %s", address, error)
    else:
        _log().error("%s: the handler of a stream failed", address, exc_info=error)


def report_parting(address: str, error: OSError) -> None:
    """Log that something was not closed in good order, unless somebody else did it."""
    if not isinstance(error, BadHandleError):
        _log().info("%s: not closed in good order: %s", address, error)


def report_cut(address: str, count: int) -> None:
    """Log that handlers are canceled."""
    _log().warning("%s: the grace is over: %d handlers are canceled", address, count)


def _log() -> logging.Logger:
    import logging  # not with this module: it takes its time

    return logging.getLogger("umbel")
