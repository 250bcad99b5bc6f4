"""metrics: counts of streams, bytes and errors, for Prometheus.

    UMBEL_PLUGINS=metrics python program.py     # or umbel.load_plugins("metrics")

They are in prometheus_client's default registry, next to the program's own; `_meters`
lists them. With UMBEL_METRICS=127.0.0.1:9464 they are served at that address, for
Prometheus to fetch. Install them with `pip install 'umbel[metrics]'`.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TypeVar

from umbel.spi import (
    AcceptContext,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DoneContext,
    ListenContext,
    Listener,
    Outcome,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
    is_stream,
    say,
    split_host,
    system_error,
)
from umbel_plugins._outcomes import is_stop, outcome_name

try:
    from prometheus_client import REGISTRY, start_http_server

    from umbel_plugins._meters import MeteredStream, Meters
except ImportError as error:
    message = f"metrics need prometheus_client ({error}): pip install 'umbel[metrics]'"
    raise ImportError(message) from error

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry

T = TypeVar("T")

MOST_PORT: Final = 65535


class MetricsPlugin:
    """Counts what is opened, closed and moved.

    Attributes:
        registry: where the metrics are while it is loaded.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self._meters = Meters()
        self._server: tuple[int, WSGIServer, threading.Thread] | None = None

    @hookimpl.start
    def start(self) -> None:
        """Register the metrics, and serve them if the environment says where."""
        place = os.environ.get("UMBEL_METRICS")
        with ExitStack() as undo:  # all or nothing: it may be loaded again
            for collector in self._meters.collectors:
                try:
                    self.registry.register(collector)
                except ValueError as error:  # the program has one of that name
                    raise system_error(errno.EEXIST, f"metrics: {error}") from error
                undo.callback(self.registry.unregister, collector)
            if place:
                self._serve(place)
            undo.pop_all()

    def _serve(self, place: str) -> None:
        host, port = _parse_place(place)
        try:
            server, thread = start_http_server(port, host, self.registry)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
            # Looking on is no reason to stop the program that is looked at.
            say(f"umbel: no metrics at {place}: {error}")
            return
        self._server = os.getpid(), server, thread

    @hookimpl.stop
    def stop(self) -> None:
        """Take the metrics out, and stop serving."""
        for collector in self._meters.collectors:
            self.registry.unregister(collector)
        if self._server is None:
            return
        pid, server, thread = self._server
        self._server = None
        if pid == os.getpid():  # a forked child has no such thread to wait for
            server.shutdown()
            thread.join()
        server.server_close()

    # What is counted.

    @hookimpl.listen.wrapper
    def listening(self, context: ListenContext) -> Wrapped[Listener]:
        """Count a listener."""
        outcome = yield
        self._count_opened("listen", context.address.scheme, outcome)
        return None

    @hookimpl.connect.wrapper
    def connecting(self, context: ConnectContext) -> Wrapped[Stream]:
        """Count a stream, and what it moves."""
        outcome = yield
        return self._meter("connect", context.address.scheme, outcome)

    @hookimpl.accept.wrapper
    def accepting(self, context: AcceptContext) -> Wrapped[Stream]:
        """Count a stream, and what it moves."""
        outcome = yield
        return self._meter("accept", context.address.scheme, outcome)

    @hookimpl.pair.wrapper
    def pairing(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        """Count two streams, and what they move."""
        outcome = yield
        scheme = context.scheme
        if outcome.value is None:
            self._count_opened("pair", scheme, outcome)
            return None
        left, right = (self._meter_one("pair", scheme, s) for s in outcome.value)
        return Outcome((left, right))

    @hookimpl.adopt.wrapper
    def adopting(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        """Count a stream, and what it moves, or a listener."""
        outcome = yield
        scheme = context.address.scheme
        if outcome.value is None or not is_stream(outcome.value):
            self._count_opened("adopt", scheme, outcome)
            return None
        return Outcome(self._meter_one("adopt", scheme, outcome.value))

    @hookimpl.done.wrapper
    def ending(self, context: DoneContext) -> Wrapped[None]:
        """Count errors of `done`."""
        outcome = yield
        if outcome.error is not None:
            self._meters.of(context.address.scheme).count_error("done", outcome.error)
        return None

    @hookimpl.close.wrapper
    def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
        """Note how long a close takes, and how it ends."""
        meter = self._meters.of(context.address.scheme)
        metered = context.endpoint.query(MeteredStream)
        if metered is not None:
            metered.is_closing = True
        begun = time.perf_counter()
        outcome = yield
        meter.close_seconds.observe(time.perf_counter() - begun)
        if outcome.error is not None:
            meter.count_error("close", outcome.error)
        if metered is not None:
            metered.end = outcome_name(outcome.error)
            metered.is_closing = False
        return None

    def _meter(
        self, verb: str, scheme: str, outcome: Outcome[Stream]
    ) -> Outcome[Stream] | None:
        if outcome.value is None:
            self._count_opened(verb, scheme, outcome)
            return None
        return Outcome(self._meter_one(verb, scheme, outcome.value))

    def _meter_one(self, verb: str, scheme: str, stream: Stream) -> Stream:
        self._count_opened(verb, scheme, Outcome(stream))
        return MeteredStream(stream, self._meters.of(scheme))

    def _count_opened(self, verb: str, scheme: str, outcome: Outcome[T]) -> None:
        if is_stop(verb, outcome.error):
            return
        meter = self._meters.of(scheme)
        meter.count_opened(verb, outcome.error)
        if outcome.error is not None:
            meter.count_error(verb, outcome.error)


def _parse_place(place: str) -> tuple[str, int]:
    host, port = split_host(place) or ("", "")
    if not host or len(port) > len(str(MOST_PORT)) or int(port) > MOST_PORT:
        message = f"UMBEL_METRICS={place!r}: write host:port, such as 127.0.0.1:9464"
        raise system_error(errno.EINVAL, message)
    return host, int(port)


plugin = MetricsPlugin()
