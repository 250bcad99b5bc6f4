"""What the plugin metrics counts, read as Prometheus reads it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import umbel
from tests.support import calls, fill, pattern, run_python
from umbel import aio
from umbel.plugins import add_plugin, remove_plugin
from umbel.spi import CloseContext, CloseReport, hookimpl, shut_down
from umbel.testing import transport_at_hand
from umbel_plugins import faults
from umbel_plugins.metrics import MetricsPlugin
from umbel_transports.mem import MemTransport


@pytest.fixture(autouse=True)
def registry() -> Iterator[CollectorRegistry]:
    made = CollectorRegistry()
    add_plugin(MetricsPlugin(made), "metrics")
    yield made
    remove_plugin("metrics")


Values = dict[tuple[str, ...], float]


def values(registry: CollectorRegistry, name: str, *labels: str) -> Values:
    """Give the samples of a metric by some of its labels."""
    text = generate_latest(registry).decode()
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def value(registry: CollectorRegistry, name: str, scheme: str) -> float:
    return values(registry, name, "scheme")[scheme,]


def test_what_is_opened_is_counted_by_verb(
    registry: CollectorRegistry, listener: umbel.ListenerHandle, scheme: str
) -> None:
    for handle in (
        umbel.connect(listener.address),
        umbel.accept(listener),
        *umbel.pair(scheme),
    ):
        umbel.hclose(handle)

    assert values(registry, "umbel_opened_total", "scheme", "verb", "outcome") == {
        (scheme, "listen", "ok"): 1,
        (scheme, "connect", "ok"): 1,
        (scheme, "accept", "ok"): 1,
        (scheme, "pair", "ok"): 2,
    }


def test_adopted_sockets_are_counted(registry: CollectorRegistry) -> None:
    ours, theirs = socket.socketpair()
    waiting = socket.socket(socket.AF_UNIX)
    waiting.bind("")
    waiting.listen()
    stream = umbel.ipc_fromfd(ours.detach())
    listener = umbel.ipc_listener_fromfd(waiting.detach())

    assert values(registry, "umbel_opened_total", "verb", "outcome") == {
        ("adopt", "ok"): 2
    }
    assert value(registry, "umbel_open_streams", "ipc") == 1
    umbel.hclose(stream)
    umbel.hclose(listener)
    theirs.close()


def test_what_fails_to_open_is_counted_by_errno(registry: CollectorRegistry) -> None:
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            umbel.connect("mem://nobody")
    with pytest.raises(TypeError):
        umbel.pair("mem", colour="red")

    assert values(registry, "umbel_opened_total", "verb", "outcome") == {
        ("connect", "ECONNREFUSED"): 3,
        ("pair", "other"): 1,
    }
    assert values(registry, "umbel_errors_total", "verb", "errno") == {
        ("connect", "ECONNREFUSED"): 3,
        ("pair", "other"): 1,
    }


def test_open_streams_are_counted_up_and_down(
    registry: CollectorRegistry, scheme: str
) -> None:
    left, right = umbel.pair(scheme)
    assert value(registry, "umbel_open_streams", scheme) == 2

    umbel.hclose(left)
    assert value(registry, "umbel_open_streams", scheme) == 1

    umbel.hclose(right)
    assert value(registry, "umbel_open_streams", scheme) == 0


def test_ends_are_told_apart(registry: CollectorRegistry, scheme: str) -> None:
    left, right = umbel.pair(scheme)
    umbel.done(right)
    umbel.close(left)
    umbel.hclose(right)
    left, right = umbel.pair(scheme)
    with pytest.raises(umbel.DeadlineError):
        umbel.close(left, 0)
    umbel.hclose(right)

    assert values(registry, "umbel_closed_total", "outcome") == {
        ("ok",): 1,
        ("ETIMEDOUT",): 1,
        ("aborted",): 2,
    }
    assert value(registry, "umbel_close_seconds_count", scheme) == 2
    assert ("close", "ETIMEDOUT") in values(
        registry, "umbel_errors_total", "verb", "errno"
    )


def test_a_stream_that_is_sent_on_is_not_aborted(registry: CollectorRegistry) -> None:
    left, right = umbel.pair("ipc")
    moved, peer = umbel.pair("ipc")
    umbel.send_handle(left, moved)
    received = umbel.receive_handle(right)

    assert values(registry, "umbel_closed_total", "outcome") == {
        ("ok",): 0,
        ("aborted",): 0,
        ("sent",): 1,
    }
    assert value(registry, "umbel_open_streams", "ipc") == 4
    for handle in (left, right, received, peer):
        umbel.hclose(handle)


def test_bytes_are_counted_whichever_way_they_go(
    registry: CollectorRegistry, scheme: str
) -> None:
    left, right = umbel.pair(scheme)
    umbel.bsend(left, pattern(10))
    umbel.bsendl(left, [pattern(20), memoryview(pattern(40)).cast("I")])
    umbel.brecv(right, 30)
    umbel.brecv(right, bytearray(15))
    umbel.brecv(right, umbel.Skip(5))
    umbel.receive(right)

    assert value(registry, "umbel_sent_bytes_total", scheme) == 70
    assert value(registry, "umbel_received_bytes_total", scheme) == 70
    umbel.hclose(left)
    umbel.hclose(right)


def test_so_are_those_of_streams_that_were_connected_and_accepted(
    registry: CollectorRegistry, listener: umbel.ListenerHandle, scheme: str
) -> None:
    client = umbel.connect(listener.address)
    server = umbel.accept(listener)
    umbel.bsend(client, pattern(10))
    umbel.bsend(server, pattern(20))

    umbel.brecv(server, 10)
    umbel.brecv(client, 20)

    assert value(registry, "umbel_sent_bytes_total", scheme) == 30
    assert value(registry, "umbel_received_bytes_total", scheme) == 30
    umbel.hclose(client)
    umbel.hclose(server)


def test_bytes_that_travel_with_descriptors_are_counted(
    registry: CollectorRegistry,
) -> None:
    left, right = umbel.pair("ipc")
    umbel.send_with_fds(left, b"12345", [0])
    _, (fd,) = umbel.receive_with_fds(right)
    os.close(fd)

    assert value(registry, "umbel_sent_bytes_total", "ipc") == 5
    assert value(registry, "umbel_received_bytes_total", "ipc") == 5
    umbel.hclose(left)
    umbel.hclose(right)


def test_bytes_of_a_send_that_failed_are_counted(registry: CollectorRegistry) -> None:
    left, right = umbel.pair("ipc")
    sent = fill(left)

    assert value(registry, "umbel_sent_bytes_total", "ipc") == sent > 0
    assert values(registry, "umbel_errors_total", "verb", "errno") == {
        ("send", "ETIMEDOUT"): 1
    }
    umbel.hclose(left)
    umbel.hclose(right)


def test_bytes_that_are_discarded_in_a_close_were_received(
    registry: CollectorRegistry,
) -> None:
    left, right = umbel.pair("ipc")
    umbel.bsend(right, b"12345")
    umbel.done(right)

    assert umbel.close(left).discarded == 5

    assert value(registry, "umbel_received_bytes_total", "ipc") == 5
    umbel.hclose(right)


def test_errors_of_receives_are_counted_but_deadlines_are_none(
    registry: CollectorRegistry,
) -> None:
    left, right = umbel.pair("ipc")
    umbel.bsend(right, b"unread")
    umbel.hclose(left)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(right)
    umbel.hclose(right)

    assert values(registry, "umbel_errors_total", "verb", "errno") == {
        ("receive", "ECONNRESET"): 1
    }


def test_a_deadline_of_a_receive_is_no_error(registry: CollectorRegistry) -> None:
    left, right = umbel.pair("ipc")
    for receive in calls(
        lambda: umbel.receive(left, deadline=0),
        lambda: umbel.receive_with_fds(right, deadline=0),
        lambda: umbel.brecv(left, bytearray(5), 0),
    ):
        with pytest.raises(umbel.DeadlineError):
            receive()
    umbel.hclose(left)
    umbel.hclose(right)

    assert values(registry, "umbel_errors_total", "verb", "errno") == {}


def test_nor_is_a_cancellation(registry: CollectorRegistry) -> None:
    left, right = umbel.pair("ipc")
    for receive in calls(
        lambda: umbel.receive(left),
        lambda: umbel.receive_with_fds(right),
        lambda: umbel.brecv(left, bytearray(5)),
    ):
        umbel.hclose(umbel.go(receive))
    umbel.hclose(left)
    umbel.hclose(right)

    assert values(registry, "umbel_errors_total", "verb", "errno") == {}


def test_a_listener_that_is_closed_while_it_accepts_is_no_error(
    registry: CollectorRegistry, listener: umbel.ListenerHandle
) -> None:
    serving = umbel.go(umbel.serve, listener, umbel.hclose)
    umbel.close(listener)
    umbel.bundle_wait(serving, umbel.within(20))
    umbel.hclose(serving)

    assert not values(registry, "umbel_errors_total", "verb")
    assert ("accept",) not in values(registry, "umbel_opened_total", "verb")


def test_addresses_are_no_labels(registry: CollectorRegistry) -> None:
    for number in range(5):
        with umbel.listen(f"mem://name-of-it-{number}"):
            pass

    text = generate_latest(registry).decode()
    assert "name-of-it" not in text
    assert values(registry, "umbel_opened_total", "verb") == {("listen",): 5}


def test_streams_that_many_threads_use_are_counted_exactly(
    registry: CollectorRegistry, threads: ThreadPoolExecutor
) -> None:
    def use(_: int) -> None:
        left, right = umbel.pair("mem")
        for _ in range(50):
            umbel.bsend(left, b"x")
            umbel.brecv(right, 1)
        umbel.hclose(left)
        umbel.hclose(right)

    list(threads.map(use, range(16)))

    assert value(registry, "umbel_sent_bytes_total", "mem") == 800
    assert value(registry, "umbel_received_bytes_total", "mem") == 800
    assert value(registry, "umbel_open_streams", "mem") == 0


@pytest.mark.parametrize("is_outside", [True, False], ids=["outside", "inside"])
def test_metrics_go_with_faults_in_any_order(is_outside: bool) -> None:
    registry = CollectorRegistry()
    remove_plugin("metrics")
    if is_outside:
        add_plugin(MetricsPlugin(registry), "metrics")
    with faults.plan(split_writes=1, close_timeouts=1):
        if not is_outside:
            add_plugin(MetricsPlugin(registry), "metrics")
        left, right = umbel.pair("mem")
        umbel.bsend(left, pattern(100))
        umbel.done(right)
        umbel.brecv(right, 100)
        with pytest.raises(umbel.DeadlineError):
            umbel.close(left)
        umbel.hclose(right)
    remove_plugin("faults")

    assert value(registry, "umbel_open_streams", "mem") == 0
    assert value(registry, "umbel_sent_bytes_total", "mem") == 100
    ended = values(registry, "umbel_closed_total", "outcome")
    assert ended["ETIMEDOUT" if is_outside else "ok",] == 1
    assert sum(ended.values()) == 2
    assert ended["aborted",] == 1


def test_a_plugin_that_is_taken_out_leaves_the_registry_empty() -> None:
    made = CollectorRegistry()
    plugin = MetricsPlugin(made)
    add_plugin(plugin, "another")
    remove_plugin("another")

    assert generate_latest(made) == b""

    add_plugin(plugin, "another")
    remove_plugin("another")


def test_a_plugin_that_is_taken_out_serves_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = free_place()
    monkeypatch.setenv("UMBEL_METRICS", place)
    add_plugin(MetricsPlugin(CollectorRegistry()), "another")
    umbel.hclose(umbel.connect(f"tcp://{place}"))
    remove_plugin("another")

    with pytest.raises(ConnectionRefusedError):
        umbel.connect(f"tcp://{place}")


# In a program.

SERVED = """
import socket, urllib.request, umbel
for stream in umbel.pair("mem"):
    umbel.hclose(stream)
text = urllib.request.urlopen(f"http://{place}/metrics").read().decode()
print('umbel_opened_total{outcome="ok",scheme="mem",verb="pair"} 2.0' in text)
"""


def free_place(host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as server:
            port = server.getsockname()[1]
    except OSError:
        pytest.skip("this machine has none")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_environment_says_where_they_are_served(host: str) -> None:
    place = free_place(host)

    out = run_python(
        f"place = {place!r}\n{SERVED}", UMBEL_PLUGINS="metrics", UMBEL_METRICS=place
    )

    assert out == "True\n"


def test_a_forked_child_ends_though_its_parent_serves() -> None:
    code = """
import os, sys, umbel, warnings
umbel.load_plugins("metrics")
warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12: there are threads
pid = os.fork()
if not pid:
    sys.exit(0)
print(os.waitpid(pid, 0)[1])
"""
    assert run_python(code, UMBEL_METRICS=free_place()) == "0\n"


def test_a_place_that_is_taken_does_not_stop_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        code = """
import sys, umbel
sys.stderr = sys.stdout
umbel.load_plugins("metrics")
"""
        out = run_python(code, UMBEL_METRICS=place)

    assert out.startswith(f"umbel: no metrics at {place}: ")


def test_a_host_that_is_none_does_not_stop_the_program() -> None:
    code = "import sys, umbel\nsys.stderr = sys.stdout\numbel.load_plugins('metrics')"

    out = run_python(code, UMBEL_METRICS="a..b:9464")

    assert out.startswith("umbel: no metrics at a..b:9464: ")


@pytest.mark.parametrize(
    "place",
    ["9464", "localhost", "localhost:http", "127.0.0.1:99999", "h:" + "1" * 5000],
    ids=lambda place: place[:16],
)
def test_a_place_that_is_none_is_einval(place: str) -> None:
    code = """
import umbel
from umbel import aio
try:
    umbel.load_plugins("metrics")
except OSError as error:
    print(error)
"""
    out = run_python(code, UMBEL_METRICS=place)

    assert "write host:port" in out


def test_a_name_that_the_program_has_taken_leaves_nothing_behind() -> None:
    registry = CollectorRegistry()
    Counter("umbel_received_bytes", "the program's own", registry=registry)
    before = generate_latest(registry)

    with pytest.raises(FileExistsError, match="umbel_received_bytes"):
        add_plugin(MetricsPlugin(registry), "metrics too")

    assert generate_latest(registry) == before


def test_without_the_library_the_error_says_what_to_install() -> None:
    code = """
import sys, umbel
sys.modules["prometheus_client"] = None
try:
    umbel.load_plugins("metrics")
except umbel.PluginError as error:
    print("pip install 'umbel[metrics]'" in str(error))
"""
    assert run_python(code) == "True\n"


def test_bytes_of_awaited_calls_are_counted(registry: CollectorRegistry) -> None:
    left, right = umbel.pair("ipc")

    async def use() -> None:
        await aio.bsend(left, b"12345")
        await aio.brecv(right, 3)
        await aio.receive(right)
        umbel.hclose(left)
        assert await aio.receive(right) == b""

    asyncio.run(use())
    umbel.hclose(right)

    assert value(registry, "umbel_sent_bytes_total", "ipc") == 5
    assert value(registry, "umbel_received_bytes_total", "ipc") == 5


def test_errors_of_awaited_calls_are_counted(registry: CollectorRegistry) -> None:
    left, right = umbel.pair("ipc")

    async def use() -> None:
        umbel.bsend(right, b"unread")
        umbel.hclose(left)
        with pytest.raises(umbel.BrokenStreamError):
            await aio.receive(right)
        with pytest.raises(umbel.BrokenStreamError):
            await aio.bsend(right, b"x")

    asyncio.run(use())
    umbel.hclose(right)

    assert values(registry, "umbel_errors_total", "verb", "errno") == {
        ("receive", "ECONNRESET"): 1,
        ("send", "ECONNRESET"): 1,
    }


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_send_whose_handle_is_closed_meanwhile_is_no_error(
    registry: CollectorRegistry, *, is_awaited: bool
) -> None:
    left, right = umbel.pair("ipc")
    data = bytes(64 << 20)

    def send() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.bsend(left, data)

    async def await_send() -> None:
        asyncio.get_running_loop().call_later(0.01, umbel.hclose, left)
        with pytest.raises(umbel.BadHandleError):
            await aio.bsend(left, data)

    if is_awaited:
        asyncio.run(await_send())
    else:
        with umbel.go(send):
            umbel.hclose(left)
    umbel.hclose(right)

    assert values(registry, "umbel_errors_total", "verb", "errno") == {}


@pytest.mark.slow
def test_a_stream_that_the_collector_ends_amid_the_making_of_a_label_is_counted() -> (
    None
):
    code = """
import faulthandler, gc, os, sys, warnings
import umbel

class Node: pass

def forget():
    node = Node()
    node.itself, node.ends = node, umbel.pair()

def close_with_a_collection_after(allocations):
    gc.disable()
    left, right = umbel.pair()
    umbel.hclose(right)
    forget()
    gc.set_threshold(allocations)
    gc.enable()
    try:
        umbel.close(left, 0)  # makes the labels of its end
    except OSError:
        pass

warnings.simplefilter("ignore", ResourceWarning)
umbel.load_plugins("metrics")
for end in umbel.pair():
    umbel.hclose(end)
gc.collect()
hung = []
for allocations in range(80, 200):
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nobody:
            faulthandler.dump_traceback_later(5, exit=True, file=nobody)
            close_with_a_collection_after(allocations)
            os._exit(0)
    if os.waitpid(child, 0)[1]:
        hung.append(allocations)
        break
print(hung)
"""
    assert run_python(code) == "[]\n"


def test_a_transport_that_aborts_in_its_own_close_has_closed_well(
    registry: CollectorRegistry,
) -> None:
    class Thorough(MemTransport):
        @hookimpl.close
        def close(self, context: CloseContext) -> CloseReport:
            report = shut_down(context)
            context.endpoint.abort()
            return report

    with transport_at_hand(Thorough(), "thorough"):
        left, right = umbel.pair("thorough")
        umbel.done(right)
        umbel.close(left)

        assert values(registry, "umbel_closed_total", "outcome")["ok",] == 1
        assert value(registry, "umbel_open_streams", "thorough") == 1
        umbel.hclose(right)
