"""trace: a log of what is opened and closed, and OpenTelemetry spans.

    UMBEL_PLUGINS=trace python program.py       # or umbel.load_plugins("trace")

When a listen, connect, accept, pair, adopt, done or close ends, it becomes one record
of the logger "umbel.trace": INFO if it went well or was canceled, else WARNING. Its
details are attributes of the record (`Event` lists them), as with any `extra`.

UMBEL_TRACE=file appends each as a line of JSON to that file; `-` is standard error.
UMBEL_TRACE_OTEL=1 also makes a span of each: `pip install 'umbel[trace-otel]'`.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

import umbel
from umbel.spi import (
    AcceptContext,
    Address,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DoneContext,
    Fileno,
    ListenContext,
    Listener,
    Outcome,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
    say,
    system_error,
)
from umbel_plugins._events import Event, JsonFormatter
from umbel_plugins._outcomes import is_stop, outcome_name

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from umbel_plugins._spans import Spans

R = TypeVar("R")

logger: Final = logging.getLogger("umbel.trace")


class TracePlugin:
    """Reports each event to the log, and to OpenTelemetry if asked to."""

    def __init__(self) -> None:
        self._spans: Spans | None = None
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET

    def use_otel(self, provider: TracerProvider | None = None) -> None:
        """Make spans too, from now on.

        Args:
            provider: who makes them; None: the global one.

        Raises:
            PluginError: ELIBACC, opentelemetry-api is not installed.
        """
        try:
            from umbel_plugins._spans import Spans
        except ImportError as error:
            message = (
                f"spans need OpenTelemetry ({error}): pip install 'umbel[trace-otel]'"
            )
            raise umbel.PluginError(message) from error
        self._spans = Spans(provider)

    @hookimpl.start
    def start(self) -> None:
        """Do what the environment asks for."""
        place = os.environ.get("UMBEL_TRACE")
        if os.environ.get("UMBEL_TRACE_OTEL", "") not in ("", "0"):
            self.use_otel()
        if place:
            self._handler = _open_handler(place)
            self._level = logger.level
            logger.addHandler(self._handler)
            logger.setLevel(logging.INFO)

    @hookimpl.stop
    def stop(self) -> None:
        """Leave the log as it was."""
        self._spans = None
        handler, self._handler = self._handler, None
        if handler is not None:
            logger.removeHandler(handler)
            logger.setLevel(self._level)
            with suppress(OSError):  # a full disk, which was told before
                handler.close()

    # What is seen.

    @hookimpl.listen.wrapper
    def listening(self, context: ListenContext) -> Wrapped[Listener]:
        """See a listener being opened."""
        return (yield from self._watch(Event("listen", context.address)))

    @hookimpl.connect.wrapper
    def connecting(self, context: ConnectContext) -> Wrapped[Stream]:
        """See an attempt to connect."""
        return (yield from self._watch(Event("connect", context.address)))

    @hookimpl.accept.wrapper
    def accepting(self, context: AcceptContext) -> Wrapped[Stream]:
        """See a stream being accepted."""
        event = Event("accept", context.address, context.handle)
        return (yield from self._watch(event))

    @hookimpl.pair.wrapper
    def pairing(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        """See a pair being made."""
        event = Event("pair", Address(context.scheme, ""))
        return (yield from self._watch(event))

    @hookimpl.adopt.wrapper
    def adopting(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        """See a socket being adopted."""
        event = Event("adopt", context.address, fd=context.fd)
        return (yield from self._watch(event))

    @hookimpl.done.wrapper
    def ending(self, context: DoneContext) -> Wrapped[None]:
        """See our direction of a stream being ended."""
        event = Event("done", context.address, context.handle)
        return (yield from self._watch(event))

    @hookimpl.close.wrapper
    def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
        """See a close in good order."""
        fd = _descriptor_of(context.endpoint)
        event = Event("close", context.address, context.handle, fd)
        return (yield from self._watch(event))

    def _watch(self, event: Event) -> Wrapped[R]:
        spans = self._spans
        span = None if spans is None else spans.begin(event)
        begun = time.perf_counter()
        outcome = yield
        event.duration = time.perf_counter() - begun
        event.outcome = outcome_name(outcome.error)
        event.error = outcome.error
        _add_result(event, outcome)
        if spans is not None and span is not None:
            spans.end(span, event)
        _log(event)
        return None


def _add_result(event: Event, outcome: Outcome[R]) -> None:
    value = outcome.value
    report = getattr(outcome.error, "report", value)
    if isinstance(report, CloseReport):
        event.report = report
    if event.name == "listen" and value is not None:
        # A port that the kernel chose, for one.
        event.address = getattr(value, "address", event.address)
    if event.name == "adopt" and value is not None:
        event.fd = None  # what was adopted has a copy, and the given one is closed
    if event.fd is None and value is not None and not isinstance(value, tuple):
        event.fd = _descriptor_of(value)


def _descriptor_of(endpoint: object) -> int | None:
    query = getattr(endpoint, "query", None)
    if query is None:
        return None
    try:
        found = query(Fileno)
    except OSError:
        return None  # another thread has closed it meanwhile
    return found.fd if isinstance(found, Fileno) else None


def _log(event: Event) -> None:
    is_expected = is_stop(event.name, event.error)
    has_failed = isinstance(event.error, Exception) and not is_expected
    level = logging.WARNING if has_failed else logging.INFO
    if not logger.isEnabledFor(level):
        return
    logger.log(level, "%s", event.describe(), extra=event.fields())


class _TraceFile(logging.FileHandler):
    """A file of which it is told once that it can't be written, in one line."""

    has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name
        if not self.has_failed:
            self.has_failed = True
            error = sys.exc_info()[1]
            say(f"umbel: no trace in {self.baseFilename}: {error}")


def _open_handler(place: str) -> logging.Handler:
    handler: logging.Handler
    if place == "-":
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = _TraceFile(place, encoding="utf-8", errors="replace")
        except OSError as error:
            message = f"UMBEL_TRACE={place!r}: name a file that can be written, or -"
            explained = system_error(error.errno or errno.EIO, message)
            explained.filename = place
            raise explained from error
    handler.setFormatter(JsonFormatter())
    return handler


plugin = TracePlugin()
