"""The log of events, and the spans, of the plugin trace."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import umbel
from tests.support import python, run_python
from umbel.plugins import add_plugin, remove_plugin
from umbel_plugins.trace import TracePlugin


@pytest.fixture
def plugin(caplog: pytest.LogCaptureFixture) -> Iterator[TracePlugin]:
    made = TracePlugin()
    add_plugin(made, "trace")
    with caplog.at_level(logging.INFO, "umbel.trace"):
        yield made
    remove_plugin("trace")


Facts = dict[str, object]


def facts(caplog: pytest.LogCaptureFixture, *events: str) -> list[Facts]:
    """Give the facts of the records of some events, or of all."""
    found = [vars(r) for r in caplog.records if r.name == "umbel.trace"]
    return [fact for fact in found if not events or fact["event"] in events]


def meet(listener: umbel.ListenerHandle) -> umbel.StreamHandle:
    """Connect, accept, and close in good order; give the accepted one's number."""
    ours = umbel.connect(listener.address)
    theirs = umbel.accept(listener)
    umbel.done(theirs)
    umbel.close(ours)
    umbel.close(theirs)
    return theirs


def test_each_event_of_a_connection_is_one_record(
    plugin: TracePlugin,
    caplog: pytest.LogCaptureFixture,
    listener: umbel.ListenerHandle,
    scheme: str,
) -> None:
    address = str(listener.address)
    stream = meet(listener)
    umbel.close(listener)

    found = facts(caplog)
    names = ["connect", "accept", "done", "close", "close", "close"]
    assert [fact["event"] for fact in found] == names
    assert {fact["scheme"] for fact in found} == {scheme}
    assert {fact["address"] for fact in found} == {address}
    assert {fact["outcome"] for fact in found} == {"ok"}
    assert {fact["errno"] for fact in found} == {None}
    assert all(isinstance(fact["duration"], float) for fact in found)
    (accepted,) = facts(caplog, "accept")
    assert accepted["handle"] == int(listener)
    assert facts(caplog, "done")[0]["handle"] == int(stream)
    assert facts(caplog, "close")[1]["handle"] == int(stream)
    assert facts(caplog, "close")[2]["handle"] == int(listener)


def test_pairs_and_adopted_sockets_are_told_with_their_descriptors(
    plugin: TracePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    import socket

    left, right = umbel.pair("mem")
    ours, theirs = socket.socketpair()
    adopted = umbel.ipc_fromfd(ours.detach())
    number = adopted.fileno()  # of a copy, which is made for who may refuse it
    for handle in (left, right, adopted):
        umbel.hclose(handle)
    theirs.close()

    assert [(f["scheme"], f["handle"]) for f in facts(caplog, "pair")] == [
        ("mem", None)
    ]
    assert [(f["scheme"], f["fd"]) for f in facts(caplog, "adopt")] == [("ipc", number)]


def test_the_same_descriptor_tells_which_connect_a_close_belongs_to(
    plugin: TracePlugin,
    caplog: pytest.LogCaptureFixture,
    listener: umbel.ListenerHandle,
) -> None:
    with umbel.connect(listener.address) as stream:
        number = stream.fileno()
        umbel.hclose(umbel.accept(listener))

    assert [f["fd"] for f in facts(caplog, "connect", "close")] == [number] * 2


def test_a_listener_is_told_with_the_port_that_it_got(
    plugin: TracePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        address = str(listener.address)

    assert [f["address"] for f in facts(caplog, "listen")] == [address]
    assert not address.endswith(":0")


def test_a_failure_is_a_warning_with_its_errno(
    plugin: TracePlugin, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        umbel.connect(f"ipc:{tmp_path}/x.sock")

    (found,) = facts(caplog)
    assert found["levelname"] == "WARNING"
    assert (found["outcome"], found["errno"]) == ("ENOENT", errno.ENOENT)
    assert "x.sock" in caplog.text


def test_a_close_that_timed_out_tells_what_it_discarded(
    plugin: TracePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    left, right = umbel.pair("ipc")
    umbel.bsend(right, b"12345")
    with pytest.raises(umbel.DeadlineError):
        umbel.close(left, 0)
    umbel.hclose(right)

    (found,) = facts(caplog, "close")
    assert (found["outcome"], found["discarded"]) == ("ETIMEDOUT", 5)
    assert "ETIMEDOUT" in caplog.text


def test_being_canceled_is_no_warning(
    plugin: TracePlugin,
    caplog: pytest.LogCaptureFixture,
    listener: umbel.ListenerHandle,
) -> None:
    with umbel.bundle() as b:
        b.go(umbel.accept, listener)
        umbel.yield_()
        b.close()

    (found,) = facts(caplog, "accept")
    assert (found["levelname"], found["outcome"]) == ("INFO", "ECANCELED")


def test_nor_is_a_listener_that_is_closed_while_it_accepts(
    plugin: TracePlugin,
    caplog: pytest.LogCaptureFixture,
    listener: umbel.ListenerHandle,
) -> None:
    serving = umbel.go(umbel.serve, listener, umbel.hclose)
    umbel.close(listener)
    umbel.bundle_wait(serving, umbel.within(20))
    umbel.hclose(serving)

    (record,) = [r for r in caplog.records if vars(r).get("event") == "accept"]
    assert (vars(record)["outcome"], record.levelname) == ("EBADF", "INFO")


def test_a_wrong_option_is_told_though_it_has_no_errno(
    plugin: TracePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TypeError):
        umbel.pair("ipc", colour="red")

    (found,) = facts(caplog)
    assert (found["outcome"], found["errno"]) == ("other", None)
    assert "colour" in str(found["error"])


PAIR = """
import umbel
left, right = umbel.pair("mem")
umbel.done(right)
umbel.close(left)
umbel.hclose(right)
"""


def test_the_environment_asks_for_lines_of_json_in_a_file(tmp_path: Path) -> None:
    place = tmp_path / "trace.jsonl"

    for _ in range(2):  # what is there stays there
        run_python(PAIR, UMBEL_PLUGINS="trace", UMBEL_TRACE=str(place))

    lines = [json.loads(line) for line in place.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["pair", "done", "close"] * 2
    assert lines[2]["consumed"] is True
    assert "errno" not in lines[2]


def test_a_dash_asks_for_lines_on_standard_error() -> None:
    code = f"import sys\nsys.stderr = sys.stdout\n{PAIR}"
    out = run_python(code, UMBEL_PLUGINS="trace", UMBEL_TRACE="-")

    assert [json.loads(line)["event"] for line in out.splitlines()] == [
        "pair",
        "done",
        "close",
    ]


def test_without_being_asked_for_nothing_is_written() -> None:
    code = f"import sys\nsys.stderr = sys.stdout\n{PAIR}"

    assert run_python(code, UMBEL_PLUGINS="trace") == ""


def test_a_file_that_cannot_be_written_is_told_when_the_plugin_is_loaded() -> None:
    code = """
import umbel
try:
    umbel.pair("mem")
except OSError as error:
    print(error.filename, error.strerror)
"""
    place = "/nowhere/trace.jsonl"
    out = run_python(code, UMBEL_PLUGINS="trace", UMBEL_TRACE=place)

    assert out.startswith(f"{place} No such file or directory: UMBEL_TRACE={place!r}")


# Spans.


@pytest.mark.parametrize(
    "env",
    [{}, {"UMBEL_TRACE_OTEL": ""}, {"UMBEL_TRACE_OTEL": "0"}],
    ids=["unset", "empty", "zero"],
)
def test_opentelemetry_is_imported_only_when_spans_are_asked_for(
    env: dict[str, str],
) -> None:
    code = f"{PAIR}\nimport sys\nprint('opentelemetry' in sys.modules)"

    assert run_python(code, UMBEL_PLUGINS="trace", **env) == "False\n"


def test_spans_without_opentelemetry_are_a_plugin_error_that_says_what_to_do() -> None:
    code = """
import errno, sys
sys.modules["opentelemetry"] = None
import umbel
for _ in range(2):
    try:
        umbel.pair("mem")
    except umbel.PluginError as error:
        print("umbel[trace-otel]" in str(error))
"""
    out = run_python(code, UMBEL_PLUGINS="trace", UMBEL_TRACE_OTEL="1")

    assert out == "True\nTrue\n"


def test_a_full_disk_is_told_once_and_the_log_is_left_as_it_was() -> None:
    code = (
        PAIR
        + """
import logging, umbel.plugins
umbel.plugins.remove_plugin("trace")
print(logging.getLogger("umbel.trace").level)
"""
    )
    with python(code, UMBEL_PLUGINS="trace", UMBEL_TRACE="/dev/full") as process:
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (0, "0\n")
    assert err.count("\n") == 1
    assert err.startswith("umbel: no trace in /dev/full: ")
