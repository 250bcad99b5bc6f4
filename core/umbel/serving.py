"""Servers: a coroutine for each connection, a limit on them, and an end in good order.

A server stops when its listener is closed, when `serve` is canceled or interrupted, or
at its deadline. However it stops, it first stops listening (before that, it drains the
backlog, if asked to); then running handlers may finish, within the grace; then any that
remain are canceled; and `serve` returns, or raises, when no handler runs any more.

`umbel.aio.serving` is the same for tasks; what the two share is here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

from umbel._kernel.current import checkpoint, current_hub
from umbel.coroutines.bundle_handle import BundleHandle
from umbel.coroutines.bundles import Bundle
from umbel.deadline import FOREVER, check_seconds, soonest, within
from umbel.errors import (
    BadHandleError,
    Canceled,
    DeadlineError,
    require_plain,
    require_run,
)
from umbel.handle import (
    CLOSE_GRACE,
    close,
    hclose_if_open,
    lookup,
    open_handles,
    register,
)
from umbel.server_rules import (
    Retries,
    Room,
    is_past,
    report_cut,
    report_failure,
    report_parting,
    require_listener,
)
from umbel.streams.listener import (
    AcceptUse,
    ListenerHandle,
    accept,
)
from umbel.streams.stream import StreamHandle

_ASYNC_ADVICE: Final = "umbel.aio.serve takes such handlers, in asyncio and trio"


def serve(
    handle: ListenerHandle,
    handler: Callable[[StreamHandle], object],
    deadline: int = FOREVER,
    *,
    limit: int | None = None,
    grace: float = CLOSE_GRACE,
    drain_backlog: bool = False,
) -> None:
    """Accept streams, and run *handler* for each in a coroutine of its own.

    A stream whose handler returns is closed in good order. A stream whose handler
    raises is closed hard; the error is logged, and the other handlers go on. If the
    process runs out of descriptors, accepting pauses until one is free.

    To stop it, close the listener, from anywhere, or cancel the caller: it stops
    listening, running handlers may go on for *grace* seconds, and any that remain are
    canceled. A signal that raises in here, as with `exit_on_signal`, does the same; a
    second one cuts the grace short.

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
        drain_backlog: when canceled or interrupted, it accepts until nobody is left,
            within the grace, before it stops listening: for a server that another has
            taken over from. Where other processes accept from the same listener, those
            in its backlog are theirs.

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
    server = _Server(handle, handler, Room(limit), grace, drain_backlog)
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
        drains_backlog: bool,
    ) -> None:
        check_seconds(grace, "grace")
        self._listening = require_listener(handle)
        self._address = str(self._listening.listener.address)
        self._retries = Retries(self._address)
        self._handle = handle
        self._handler = handler
        self._room = room
        self._grace = grace
        self._drains_backlog = drains_backlog
        # Not `bundle`, which a canceled caller may not call: the listener is ours now.
        hub = current_hub()
        handlers = Bundle(hub)
        handlers.holder = hub.current  # so a handler can't close what we run in
        self._handlers = register(handlers, BundleHandle)

    def accept_all(self, deadline: int) -> None:
        """Start a handler for each stream; return when the listener is closed."""
        while True:
            try:
                stream = self._next(deadline, deadline)
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

    def _next(self, deadline: int, accept_by: int) -> StreamHandle:
        while True:
            while self._room.is_full:
                self._wait_for_end(deadline)
            try:
                stream = accept(self._handle, accept_by)
            except OSError as error:
                if isinstance(error, DeadlineError) and is_past(accept_by):
                    raise
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
        """End as said at the top; tell whether any handlers had to be canceled."""
        until = soonest(within(self._grace), deadline)
        try:
            with _held_up():
                try:
                    if self._drains_backlog:
                        self._drain_backlog(until)
                finally:
                    self._stop_listening(until)
                lookup(self._handlers, Bundle).wait(until)
        except DeadlineError:
            report_cut(self._address, self._room.count)
            return True
        finally:
            # With what stopped it: the end of the program gives way to no failure.
            handlers = lookup(self._handlers, Bundle)
            handlers.leave(self._handlers, sys.exc_info()[1])
        return False

    def _drain_backlog(self, until: int) -> None:
        while self._handle in open_handles:
            try:
                stream = self._next(until, 0)
            except DeadlineError:
                if self._room.is_full:
                    raise  # the grace is over
                return  # nobody is left
            except OSError as error:  # it comes again each time
                report_parting(self._address, error)
                return
            self._start(stream)

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
