"""Servers in asyncio and trio: a task for each connection; see `umbel.serving`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from functools import partial
from types import CoroutineType, TracebackType
from typing import Final, Protocol, final

from umbel._kernel.loops import running_loop
from umbel.aio.entry import enter
from umbel.aio.handle import close
from umbel.aio.listener import AnyListener, accept
from umbel.aio.stream import AsyncStreamHandle
from umbel.deadline import FOREVER, check_seconds, soonest, within
from umbel.errors import BadHandleError, DeadlineError
from umbel.handle import CLOSE_GRACE, hclose_if_open, open_handles
from umbel.server_rules import (
    Retries,
    Room,
    ends_program,
    is_past,
    report_cut,
    report_failure,
    report_parting,
    require_listener,
)
from umbel.streams.listener import AcceptUse

_PLAIN_HANDLER: Final = (
    "the handler is a plain function, and its result can't be awaited: make it async "
    "def, or have it run by umbel.serve, or by umbel.aio.run_blocking in one that is"
)


async def serve(
    handle: AnyListener,
    handler: Callable[[AsyncStreamHandle], Awaitable[object]],
    deadline: int = FOREVER,
    *,
    limit: int | None = None,
    grace: float = CLOSE_GRACE,
    drain_backlog: bool = False,
) -> None:
    """Accept streams, and run *handler* for each in a task of its own.

    As `umbel.serve`. The loop's own cancellation stops it in the same way; it is raised
    once the grace is over, or once no handler runs any more. In asyncio, where a task
    can be canceled twice, the second time cuts the grace short; and a signal after
    `exit_on_signal` gives none, as `asyncio.run` then cancels the handlers too. In
    trio, the tasks are in a nursery of this call.

    Args:
        handle: a listener. Owned by this call: closed when it returns or raises, except
            after EBADF, ENOTSUP, EBUSY, RuntimeError and any other wrong argument.
        handler: called with each stream.
        deadline: see `umbel.deadline`; when everything must be over, including the
            grace.
        limit: how many may be served at once. None: any number.
        grace: seconds that running handlers have after a stop.
        drain_backlog: as of `umbel.serve`. In asyncio, cancel the task that serves: at
            the end of `asyncio.run` it would keep the loop for the grace.

    Raises:
        BadHandleError: EBADF, *handle* is not open. If it is closed later, that is a
            stop.
        NotSupportedError: ENOTSUP, it is not a listener.
        BusyError: EBUSY, another coroutine or task is accepting from it.
        DeadlineError: ETIMEDOUT, nobody stopped it before, or the deadline cut the
            grace short.
        Canceled: ECANCELED is never raised here, but the loop's own cancellation.
        OSError: EINVAL, *limit* is less than 1.
        ValueError: *grace* is negative.
        RuntimeError: no asyncio or trio loop runs in this thread.
        BaseExceptionGroup: handlers raised something that is not an Exception. Raised
            once everything has ended.

    Source:
        own; see `umbel.serve`.
    """
    await serve_by(_make_crew(), handle, handler, deadline, limit, grace, drain_backlog)


async def serve_by(
    crew: Crew,
    handle: AnyListener,
    handler: Callable[[AsyncStreamHandle], Awaitable[object]],
    deadline: int,
    limit: int | None,
    grace: float,
    drains_backlog: bool = False,
) -> None:
    """Serve by the tasks of *crew*; otherwise as `serve`."""
    server = _Server(handle, handler, crew, Room(limit), grace, drains_backlog)
    stopped_by: BaseException | None = None
    has_cut = False
    try:
        async with crew:
            # What is raised in here, trio's nursery would put into a group.
            try:
                await server.accept_all(deadline)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                stopped_by = error
            try:
                has_cut = await server.stop(deadline)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - likewise
                stopped_by = error
            crew.cancel()
    except GeneratorExit:
        # The loop was closed: it is too late to wait for anybody.
        hclose_if_open(handle)
        raise
    except BaseException as error:  # noqa: BLE001 - likewise
        stopped_by = error
    try:
        server.raise_failures(stopped_by)
        if stopped_by is not None:
            raise stopped_by
        if has_cut and is_past(deadline):
            raise DeadlineError
    finally:
        del stopped_by  # its traceback must not refer to itself


class Crew(Protocol):
    """The tasks of one server; the end of its `async with` waits for all of them."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...

    def start(
        self, work: Coroutine[object, object, None], ended: Callable[[], None]
    ) -> None:
        """Start a task; call *ended* when it has ended, or was stopped before."""

    def scope(self) -> AbstractContextManager[object]:
        """Give the scope that a task works in, which only `cancel` cancels."""

    def cancel(self) -> None:
        """Cancel all tasks."""

    def is_for_loop(self, error: BaseException) -> bool:
        """Tell whether *error*, of a task, is the loop's own, or ends the program."""

    def held_up(self) -> AbstractContextManager[object]:
        """Give a scope in which a task that is being canceled can still await."""


def _make_crew() -> Crew:
    if running_loop() == "trio":
        from umbel.aio.trio_crew import TrioCrew

        return TrioCrew()
    from umbel.aio.asyncio_crew import AsyncioCrew

    return AsyncioCrew()


def _require_awaitable(handling: object) -> None:
    from inspect import isawaitable  # which takes long to import

    if not isawaitable(handling):
        raise TypeError(_PLAIN_HANDLER)


@final
class _Server:
    """One call of `serve`."""

    def __init__(
        self,
        handle: AnyListener,
        handler: Callable[[AsyncStreamHandle], Awaitable[object]],
        crew: Crew,
        room: Room,
        grace: float,
        drains_backlog: bool,
    ) -> None:
        check_seconds(grace, "grace")
        self._host = enter()
        self._listening = require_listener(handle)
        self._address = str(self._listening.listener.address)
        self._retries = Retries(self._address)
        self._handle = handle
        self._handler = handler
        self._crew = crew
        self._room = room
        self._grace = grace
        self._drains_backlog = drains_backlog
        self._failures: list[BaseException] = []

    async def accept_all(self, deadline: int) -> None:
        """Start a handler for each stream; return when the listener is closed."""
        while True:
            try:
                stream = await self._next(deadline, deadline)
            except BadHandleError:
                if self._handle in open_handles:
                    raise  # of something else
                return
            self._start(stream)
            if is_past(deadline):
                raise DeadlineError  # as in `umbel.serve`

    def _start(self, stream: AsyncStreamHandle) -> None:
        self._room.count += 1
        try:
            self._crew.start(self._attend(stream), partial(self._end, stream))
        except BaseException:  # an eager task that has ended the program
            self._end(stream)
            raise

    async def _next(self, deadline: int, accept_by: int) -> AsyncStreamHandle:
        while True:
            while self._room.is_full:
                await self._wait_for_end(deadline)
            try:
                stream = await accept(self._handle, accept_by)
            except OSError as error:
                if isinstance(error, DeadlineError) and is_past(accept_by):
                    raise
                until = self._retries.after(error, deadline)
            else:
                self._retries.note_success()
                return stream
            try:
                await self._wait_for_end(until)
            except DeadlineError:
                pass  # it is only the pause that is over

    async def _wait_for_end(self, deadline: int) -> None:
        """Return when a handler has ended; EBADF when the listener is closed."""
        me = self._host.new_guest()
        # As the one who accepts: so a close of the listener wakes us.
        with AcceptUse(me, self._listening), self._room.waiting(me):
            await self._host.park(me, deadline)

    async def _attend(self, stream: AsyncStreamHandle) -> None:
        try:
            with self._crew.scope():
                handling = self._handler(stream)
                if type(handling) is not CoroutineType:
                    _require_awaitable(handling)
                await handling
                if stream in open_handles:
                    await self._part(stream)
        except Exception as error:  # noqa: BLE001 - one that fails never stops the others
            report_failure(self._address, error)
        except GeneratorExit:
            hclose_if_open(stream)  # a closed loop calls no `_end`
            raise
        except BaseException as error:
            if self._crew.is_for_loop(error):
                raise
            self._failures.append(error)

    def raise_failures(self, stopped_by: BaseException | None) -> None:
        """Raise what was no Exception; but the end of the program gives way to none."""
        failures, self._failures = self._failures, []
        if stopped_by is not None and ends_program(stopped_by):
            for error in failures:
                report_failure(self._address, error)
        elif failures:
            message = "handlers of a server failed"
            raise BaseExceptionGroup(message, failures)

    async def _part(self, stream: AsyncStreamHandle) -> None:
        try:
            await close(stream, within(self._grace))
        except OSError as error:
            report_parting(self._address, error)

    def _end(self, stream: AsyncStreamHandle) -> None:
        hclose_if_open(stream)
        self._room.leave()

    async def stop(self, deadline: int) -> bool:
        """Stop listening, wait for the grace; tell whether some must be canceled."""
        until = soonest(within(self._grace), deadline)
        with self._crew.held_up():
            try:
                if self._drains_backlog:
                    await self._drain_backlog(until)
                await self._stop_listening(until)
                await self._wait_for_all(until)
            except DeadlineError:
                report_cut(self._address, self._room.count)
                return True
            finally:
                hclose_if_open(self._handle)  # canceled again before it could be closed
        return False

    async def _drain_backlog(self, until: int) -> None:
        while self._handle in open_handles:  # as in `umbel.serve`
            try:
                stream = await self._next(until, 0)
            except DeadlineError:
                if self._room.is_full:
                    raise
                return
            except OSError as error:
                report_parting(self._address, error)
                return
            self._start(stream)

    async def _stop_listening(self, until: int) -> None:
        if self._handle in open_handles:
            try:
                await close(self._handle, until)
            except OSError as error:
                report_parting(self._address, error)

    async def _wait_for_all(self, until: int) -> None:
        while self._room.count:
            me = self._host.new_guest()
            with self._room.waiting(me):
                await self._host.park(me, until)
