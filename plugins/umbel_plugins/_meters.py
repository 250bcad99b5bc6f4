"""The metrics themselves, and the stream that counts its bytes.

Labels are the scheme, the verb, and how it ended, and each has few values. An address
is never a label, or the peers of a single program could fill a Prometheus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from umbel import Canceled
from umbel.spi import (
    BadHandleError,
    DeadlineError,
    DescriptorPassing,
    Fileno,
    Stream,
    StreamAttempts,
    StreamProxy,
    Transfer,
)
from umbel_plugins._outcomes import OK, outcome_name

#: How a stream ended that was not closed in good order.
ABORTED: Final = "aborted"
SENT: Final = "sent"
#: Seconds of a close: from a local one to the grace of a `with` block.
BUCKETS: Final = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


@final
class Meters:
    """All metrics, and those of each scheme."""

    def __init__(self) -> None:
        self.opened = Counter(
            "umbel_opened",
            "Streams and listeners that were opened, or were to be, and how it ended.",
            ["scheme", "verb", "outcome"],
            registry=None,
        )
        self.closed = Counter(
            "umbel_closed",
            "Streams that ended: closed (ok or the error), aborted or sent elsewhere.",
            ["scheme", "outcome"],
            registry=None,
        )
        self.open = Gauge(
            "umbel_open_streams", "Streams that are open.", ["scheme"], registry=None
        )
        self.received = Counter(
            "umbel_received_bytes", "Bytes received.", ["scheme"], registry=None
        )
        self.sent = Counter(
            "umbel_sent_bytes", "Bytes sent.", ["scheme"], registry=None
        )
        self.close_seconds = Histogram(
            "umbel_close_seconds",
            "How long closes in good order took.",
            ["scheme"],
            buckets=BUCKETS,
            registry=None,
        )
        self.errors = Counter(
            "umbel_errors",
            "Errors that were raised, by the name of the errno.",
            ["scheme", "verb", "errno"],
            registry=None,
        )
        self._of: dict[str, Meter] = {}

    @property
    def collectors(self) -> tuple[Collector, ...]:
        """What a registry takes."""
        return (
            self.opened,
            self.closed,
            self.open,
            self.received,
            self.sent,
            self.close_seconds,
            self.errors,
        )

    def of(self, scheme: str) -> Meter:
        """Give the metrics of *scheme*."""
        found = self._of.get(scheme)
        if found is None:
            found = self._of.setdefault(scheme, Meter(self, scheme))
        return found


@final
class Meter:
    """The metrics of one scheme, looked up once."""

    __slots__ = (
        "_aborted",
        "_closed",
        "_errors",
        "_opened",
        "close_seconds",
        "open",
        "received",
        "scheme",
        "sent",
    )

    def __init__(self, meters: Meters, scheme: str) -> None:
        self.scheme = scheme
        self.open = meters.open.labels(scheme)
        self.received = meters.received.labels(scheme)
        self.sent = meters.sent.labels(scheme)
        self.close_seconds = meters.close_seconds.labels(scheme)
        self._opened = meters.opened
        self._closed = meters.closed
        self._closed.labels(scheme, OK)  # the first that is shown
        # Looked up now: forgotten streams end where the collector finds them, perhaps
        # while that very lock is held in which others are looked up.
        self._aborted = meters.closed.labels(scheme, ABORTED)
        self._errors = meters.errors

    def count_opened(self, verb: str, error: BaseException | None) -> None:
        """Count an attempt to open."""
        self._opened.labels(self.scheme, verb, outcome_name(error)).inc()

    def count_closed(self, outcome: str) -> None:
        """Count the end of a stream."""
        if outcome == ABORTED:
            self._aborted.inc()
        else:
            self._closed.labels(self.scheme, outcome).inc()

    def count_error(self, verb: str, error: BaseException) -> None:
        """Count an error."""
        self._errors.labels(self.scheme, verb, outcome_name(error)).inc()


@final
class MeteredStream(StreamProxy):
    """A stream that counts what it moves, and its own end.

    Attributes:
        end: how it ends, as far as is known.
        is_closing: how a close in good order ends will be known soon.
    """

    __slots__ = ("_meter", "_uncounted", "end", "is_closing")

    def __init__(self, inner: Stream, meter: Meter) -> None:
        super().__init__(inner)
        self.end = ABORTED
        self.is_closing = False
        self._meter = meter
        # A list, since its pop is atomic: abort may come from several threads.
        self._uncounted = [meter]
        meter.open.inc()

    def abort(self) -> None:
        """As `Stream.abort`."""
        self.inner.abort()
        if self.is_closing:
            return  # by its transport's own close: core aborts it once more afterwards
        try:
            meter = self._uncounted.pop()
        except IndexError:
            return  # counted before
        meter.open.dec()
        meter.count_closed(self.end)

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """As `Stream.send`."""
        try:
            self.inner.send(buffers, deadline)
        except BaseException as error:
            self._count_unsent(error)
            raise
        self._meter.sent.inc(sum(view.nbytes for view in buffers))

    def _count_unsent(self, error: BaseException) -> None:
        self._meter.sent.inc(getattr(error, "bytes_done", 0))
        # As below: awaited sends wait by themselves.
        if not isinstance(error, BadHandleError):
            self._meter.count_error("send", error)

    def _count_unreceived(self, error: BaseException) -> None:
        # What ends a wait is told to who waits; it is no error of the stream, and the
        # verbs that wait by themselves do not tell of it here.
        if not isinstance(error, (DeadlineError, BadHandleError, Canceled)):
            self._meter.count_error("receive", error)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        try:
            count = self.inner.receive_into(buffer, deadline)
        except BaseException as error:
            self._count_unreceived(error)
            raise
        self._meter.received.inc(count)
        return count

    def attempts(self, found: StreamAttempts) -> StreamAttempts:
        """Count what the attempts move, too; the verbs do the waiting themselves."""
        send, receive = found.send, found.receive

        def counted_send(buffer: bytes | memoryview) -> int:
            try:
                count = send(buffer)
            except BaseException as error:
                self._count_unsent(error)
                raise
            self._meter.sent.inc(count)
            return count

        def counted_receive(max_bytes: int) -> bytes | None:
            try:
                data = receive(max_bytes)
            except BaseException as error:
                self._count_unreceived(error)
                raise
            if data:
                self._meter.received.inc(len(data))
            return data

        return StreamAttempts(counted_receive, counted_send, found.readiness)

    def descriptor_passing(self, found: DescriptorPassing) -> DescriptorPassing:
        """Count the bytes that descriptors travel with."""
        send, receive = found.send, found.receive

        def counted_send(data: memoryview, fds: Sequence[int], deadline: int) -> None:
            try:
                send(data, fds, deadline)
            except BaseException as error:
                self._count_unsent(error)
                raise
            self._meter.sent.inc(data.nbytes)

        def counted_receive(
            max_bytes: int, max_descriptors: int, deadline: int
        ) -> tuple[bytes, list[int]]:
            try:
                data, descriptors = receive(max_bytes, max_descriptors, deadline)
            except BaseException as error:
                self._count_unreceived(error)
                raise
            self._meter.received.inc(len(data))
            return data, descriptors

        return DescriptorPassing(counted_send, counted_receive)

    def transfer(self, found: Transfer) -> Transfer:
        """Tell a stream that was moved to another process from an aborted one."""
        release = found.release

        def released() -> None:
            self.end = SENT
            release()

        return Transfer(found.fd, found.state, released)

    def fileno(self, found: Fileno) -> Fileno:
        """Let others wait; what they move by it is not counted."""
        return found
