"""libdill's tcp_* calls."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

import umbel
from tests.support import (
    calls,
    drain,
    fill,
    lateness,
    open_descriptors,
    pattern,
    wait_until,
)
from umbel import IpAddress, aio
from umbel.spi import Fileno

Ends = tuple[umbel.StreamHandle, umbel.StreamHandle]


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["IPv4", "IPv6"])
def host(request: pytest.FixtureRequest) -> str:
    host = str(request.param)
    family = umbel.ipaddr_family(IpAddress(host, 0))
    try:
        with socket.socket(family) as sock:
            sock.bind((host, 0))
    except OSError:
        pytest.skip("this machine has none")
    return host


@pytest.fixture
def listener(host: str) -> Iterator[umbel.ListenerHandle]:
    made = umbel.tcp_listen(umbel.ipaddr_local(host, 0))
    yield made
    close_if_open(made)


@pytest.fixture
def ends(listener: umbel.ListenerHandle) -> Iterator[Ends]:
    client = umbel.tcp_connect(umbel.tcp_address(listener), umbel.within(20))
    server, _ = umbel.tcp_accept(listener, umbel.within(20))
    yield client, server
    close_if_open(client)
    close_if_open(server)


def close_if_open(handle: int) -> None:
    try:
        umbel.hclose(handle)
    except umbel.BadHandleError:
        pass  # the test did


def option(handle: umbel.StreamHandle, level: int, name: int) -> int:
    fd = umbel.query(handle, Fileno).fd
    with socket.socket(fileno=os.dup(fd)) as copy:
        return copy.getsockopt(level, name)


def assert_errno(call: Callable[[], object], number: int) -> None:
    with pytest.raises(OSError, match=f"Errno {number}") as caught:
        call()
    assert caught.value.errno == number


# Opening.


def test_port_0_is_chosen_and_told(listener: umbel.ListenerHandle, host: str) -> None:
    found = umbel.tcp_address(listener)

    assert found.host == host
    assert found.port > 0


def test_whatever_names_a_stream_or_listener_its_address_is_told(ends: Ends) -> None:
    listener = aio.tcp_listen(IpAddress("127.0.0.1", 0))
    found = umbel.tcp_address(listener)

    assert str(found) == listener.address.location
    assert umbel.tcp_address(int(listener)) == found
    assert umbel.tcp_address(int(ends[0])) == umbel.tcp_address(ends[0])
    listener.abort()


def test_each_side_knows_where_the_other_is(
    listener: umbel.ListenerHandle, host: str
) -> None:
    client = umbel.tcp_connect(umbel.tcp_address(listener), umbel.within(20))
    server, peer = umbel.tcp_accept(listener, umbel.within(20))

    assert peer == umbel.tcp_address(client)
    assert peer.host == host
    assert umbel.tcp_address(server) == umbel.tcp_address(listener)
    for end in (client, server):
        umbel.hclose(end)


def test_what_is_sent_arrives_and_both_part_in_good_order(ends: Ends) -> None:
    client, server = ends
    data = pattern(300_000)

    with umbel.go(umbel.bsend, client, data):
        assert umbel.brecv(server, len(data)) == data
    umbel.tcp_done(client)
    with pytest.raises(umbel.EndOfStreamError):
        umbel.brecv(server, 1)
    with pytest.raises(umbel.EndOfStreamError):
        umbel.bsend(client, b"x")
    with pytest.raises(umbel.EndOfStreamError):
        umbel.tcp_done(client)
    with umbel.go(umbel.tcp_close, client, umbel.within(20)):
        assert umbel.tcp_close(server, umbel.within(20)) == umbel.CloseReport(None, 0)


def test_a_peer_that_broke_off_while_queued_is_passed_over(
    listener: umbel.ListenerHandle,
) -> None:
    where = umbel.tcp_address(listener)
    gone = socket.create_connection(where)
    reset = struct.pack("ii", 1, 0)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    gone.close()
    client = umbel.tcp_connect(where, umbel.within(20))
    before = open_descriptors()

    server, peer = umbel.tcp_accept(listener, umbel.within(20))

    assert peer == umbel.tcp_address(client)
    assert len(open_descriptors() - before) == 1
    umbel.hclose(client)
    umbel.hclose(server)


def test_a_connection_can_be_tried_without_waiting(
    listener: umbel.ListenerHandle,
) -> None:
    client = umbel.tcp_connect(umbel.tcp_address(listener), 0)
    server, _ = umbel.tcp_accept(listener, 0)

    for end in (client, server):
        umbel.hclose(end)


def test_an_accept_that_is_interrupted_leaves_no_stream(
    listener: umbel.ListenerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    client = umbel.tcp_connect(umbel.tcp_address(listener))
    monkeypatch.setattr("umbel.tcp.hquery", interrupt)

    with pytest.raises(KeyboardInterrupt):
        umbel.tcp_accept(listener, umbel.within(20))

    assert [line.number for line in umbel.census().handles] == [listener, client]
    umbel.hclose(client)


# Adopting.


def test_a_connected_socket_can_be_taken_over(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        theirs = socket.create_connection(listening.getsockname()[:2])
        accepted, _ = listening.accept()
    fd = accepted.detach()
    stream = umbel.tcp_fromfd(fd)

    umbel.bsend(stream, b"hello")
    assert theirs.recv(5) == b"hello"
    assert stream.fileno() == fd
    assert umbel.tcp_address(stream).port == theirs.getpeername()[1]
    theirs.close()
    assert umbel.tcp_close(stream, umbel.within(20)) == umbel.CloseReport(None, 0)
    assert fd not in open_descriptors()


def test_a_listening_socket_can_be_taken_over(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, 0), family=family)
    where = IpAddress(*made.getsockname()[:2])
    listener = umbel.tcp_listener_fromfd(made.detach())

    assert umbel.tcp_address(listener) == where
    client = umbel.tcp_connect(where, umbel.within(20))
    server, _ = umbel.tcp_accept(listener, umbel.within(20))
    for handle in (client, server, listener):
        umbel.hclose(handle)


@pytest.mark.parametrize("which", ["stream", "listener"])
def test_what_would_linger_on_close_does_not_any_more(which: str) -> None:
    lingering = struct.pack("ii", 1, 60)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        theirs = socket.create_connection(listening.getsockname())
        if which == "listener":
            with umbel.tcp_listener_fromfd(os.dup(listening.fileno())) as listener:
                stream = umbel.accept(listener, umbel.within(20))
        else:  # which has it of its listener
            stream = umbel.tcp_fromfd(listening.accept()[0].detach())

    with pytest.raises(umbel.DeadlineError):
        umbel.bsend(stream, bytes(1 << 26), umbel.within(0.1))  # more than has room
    began = time.monotonic()
    umbel.hclose(stream)

    assert time.monotonic() - began < 20
    theirs.close()


def test_what_cannot_be_taken_over_is_einval_and_stays_open() -> None:
    local, other = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    fresh = socket.socket()
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    reader, writer = os.pipe()
    wrong_streams = (local.fileno(), listening.fileno(), fresh.fileno(), reader)
    wrong_listeners = (local.fileno(), fresh.fileno(), datagrams.fileno(), reader)

    for fd in (*wrong_streams, datagrams.fileno(), -1):
        assert_errno(lambda fd=fd: umbel.tcp_fromfd(fd), errno.EINVAL)  # type: ignore[misc]
    for fd in (*wrong_listeners, -1):
        assert_errno(lambda fd=fd: umbel.tcp_listener_fromfd(fd), errno.EINVAL)  # type: ignore[misc]

    with pytest.raises(OSError, match="adopt it as a listener"):
        umbel.tcp_fromfd(listening.fileno())
    with pytest.raises(OSError, match="adopt it as a stream"):
        umbel.tcp_listener_fromfd(fresh.fileno())
    for sock in (local, other, listening, fresh, datagrams):
        sock.getsockname()  # open still
        sock.close()
    os.close(reader)
    os.close(writer)
    assert_errno(lambda: umbel.tcp_fromfd(reader), errno.EBADF)
    assert_errno(lambda: umbel.tcp_listener_fromfd(writer), errno.EBADF)


# Errors, by errno.


def test_a_taken_port_is_eaddrinuse(listener: umbel.ListenerHandle) -> None:
    before = open_descriptors()

    assert_errno(
        lambda: umbel.tcp_listen(umbel.tcp_address(listener)), errno.EADDRINUSE
    )
    assert open_descriptors() == before


def test_an_address_of_another_machine_is_eaddrnotavail() -> None:
    assert_errno(
        lambda: umbel.tcp_listen(IpAddress("192.0.2.77", 0)), errno.EADDRNOTAVAIL
    )


def test_nobody_there_is_econnrefused(host: str) -> None:
    with umbel.tcp_listen(IpAddress(host, 0)) as listener:
        where = umbel.tcp_address(listener)
    before = open_descriptors()

    assert_errno(lambda: umbel.tcp_connect(where, umbel.within(20)), errno.ECONNREFUSED)
    assert open_descriptors() == before


def test_a_negative_backlog_is_einval(host: str) -> None:
    assert_errno(lambda: umbel.tcp_listen(IpAddress(host, 0), -1), errno.EINVAL)


def test_nobody_comes_in_time_is_etimedout(listener: umbel.ListenerHandle) -> None:
    assert lateness(lambda until: umbel.tcp_accept(listener, until)) <= 20
    with pytest.raises(umbel.DeadlineError):
        umbel.tcp_accept(listener, 0)


def test_no_answer_in_time_is_etimedout() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    where = IpAddress(*listener.getsockname())
    fillers = [socket.socket() for _ in range(8)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(where)
    before = open_descriptors()

    assert lateness(lambda until: umbel.tcp_connect(where, until)) <= 20

    assert open_descriptors() == before
    for sock in (listener, *fillers):
        sock.close()


def test_a_peer_that_does_not_end_in_time_is_etimedout(ends: Ends) -> None:
    client, server = ends
    fd = client.fileno()

    with pytest.raises(umbel.DeadlineError) as caught:
        umbel.tcp_close(client, 0)

    assert caught.value.report == umbel.CloseReport(None, 0)
    assert fd not in open_descriptors()
    with pytest.raises(umbel.BadHandleError):
        umbel.tcp_close(client)
    assert umbel.receive(server, 1, umbel.within(20)) == b""  # our end had been sent


def test_after_a_failed_send_a_close_is_econnreset(ends: Ends) -> None:
    client, _ = ends
    fill(client)

    assert_errno(lambda: umbel.tcp_done(client), errno.ECONNRESET)
    assert_errno(lambda: umbel.tcp_close(client), errno.ECONNRESET)
    assert_errno(lambda: umbel.tcp_close(client), errno.EBADF)


def test_a_closed_handle_is_ebadf(
    ends: Ends, listener: umbel.ListenerHandle, host: str
) -> None:
    client, _ = ends
    umbel.hclose(client)
    umbel.tcp_close(listener)

    for call in calls(
        lambda: umbel.tcp_done(client),
        lambda: umbel.tcp_close(client),
        lambda: umbel.tcp_address(client),
        lambda: umbel.tcp_accept(listener),
        lambda: umbel.tcp_close(listener),
        lambda: umbel.tcp_address(listener),
    ):
        assert_errno(call, errno.EBADF)


def test_another_kind_of_handle_is_enotsup_and_stays_open(
    ends: Ends, listener: umbel.ListenerHandle
) -> None:
    client, server = ends
    pair = umbel.ipc_pair()
    bundle = umbel.bundle()
    local = umbel.listen("mem://tcp-names")

    for call in calls(
        lambda: umbel.tcp_accept(client),  # type: ignore[arg-type]
        lambda: umbel.tcp_accept(local),
        lambda: umbel.tcp_accept(pair[0]),  # type: ignore[arg-type]
        lambda: umbel.tcp_done(listener),  # type: ignore[arg-type]
        lambda: umbel.tcp_done(pair[0]),
        lambda: umbel.tcp_close(pair[0]),
        lambda: umbel.tcp_close(bundle),  # type: ignore[arg-type]
        lambda: umbel.tcp_close(local),
        lambda: umbel.tcp_address(pair[0]),
        lambda: umbel.tcp_address(local),
        lambda: umbel.ipc_done(client),
        lambda: umbel.ipc_close(client),
        lambda: umbel.ipc_accept(listener),
    ):
        assert_errno(call, errno.ENOTSUP)

    umbel.bsend(client, b"x")
    assert umbel.brecv(server, 1) == b"x"
    for handle in (*pair, bundle, local):
        umbel.hclose(handle)


def test_a_second_user_of_a_direction_is_ebusy(
    ends: Ends, listener: umbel.ListenerHandle
) -> None:
    client, _ = ends

    with umbel.go(umbel.tcp_accept, listener) as accepting:
        umbel.yield_()
        assert_errno(lambda: umbel.tcp_accept(listener), errno.EBUSY)
        accepting.abort()
    with umbel.go(umbel.bsend, client, bytes(64 << 20)) as sending:
        umbel.yield_()
        assert_errno(lambda: umbel.tcp_done(client), errno.EBUSY)
        sending.abort()


def test_a_close_takes_over_from_who_waits(
    ends: Ends, listener: umbel.ListenerHandle
) -> None:
    client, _ = ends
    found: list[int | None] = []

    def wait(call: Callable[[], object]) -> None:
        try:
            call()
        except umbel.BadHandleError as error:
            found.append(error.errno)

    with umbel.bundle() as waiting:
        waiting.go(wait, lambda: umbel.receive(client))
        waiting.go(wait, lambda: umbel.tcp_accept(listener))
        umbel.yield_()
        umbel.hclose(client)
        umbel.tcp_close(listener)

    assert found == [errno.EBADF] * 2


# Options.


def test_keepalive_is_set_on_both_sides_if_asked_for(host: str) -> None:
    level, name = socket.SOL_SOCKET, socket.SO_KEEPALIVE
    where = umbel.Address("tcp", str(IpAddress(host, 0)))

    for options, expected in (({}, False), ({"keepalive": True}, True)):
        with umbel.listen(where, **options) as listener:
            client = umbel.connect(listener.address, umbel.within(20), **options)
            server = umbel.accept(listener, umbel.within(20))
        assert bool(option(client, level, name)) is expected
        assert bool(option(server, level, name)) is expected
        umbel.hclose(client)
        umbel.hclose(server)


def test_small_sends_go_at_once_on_both_sides_unless_told_otherwise(host: str) -> None:
    level, name = socket.IPPROTO_TCP, socket.TCP_NODELAY
    where = umbel.Address("tcp", str(IpAddress(host, 0)))

    for options, expected in (({}, True), ({"nodelay": False}, False)):
        with umbel.listen(where, **options) as listener:
            client = umbel.connect(listener.address, umbel.within(20), **options)
            server = umbel.accept(listener, umbel.within(20))
        assert bool(option(client, level, name)) is expected
        assert bool(option(server, level, name)) is expected
        umbel.hclose(client)
        umbel.hclose(server)


def test_reuseport_is_set_if_asked_for_and_needed_to_share_a_port(host: str) -> None:
    where = umbel.Address("tcp", str(IpAddress(host, 0)))
    with (
        umbel.listen(where, reuseport=True) as first,
        umbel.listen(first.address, reuseport=True) as second,
    ):
        for listener in (first, second):
            fd = umbel.query(listener, Fileno).fd
            with socket.socket(fileno=os.dup(fd)) as copy:
                assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert_errno(lambda: umbel.listen(first.address), errno.EADDRINUSE)


@pytest.mark.parametrize("name", ["nodelays", "reuseport"])
def test_an_option_that_connect_does_not_have_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        umbel.connect("tcp://127.0.0.1:1", 0, **{name: True})


def test_an_option_of_a_wrong_type_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="keepalive='yes'"):
        umbel.listen("tcp://127.0.0.1:0", keepalive="yes")


def test_descriptors_are_closed_in_children(ends: Ends, host: str) -> None:
    for end in ends:
        assert not os.get_inheritable(end.fileno())


# An orderly close against a plain one.


def test_a_close_loses_nothing_of_a_megabyte_over_unread_requests(ends: Ends) -> None:
    client, server = ends
    answer = pattern(1 << 20)
    received: list[bytes] = []

    def read_answer() -> None:
        umbel.bsend(client, bytes(1000))
        umbel.tcp_done(client)
        received.append(drain(client))
        umbel.tcp_close(client, umbel.within(20))

    with umbel.go(read_answer):
        umbel.fdin(server.fileno(), umbel.within(20))
        umbel.bsend(server, answer)
        report = umbel.tcp_close(server, umbel.within(20))

    assert received == [answer]
    assert report.discarded == 1000


def test_a_plain_close_loses_most_of_it(host: str) -> None:
    """The control of the test above: the same with bare sockets."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        client = socket.create_connection(listening.getsockname()[:2])
        server, _ = listening.accept()
    client.sendall(bytes(1000))
    wait_until(lambda: server.recv(1000, socket.MSG_PEEK), "the request")
    client.settimeout(20)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    server.setblocking(False)

    sent = server.send(pattern(1 << 20))  # as much of it as the kernel takes
    server.close()  # with the request unread: the kernel resets the connection

    received: list[bytes] = []
    with client, pytest.raises(ConnectionResetError):
        read_all(client, received)
    assert len(b"".join(received)) < sent


def read_all(sock: socket.socket, received: list[bytes]) -> None:
    while data := sock.recv(65536):
        received.append(data)


def test_who_wants_a_close_to_reset_the_connection_gets_that() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    umbel.hclose(umbel.tcp_fromfd(ours.detach()))

    with theirs, pytest.raises(ConnectionResetError):
        theirs.recv(1)
