"""The tcp transport."""

from __future__ import annotations

import errno
import gc
import ipaddress
import os
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import umbel
from tests.support import (
    calls,
    drain,
    lateness,
    open_descriptors,
    pattern,
    run_in_own_network,
    soon,
    wait_until,
)
from umbel import testing
from umbel.handle import lookup
from umbel.sockets.listener import SocketListener
from umbel.streams.connection import Connection
from umbel.streams.listener import Listening
from umbel_transports import tcp

Ends = tuple[umbel.StreamHandle, umbel.StreamHandle]

MPTCP = getattr(socket, "IPPROTO_MPTCP", 262)


@pytest.fixture(params=["127.0.0.1", "[::1]"], ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[umbel.ListenerHandle]:
    try:
        made = umbel.listen(f"tcp://{request.param}:0")
    except OSError:
        pytest.skip("this machine has none")
    with made:
        yield made


@pytest.fixture
def ends(listener: umbel.ListenerHandle) -> Iterator[Ends]:
    client = umbel.connect(listener.address, umbel.within(20))
    server = umbel.accept(listener, umbel.within(20))
    yield client, server
    for end in (client, server):
        try:
            umbel.hclose(end)
        except umbel.BadHandleError:
            pass  # the test did


def test_bytes_go_both_ways_and_both_sides_part(ends: Ends) -> None:
    client, server = ends

    umbel.bsend(client, b"there")
    assert umbel.brecv(server, 5) == b"there"
    umbel.bsend(server, b"back")
    assert umbel.brecv(client, 4) == b"back"

    with umbel.go(umbel.close, server):
        assert umbel.close(client) == umbel.CloseReport(None, 0)


def test_the_port_that_the_kernel_chose_is_told(
    listener: umbel.ListenerHandle,
) -> None:
    port = int(listener.address.location.rpartition(":")[2])

    assert port > 0
    assert umbel.Address.parse(str(listener.address)) == listener.address


def test_large_transfers_arrive_whole(ends: Ends) -> None:
    client, server = ends
    data = pattern(8 << 20)

    with umbel.go(umbel.bsend, client, data):
        assert umbel.brecv(server, len(data)) == data


def test_nothing_is_lost_when_requests_lie_unread(ends: Ends) -> None:
    client, server = ends
    umbel.bsend(client, b"a request that is never read")
    answer = pattern(1 << 20)
    received: list[bytes] = []

    def read_answer() -> None:
        umbel.done(client)
        received.append(drain(client))
        umbel.close(client)

    with umbel.go(read_answer):
        umbel.bsend(server, answer)
        report = umbel.close(server, umbel.within(20))

    assert received == [answer]
    assert report.discarded == 28


def test_half_close_leaves_the_other_direction_open(ends: Ends) -> None:
    client, server = ends

    umbel.done(client)

    assert umbel.receive(server) == b""
    umbel.bsend(server, b"still")
    assert umbel.brecv(client, 5) == b"still"


@pytest.mark.parametrize("size", [447, 448])
def test_what_came_over_mptcp_before_a_reset_is_received(size: int) -> None:
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    except OSError:
        pytest.skip("this machine has none")
    with listener, socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server = umbel.tcp_fromfd(listener.accept()[0].detach())
        client.sendall(bytes(size))
        umbel.fdin(server.fileno(), soon())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with select.epoll() as reset:
        reset.register(server.fileno(), 0)
        assert reset.poll(10)

    assert umbel.receive(server) == bytes(size)
    for _ in range(2):
        with pytest.raises(umbel.BrokenStreamError):
            umbel.receive(server)
    umbel.hclose(server)


def test_a_hard_close_with_bytes_unread_resets_the_peer(ends: Ends) -> None:
    client, server = ends
    umbel.bsend(client, b"never read")
    umbel.fdin(server.fileno(), umbel.within(20))

    umbel.hclose(server)

    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(client, 1, umbel.within(20))


@pytest.mark.parametrize(
    "receive",
    [
        umbel.receive,
        lambda stream: umbel.brecv(stream, 4),
        lambda stream: umbel.brecvl(stream, [bytearray(2), bytearray(2)]),
    ],
    ids=["receive", "brecv", "into buffers"],
)
def test_a_reset_that_a_send_was_told_is_no_end_of_the_stream(
    ends: Ends, receive: Callable[[umbel.StreamHandle], object]
) -> None:
    # The kernel tells it once, and the end of the stream from then on.
    client, server = ends
    umbel.bsend(server, b"data")
    umbel.bsend(client, b"unread")
    umbel.hclose(server)
    wait_until(lambda: not can_send(client), "the reset")

    assert umbel.brecv(client, 4) == b"data"
    for _ in range(2):
        with pytest.raises(umbel.BrokenStreamError):
            receive(client)


class Told(socket.socket):
    """Its next send is told *number*, as after an ICMP message or `ss --kill`."""

    number = 0

    def send(self, *_: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


def told(number: int) -> tuple[Told, socket.socket]:
    """Make a connection whose next send is told *number*."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = Told()
        near.number = number
        near.connect(server.getsockname())
        far, _ = server.accept()
    return near, far


@pytest.mark.parametrize(
    "number", [errno.ECONNABORTED, errno.ECONNREFUSED, errno.EOPNOTSUPP, errno.EACCES]
)
def test_whatever_ended_a_connection_is_no_end_of_the_stream(number: int) -> None:
    near, far = told(number)
    linger = struct.pack("ii", 1, 0)  # close by a reset
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    far.close()
    with near:
        select.select([near], [], [], 20)
        near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # told, and so forgotten
        stream = tcp.TcpStream(near, 0)

        with pytest.raises(umbel.BrokenStreamError):
            stream.send([memoryview(b"x")], 0)
        with pytest.raises(umbel.BrokenStreamError):
            stream.receive_into(memoryview(bytearray(1)), 0)
        stream.abort()


def test_an_error_that_ends_no_connection_is_told_as_it_is() -> None:
    near, far = told(errno.ENOBUFS)
    with near, far:
        stream = tcp.TcpStream(near, 0)
        far.sendall(b"x")

        with pytest.raises(OSError, match="buffer space") as caught:
            stream.send([memoryview(b"x")], 0)
        assert type(caught.value) is OSError
        assert stream.receive_into(memoryview(bytearray(9)), umbel.within(20)) == 1
        stream.abort()


def test_a_reset_that_another_threads_send_was_just_told_is_no_end(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    client, server = ends
    connection = lookup(client, Connection)
    stream = connection.stream
    assert isinstance(stream, tcp.TcpStream)
    was_told = threading.Event()

    def send(_: bytes | memoryview) -> int:
        with socket.socket(fileno=os.dup(client.fileno())) as same:
            number = same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        was_told.set()
        time.sleep(0.1)  # before this thread goes on
        raise stream._explain(OSError(number, os.strerror(number)))

    umbel.bsend(client, b"unread")
    umbel.fdin(server.fileno(), umbel.within(20))
    umbel.hclose(server)
    umbel.fdin(client.fileno(), umbel.within(20))
    connection.try_send = send
    sending = threads.submit(umbel.bsend, client, b"x")
    assert was_told.wait(20)

    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(client, 1, umbel.within(20))
    with pytest.raises(umbel.BrokenStreamError):
        sending.result(20)


def can_send(stream: umbel.StreamHandle) -> bool:
    try:
        umbel.bsend(stream, b"x")
    except umbel.BrokenStreamError:
        return False
    return True


def test_waiting_ends_at_the_deadline(ends: Ends) -> None:
    assert lateness(lambda until: umbel.receive(ends[0], 1, until)) <= 20


def test_small_sends_go_at_once_unless_told_otherwise(
    listener: umbel.ListenerHandle,
) -> None:
    for options, expected in (({}, True), ({"nodelay": False}, False)):
        client = umbel.connect(listener.address, umbel.within(20), **options)
        server = umbel.accept(listener)
        raw = socket.socket(fileno=client.fileno())
        try:
            found = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        finally:
            raw.detach()
        assert bool(found) is expected
        umbel.hclose(client)
        umbel.hclose(server)


def test_what_a_local_stream_can_and_tcp_cannot_is_enotsup(ends: Ends) -> None:
    for call in calls(
        lambda: umbel.ipc_sendfd(ends[0], 0),
        lambda: umbel.flush(ends[0]),
        lambda: umbel.query(ends[0], umbel.PeerIdentity),
        lambda: umbel.ipc_close(ends[0]),
        lambda: umbel.ipc_done(ends[0]),
        lambda: umbel.pair("tcp"),
    ):
        with pytest.raises(umbel.NotSupportedError):
            call()


def test_nobody_there_is_econnrefused_and_says_so() -> None:
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        address = listener.address

    with pytest.raises(ConnectionRefusedError, match="start the listener"):
        umbel.connect(address, umbel.within(20))


@pytest.mark.parametrize(
    ("number", "what"), [(errno.EADDRNOTAVAIL, "free port"), (errno.EACCES, "firewall")]
)
def test_what_keeps_one_from_connecting_is_not_told_as_of_a_listener(
    monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: number)

    with pytest.raises(OSError, match=what) as caught:
        umbel.connect("tcp://127.0.0.1:80", umbel.within(20))
    assert caught.value.errno == number


def test_a_socket_that_tcp_connects_to_itself_is_econnrefused() -> None:
    # Of so few ports the kernel soon chooses the one that is connected to.
    ports = "echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range"
    code = """if True:
        import errno
        import umbel
        for _ in range(20):
            try:
                umbel.connect("tcp://127.0.0.1:40000", umbel.within(20))
            except OSError as error:
                assert error.errno == errno.ECONNREFUSED, error
            else:
                print("connected, though nobody listens")
        """

    assert run_in_own_network(f"ip link set lo up && {ports}", code) == ""


def test_a_port_that_is_taken_is_eaddrinuse() -> None:
    with (
        umbel.listen("tcp://127.0.0.1:0") as listener,
        pytest.raises(OSError, match="port is taken") as caught,
    ):
        umbel.listen(listener.address)

    assert caught.value.errno == errno.EADDRINUSE


def test_reuseport_lets_listeners_share() -> None:
    with umbel.listen("tcp://127.0.0.1:0", reuseport=True) as one:
        umbel.hclose(umbel.listen(one.address, reuseport=True))


@pytest.mark.parametrize(
    "location",
    [
        "",
        "host",
        "host:",
        ":x",
        "::1:80",
        "[]:80",
        "[127.0.0.1]:80",
        "host:-1",
        "h:²",
        "localhost\0x:80",
        "[fe80::1%1\0x]:80",
    ],
    ids=lambda location: location[:10],
)
def test_a_broken_address_is_einval(location: str) -> None:
    for call in (umbel.listen, umbel.connect):
        with pytest.raises(OSError, match=r"write tcp://host:port") as caught:
            call(umbel.Address("tcp", location))
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("port", ["65536", "1" * 5000], ids=["one", "long"])
def test_a_port_beyond_the_last_is_einval(port: str) -> None:
    for call in (umbel.listen, umbel.connect):
        with pytest.raises(OSError, match=r"a port is 0 to 65535") as caught:
            call(umbel.Address("tcp", f"host:{port}"))
        assert caught.value.errno == errno.EINVAL


def test_listening_at_a_name_is_einval_for_that_would_wait() -> None:
    with pytest.raises(OSError, match="number") as caught:
        umbel.listen("tcp://example.org:80")

    assert caught.value.errno == errno.EINVAL


def test_a_look_up_that_takes_too_long_is_etimedout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    resolve = socket.getaddrinfo

    def look_up(*args: object, **kwargs: object) -> object:
        if not kwargs.get("flags"):  # it is a name, and not a number to be read
            answer.wait(20)
        return resolve(*args, **kwargs)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = umbel.now()
    try:
        with pytest.raises(umbel.DeadlineError):
            umbel.connect("tcp://localhost:1", umbel.within(0.01))
        assert umbel.now() - began < 5000
    finally:
        answer.set()


def test_localhost_works_on_both_sides() -> None:
    with umbel.listen("tcp://localhost:0") as listener:
        port = listener.address.location.rpartition(":")[2]
        client = umbel.connect(f"tcp://localhost:{port}", umbel.within(20))
        server = umbel.accept(listener)
        umbel.bsend(client, b"x")
        assert umbel.brecv(server, 1) == b"x"
        umbel.hclose(client)
        umbel.hclose(server)


def test_an_unknown_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(OSError, match=r"'nowhere\.invalid' is unknown") as caught:
        umbel.connect("tcp://nowhere.invalid:80", umbel.within(20))

    assert caught.value.errno == errno.EHOSTUNREACH


def test_looking_up_a_name_holds_up_no_other_coroutine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def slow(*_: object, **__: object) -> list[object]:
        time.sleep(0.05)
        order.append("looked up")
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    def other() -> None:
        umbel.yield_()
        order.append("other")

    with umbel.go(other), pytest.raises(OSError, match="unknown"):
        umbel.connect("tcp://slow.invalid:80", umbel.within(20))

    assert order == ["other", "looked up"]


def _pretend(monkeypatch: pytest.MonkeyPatch, *targets: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in targets]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def _refused_port() -> int:
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        return int(listener.address.location.rpartition(":")[2])


def _deaf_port() -> tuple[int, list[socket.socket]]:
    """Give a port whose queue is full, so that nothing answers there."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    where = listener.getsockname()
    held = [listener]
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(where)
        held.append(filler)
    return where[1], held


def test_of_several_addresses_the_one_that_answers_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        port = int(listener.address.location.rpartition(":")[2])
        refused = ("127.0.0.1", _refused_port())
        _pretend(monkeypatch, refused, refused, ("127.0.0.1", port))

        client = umbel.connect("tcp://many.invalid:1", umbel.within(20))

        umbel.hclose(umbel.accept(listener, umbel.within(20)))
        umbel.hclose(client)


def test_an_address_that_is_silent_costs_a_head_start_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf, held = _deaf_port()
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        port = int(listener.address.location.rpartition(":")[2])
        _pretend(monkeypatch, ("127.0.0.1", deaf), ("127.0.0.1", port))
        start = time.monotonic()

        client = umbel.connect("tcp://many.invalid:1", umbel.within(20))

        took = time.monotonic() - start
        umbel.hclose(umbel.accept(listener, umbel.within(20)))
        umbel.hclose(client)
    for sock in held:
        sock.close()
    assert tcp.HEAD_START / 1000 <= took < 10


def test_if_none_answers_the_first_failure_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = ("127.0.0.1", _refused_port())
    _pretend(monkeypatch, refused, refused)

    with pytest.raises(ConnectionRefusedError, match=str(refused[1])):
        umbel.connect("tcp://many.invalid:1", umbel.within(20))


def test_if_none_answers_in_time_it_is_etimedout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf, held = _deaf_port()
    _pretend(monkeypatch, ("127.0.0.1", deaf), ("127.0.0.1", deaf))

    with pytest.raises(umbel.DeadlineError):
        umbel.connect("tcp://many.invalid:1", umbel.within(0.4))

    for sock in held:
        sock.close()


def test_a_race_that_is_canceled_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf, held = _deaf_port()
    _pretend(monkeypatch, ("127.0.0.1", deaf), ("127.0.0.2", deaf))
    before = open_descriptors()

    racing = umbel.go(umbel.connect, "tcp://many.invalid:1")
    while open_descriptors() <= before:
        umbel.msleep(umbel.now() + 1)
    umbel.hclose(racing)

    assert open_descriptors() == before
    for sock in held:
        sock.close()


def test_those_that_lose_a_race_are_closed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf, held = _deaf_port()
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        port = int(listener.address.location.rpartition(":")[2])
        _pretend(monkeypatch, ("127.0.0.1", deaf), ("127.0.0.1", port))
        before = open_descriptors()

        client = umbel.connect("tcp://many.invalid:1", umbel.within(20))

        assert open_descriptors() - before == {client.fileno()}
        umbel.hclose(client)
        umbel.hclose(umbel.accept(listener, umbel.within(20)))
    for sock in held:
        sock.close()


def test_a_connection_whose_options_can_not_be_set_is_closed(
    monkeypatch: pytest.MonkeyPatch, listener: umbel.ListenerHandle
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EINVAL, "it was reset already")

    monkeypatch.setattr(tcp, "_make_stream", fail)
    before = open_descriptors()
    gc.disable()  # with warnings as errors, the collector must find nothing either
    try:
        with pytest.raises(OSError, match="it was reset"):
            umbel.connect(listener.address, umbel.within(20))
        assert open_descriptors() == before
    finally:
        gc.enable()


def test_a_race_in_which_another_fails_strangely_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        port = int(listener.address.location.rpartition(":")[2])
        reach = tcp._reach

        def strange(target: tcp.Target, deadline: int) -> socket.socket:
            if target[1] == ("127.0.0.1", port):
                return reach(target, deadline)
            try:
                umbel.msleep(-1)
            finally:
                raise ZeroDivisionError("strange")

        monkeypatch.setattr(tcp, "_reach", strange)
        _pretend(monkeypatch, ("127.0.0.1", 1), ("127.0.0.1", port))
        before = open_descriptors()
        gc.disable()
        try:
            with pytest.raises(ExceptionGroup):
                umbel.connect("tcp://many.invalid:1", umbel.within(20))
            assert open_descriptors() == before
        finally:
            gc.enable()


def test_a_failed_race_leaves_no_reference_cycle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Watched(OSError):
        pass

    made: list[weakref.ref[Watched]] = []

    def explain(error: OSError, *_: object) -> OSError:
        watched = Watched(error.errno, "refused")
        made.append(weakref.ref(watched))
        return watched

    monkeypatch.setattr(tcp, "_explain", explain)
    refused = ("127.0.0.1", _refused_port())
    _pretend(monkeypatch, refused, ("127.0.0.2", refused[1]))
    gc.disable()
    try:
        with suppress(Watched):
            umbel.connect("tcp://many.invalid:1", umbel.within(20))
        assert [error() for error in made] == [None, None]
    finally:
        gc.enable()


def test_a_name_that_no_resolver_takes_is_unknown() -> None:
    with pytest.raises(OSError, match="unknown") as caught:
        umbel.connect(f"tcp://{'a' * 70}.invalid:80", umbel.within(20))

    assert caught.value.errno == errno.EHOSTUNREACH


def test_a_link_address_keeps_its_interface() -> None:
    index, name = socket.if_nameindex()[0]

    where = tcp._address_of(("fe80::1", 80, 0, index))

    assert where == umbel.Address("tcp", f"[fe80::1%{name}]:80")
    assert umbel.Address.parse(str(where)) == where
    assert tcp._numeric(f"fe80::1%{name}", 80) == (
        socket.AF_INET6,
        ("fe80::1", 80, 0, index),
    )


def test_a_link_address_can_be_listened_at_and_connected_to() -> None:
    found = [name for _, name in socket.if_nameindex() if _link_address(name)]
    if not found:
        pytest.skip("no interface here has a link address")
    where = umbel.Address("tcp", f"[{_link_address(found[0])}%{found[0]}]:0")

    with umbel.listen(where) as listener:
        client = umbel.connect(listener.address, umbel.within(20))
        umbel.hclose(umbel.accept(listener, umbel.within(20)))
        umbel.hclose(client)


def _link_address(interface: str) -> str:
    """Give an interface's address of scope 20, link, of proc(5)'s if_inet6."""
    try:
        rows = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return ""
    for raw, _, _, scope, flags, name in map(str.split, rows):
        # Not one that is still being tried (IFA_F_TENTATIVE).
        if (scope, name) == ("20", interface) and not int(flags, 16) & 0x40:
            return str(ipaddress.IPv6Address(bytes.fromhex(raw)))
    return ""


def test_an_interface_that_is_not_there_is_enodev() -> None:
    for call in (umbel.listen, umbel.connect):
        with pytest.raises(OSError, match="no interface 'nothing0'") as caught:
            call("tcp://[fe80::1%25nothing0]:80")
        assert caught.value.errno == errno.ENODEV


def test_families_take_turns() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    targets: list[tcp.Target] = [(six, (1,)), (six, (2,)), (four, (3,)), (four, (4,))]

    assert [where for _, where in tcp._alternate(targets)] == [(1,), (3,), (2,), (4,)]


def test_a_reset_tells_nothing_of_what_the_peer_has_read(
    listener: umbel.ListenerHandle,
) -> None:
    location = listener.address.location
    host, _, port = location.rpartition(":")
    client = socket.create_connection((host.strip("[]"), int(port)))
    server = umbel.accept(listener)
    umbel.bsend(server, b"x")
    assert client.recv(1) == b"x"
    linger = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()

    with pytest.raises(umbel.BrokenStreamError) as caught:
        umbel.close(server, umbel.within(20))

    assert caught.value.report == umbel.CloseReport(None, 0)


def test_of_two_that_connect_in_the_same_moment_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[socket.socket, socket.socket]] = []

    def main() -> socket.socket:
        at = umbel.now() + 2 * tcp.HEAD_START

        def reach(_: object, __: int) -> socket.socket:
            umbel.msleep(at)
            made.append(socket.socketpair())
            return made[-1][0]

        monkeypatch.setattr(tcp, "_reach", reach)
        targets = [(socket.AF_INET, ("x", 1)), (socket.AF_INET, ("y", 1))]
        return tcp._reach_first(targets, umbel.within(20))

    first = testing.run(main)
    (second,) = [near for near, _ in made if near is not first]

    assert second.fileno() == -1
    for sock in (first, *(far for _, far in made)):
        sock.close()


def test_a_connection_that_was_aborted_in_the_queue_is_passed_over(
    listener: umbel.ListenerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = lookup(listener, Listening).listener
    assert isinstance(endpoint, SocketListener)
    accept = endpoint._accept
    failures = [OSError(errno.ECONNABORTED, "gone")]

    def abort_the_first() -> tuple[int, object]:
        if failures:
            raise failures.pop()
        return accept()

    monkeypatch.setattr(endpoint, "_accept", abort_the_first)
    client = umbel.connect(listener.address, soon())
    server = umbel.accept(listener, soon())

    umbel.hclose(client)
    umbel.hclose(server)
