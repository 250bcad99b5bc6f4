"""Events as OpenTelemetry spans. Imported only when spans are asked for.

Attributes follow the stable semantic conventions for servers, networks and errors; any
others are called `umbel.*`.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_tracer,
)

from umbel.spi import Address, split_host
from umbel_plugins._events import Event
from umbel_plugins._outcomes import is_stop

#: `network.transport` of the built-in schemes; others are said as `umbel.scheme` only.
_TRANSPORTS: Final = {"ipc": "unix", "mem": "unix", "tcp": "tcp"}


class Spans:
    """Makes a span of each event."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("umbel", tracer_provider=provider)

    def begin(self, event: Event) -> Span:
        """Start a span, a child of the caller's current one."""
        kind = SpanKind.CLIENT if event.name == "connect" else SpanKind.INTERNAL
        # Without the address: a name must be one of few.
        name = f"{event.name} {event.address.scheme}"
        return self._tracer.start_span(name, kind=kind)

    def end(self, span: Span, event: Event) -> None:
        """End it with what is known now."""
        span.set_attribute("umbel.scheme", event.address.scheme)
        transport = _TRANSPORTS.get(event.address.scheme)
        if transport is not None:
            span.set_attribute("network.transport", transport)
        _set_server(span, event.address)
        if event.handle is not None:
            span.set_attribute("umbel.handle", event.handle)
        if event.report is not None:
            span.set_attribute("umbel.close.discarded", event.report.discarded)
            if event.report.consumed is not None:
                span.set_attribute("umbel.close.consumed", event.report.consumed)
        if event.error is not None:
            _set_error(span, event)
        span.end()


def _set_server(span: Span, address: Address) -> None:
    if not address.location:
        return  # a pair, or an adopted socket of unknown origin
    found = split_host(address.location) if address.scheme == "tcp" else None
    if found is not None:
        span.set_attribute("server.address", found[0])
        span.set_attribute("server.port", int(found[1]))
    else:
        # Bytes that are no text can't travel in a span.
        text = address.location.encode(errors="replace").decode()
        span.set_attribute("server.address", text)


def _set_error(span: Span, event: Event) -> None:
    error = event.error
    name = event.outcome if event.outcome != "other" else type(error).__name__
    span.set_attribute("error.type", name)
    # Canceled is no failure: someone did not want the answer any more.
    if isinstance(error, Exception) and not is_stop(event.name, error):
        span.set_status(Status(StatusCode.ERROR, str(error)))
