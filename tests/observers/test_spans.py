"""The spans of the plugin trace, with the real SDK of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import umbel
from tests.support import run_python
from umbel.plugins import add_plugin, remove_plugin
from umbel_plugins.trace import TracePlugin


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(autouse=True)
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    plugin = TracePlugin()
    add_plugin(plugin, "trace")
    plugin.use_otel(made)
    yield made
    remove_plugin("trace")
    made.shutdown()


def spans(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_each_event_is_a_span_named_by_its_scheme(
    exporter: InMemorySpanExporter, listener: umbel.ListenerHandle, scheme: str
) -> None:
    ours = umbel.connect(listener.address)
    theirs = umbel.accept(listener)
    umbel.done(theirs)
    umbel.close(ours)
    umbel.hclose(theirs)

    names = [span.name for span in exporter.get_finished_spans()]
    verbs = ("listen", "connect", "accept", "done", "close")
    assert names == [f"{verb} {scheme}" for verb in verbs]
    for span in exporter.get_finished_spans():
        assert span.status.status_code is StatusCode.UNSET
        assert facts(span)["network.transport"] == "unix"
        assert facts(span)["server.address"] == listener.address.location
    (connect,) = spans(exporter, f"connect {scheme}")
    assert connect.kind is SpanKind.CLIENT
    (close,) = spans(exporter, f"close {scheme}")
    assert facts(close)["umbel.handle"] == int(ours)
    assert facts(close)["umbel.close.consumed"] is True
    assert facts(close)["umbel.close.discarded"] == 0


def test_a_tcp_server_is_told_by_address_and_port(
    exporter: InMemorySpanExporter,
) -> None:
    with umbel.listen("tcp://[::1]:0") as listener:
        port = int(listener.address.location.rpartition(":")[2])

    (span,) = spans(exporter, "listen tcp")
    assert facts(span)["server.address"] == "::1"
    assert facts(span)["server.port"] == port
    assert facts(span)["network.transport"] == "tcp"


def test_a_failed_attempt_is_an_error_of_its_errno(
    exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        umbel.connect(f"ipc:{tmp_path}/x.sock")

    (span,) = spans(exporter, "connect ipc")
    assert facts(span)["error.type"] == "ENOENT"
    assert span.status.status_code is StatusCode.ERROR
    assert "x.sock" in str(span.status.description)


def test_an_error_without_errno_is_told_by_its_type(
    exporter: InMemorySpanExporter,
) -> None:
    with pytest.raises(TypeError):
        umbel.pair("ipc", colour="red")

    (span,) = spans(exporter, "pair ipc")
    assert facts(span)["error.type"] == "TypeError"
    assert "server.address" not in facts(span)


def test_being_canceled_is_told_and_is_no_error(
    exporter: InMemorySpanExporter, listener: umbel.ListenerHandle, scheme: str
) -> None:
    with umbel.bundle() as b:
        b.go(umbel.accept, listener)
        umbel.yield_()
        b.close()

    (span,) = spans(exporter, f"accept {scheme}")
    assert facts(span)["error.type"] == "ECANCELED"
    assert span.status.status_code is StatusCode.UNSET


def test_so_is_a_listener_that_is_closed_while_it_accepts(
    exporter: InMemorySpanExporter, listener: umbel.ListenerHandle, scheme: str
) -> None:
    with umbel.go(umbel.serve, listener, umbel.hclose):
        umbel.close(listener)

    (span,) = spans(exporter, f"accept {scheme}")
    assert facts(span)["error.type"] == "EBADF"
    assert span.status.status_code is StatusCode.UNSET


def test_a_span_lies_within_the_callers_own(
    exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    with provider.get_tracer("test").start_as_current_span("request") as request:
        for stream in umbel.pair("mem"):
            umbel.hclose(stream)

    (span,) = spans(exporter, "pair mem")
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id


def test_an_address_of_any_bytes_can_be_told(
    exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    with umbel.listen(f"ipc:{tmp_path}/%FF.sock"):
        pass

    (span,) = spans(exporter, "listen ipc")
    assert str(facts(span)["server.address"]).endswith("?.sock")


def test_the_environment_asks_for_spans() -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import umbel

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
for stream in umbel.pair("mem"):
    umbel.hclose(stream)
print(*(span.name for span in exporter.get_finished_spans()))
"""
    out = run_python(code, UMBEL_PLUGINS="trace", UMBEL_TRACE_OTEL="1")

    assert out == "pair mem\n"
