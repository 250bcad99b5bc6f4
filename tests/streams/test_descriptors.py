"""Descriptors: passed along streams, and taken over from the program."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

import umbel
from tests.support import Ends, have_the_next_wait, open_descriptors, soon
from umbel.spi import Fileno
from umbel.streams.connection import find_connection


@pytest.fixture
def file(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return os.open(path, os.O_RDONLY)


def test_a_descriptor_keeps_its_place_between_data(ends: Ends, file: int) -> None:
    left, right = ends
    umbel.bsend(left, b"ABC")
    umbel.ipc_sendfd(left, file)
    umbel.bsend(left, b"DEF")

    assert umbel.brecv(right, 3) == b"ABC"
    received = umbel.ipc_recvfd(right)
    assert umbel.brecv(right, 3) == b"DEF"

    assert received != file
    assert os.pread(received, 7, 0) == b"content"
    os.close(received)
    os.close(file)


def test_a_received_descriptor_is_not_inherited_by_programs(
    ends: Ends, file: int
) -> None:
    umbel.ipc_sendfd(ends[0], file)

    received = umbel.ipc_recvfd(ends[1])

    assert fcntl.fcntl(received, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(received)
    os.close(file)


def test_several_descriptors_arrive_in_order(ends: Ends) -> None:
    pipes = [os.pipe() for _ in range(3)]
    for _, write_end in pipes:
        umbel.ipc_sendfd(ends[0], write_end)

    for i, (read_end, write_end) in enumerate(pipes):
        received = umbel.ipc_recvfd(ends[1])
        os.write(received, b"%d" % i)
        assert os.read(read_end, 1) == b"%d" % i
        for fd in (received, read_end, write_end):
            os.close(fd)


def test_data_without_a_descriptor_is_eproto_and_breaks(ends: Ends) -> None:
    umbel.bsend(ends[0], b"xy")

    with pytest.raises(OSError, match="without a descriptor") as caught:
        umbel.ipc_recvfd(ends[1])

    assert caught.value.errno == errno.EPROTO
    with pytest.raises(umbel.BrokenStreamError):
        umbel.brecv(ends[1], 1)


def test_a_descriptor_that_nobody_asked_for_is_not_leaked(
    ends: Ends, file: int
) -> None:
    before = open_descriptors()
    umbel.bsend(ends[0], b"ABC")
    umbel.ipc_sendfd(ends[0], file)
    umbel.bsend(ends[0], b"DEF")

    received = umbel.brecv(ends[1], 7, umbel.within(5))

    assert received == b"ABC\xccDEF"
    assert open_descriptors() == before
    os.close(file)


@pytest.mark.parametrize("way", ["receive", "brecv"])
def test_data_behind_a_descriptor_is_found_by_receive(
    ends: Ends, file: int, way: str
) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    got = bytearray()

    def receive() -> None:
        if way == "brecv":
            got.extend(bytes(4))
            umbel.brecv(left, got, soon())
        while len(got) < 4:
            find_connection(left).waits_left = 255
            got.extend(umbel.receive(left, 100, soon()))

    with umbel.go(receive):  # it waits, and one edge tells of all
        umbel.ipc_sendfd(right, file)
        umbel.bsend(right, b"DEF")

    assert got == b"\xccDEF"
    os.close(file)


def test_several_descriptors_at_once_are_emsgsize_and_closed(
    ends: Ends, file: int
) -> None:
    before = open_descriptors()
    rights = array.array("i", [file, file, file])
    with socket.socket(fileno=os.dup(ends[0].fileno())) as raw:
        raw.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    with pytest.raises(OSError, match="more than 1") as caught:
        umbel.ipc_recvfd(ends[1])

    assert caught.value.errno == errno.EMSGSIZE
    assert open_descriptors() == before
    with pytest.raises(umbel.BrokenStreamError):
        umbel.ipc_recvfd(ends[1])
    os.close(file)


def test_sending_a_closed_descriptor_is_ebadf_and_breaks_nothing(
    ends: Ends, file: int
) -> None:
    os.close(file)

    with pytest.raises(OSError, match="Bad file") as caught:
        umbel.ipc_sendfd(ends[0], file)
    umbel.bsend(ends[0], b"fine")

    assert caught.value.errno == errno.EBADF
    assert umbel.brecv(ends[1], 4) == b"fine"


@pytest.mark.parametrize("number", [-1, 1 << 40])
def test_so_is_sending_a_number_that_no_descriptor_can_have(
    ends: Ends, number: int
) -> None:
    with pytest.raises(OSError, match="is no descriptor") as caught:
        umbel.ipc_sendfd(ends[0], number)

    assert caught.value.errno == errno.EBADF


def test_waiting_for_a_descriptor_ends_at_the_deadline_and_breaks(ends: Ends) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.ipc_recvfd(ends[1], umbel.within(0.01))

    with pytest.raises(umbel.BrokenStreamError):
        umbel.ipc_recvfd(ends[1])


def test_a_descriptor_after_the_end_is_epipe(ends: Ends) -> None:
    umbel.done(ends[0])

    with pytest.raises(umbel.EndOfStreamError):
        umbel.ipc_recvfd(ends[1])


def test_a_descriptor_waits_for_room(ends: Ends, file: int) -> None:
    left, right = ends
    with umbel.bundle() as sending:
        sending.go(umbel.bsend, left, bytes(1 << 20))
        umbel.brecv(right, umbel.Skip(1 << 20))
    with umbel.bundle() as sending:

        def send() -> None:
            umbel.bsend(left, bytes(2 << 20))
            umbel.ipc_sendfd(left, file)

        sending.go(send)
        umbel.brecv(right, umbel.Skip(2 << 20))
        received = umbel.ipc_recvfd(right)

    assert os.fstat(received) == os.fstat(file)
    os.close(received)
    os.close(file)


# Taking over descriptors.


def test_an_adopted_stream_is_umbels(ends: Ends) -> None:
    ours, theirs = socket.socketpair()
    fd = ours.detach()

    stream = umbel.ipc_fromfd(fd)
    theirs.sendall(b"hello")

    assert umbel.brecv(stream, 5) == b"hello"
    umbel.hclose(stream)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    theirs.close()


def test_adopting_leaves_the_blocking_mode_alone() -> None:
    # The description may be shared with a process that relies on it.
    ours, theirs = socket.socketpair()
    shared = os.dup(ours.fileno())
    with umbel.ipc_fromfd(ours.detach()) as stream:
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(stream, 1, umbel.within(0.01))

        assert os.get_blocking(shared)
        theirs.close()
    os.close(shared)


def test_an_adopted_listener_accepts_and_leaves_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()

    with umbel.ipc_listener_fromfd(sock.detach()) as listener:
        assert listener.address == umbel.Address("ipc", str(path))
        client = umbel.ipc_connect(path)
        umbel.hclose(umbel.ipc_accept(listener))
        umbel.hclose(client)

    assert path.exists()


def test_an_adopted_listener_whose_name_means_nothing_to_others_has_no_path(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()

    with umbel.ipc_listen(folder / "x.sock") as bound:  # by a way around the folder
        copy = os.dup(umbel.query(bound, Fileno).fd)
        listener = umbel.ipc_listener_fromfd(copy)
        assert listener.address == umbel.Address("ipc", "")
        umbel.hclose(listener)


def test_an_adopted_listeners_file_is_told_from_an_abstract_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("@x")
    sock.listen()

    with umbel.ipc_listener_fromfd(sock.detach()) as listener:
        assert listener.address == umbel.Address("ipc", "./@x")
        umbel.hclose(umbel.connect(listener.address))


def _unconnected() -> socket.socket:
    return socket.socket(socket.AF_UNIX)


def _listening() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0umbel-test-fromfd-{os.getpid()}")
    sock.listen()
    return sock


def _datagram() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _inet() -> socket.socket:
    return socket.socket(socket.AF_INET)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (_unconnected, "not connected"),
        (_listening, "adopt it as a listener"),
        (_datagram, "not a stream socket of AF_UNIX"),
        (_inet, "not a stream socket of AF_UNIX"),
    ],
)
def test_a_socket_that_is_no_connected_local_stream_is_einval_and_untouched(
    make: object, advice: str
) -> None:
    with make() as sock:  # type: ignore[operator]
        with pytest.raises(OSError, match=advice) as caught:
            umbel.ipc_fromfd(sock.fileno())

        assert caught.value.errno == errno.EINVAL
        os.fstat(sock.fileno())


def test_a_connection_is_no_listener() -> None:
    a, b = socket.socketpair()
    with a, b, pytest.raises(OSError, match="does not listen") as caught:
        umbel.ipc_listener_fromfd(a.fileno())

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "call", [umbel.ipc_fromfd, umbel.ipc_listener_fromfd], ids=["stream", "listener"]
)
def test_what_is_no_open_socket_is_refused(call: object, file: int) -> None:
    for fd, number in ((-1, errno.EINVAL), (file, errno.EINVAL)):
        with pytest.raises(OSError, match="descriptor") as caught:
            call(fd)  # type: ignore[operator]
        assert caught.value.errno == number
    os.close(file)
    with pytest.raises(OSError, match="Bad file") as caught:
        call(file)  # type: ignore[operator]
    assert caught.value.errno == errno.EBADF
    with pytest.raises(TypeError):
        call("3")  # type: ignore[operator]


@pytest.mark.parametrize("mode", [True, False], ids=["blocking", "nonblocking"])
def test_adopting_leaves_the_mode_though_python_has_a_default_timeout(
    mode: bool,
) -> None:
    a, b = socket.socketpair()
    fd = a.detach()
    os.set_blocking(fd, mode)
    socket.setdefaulttimeout(5)
    try:
        with pytest.raises(OSError, match="does not listen"):
            umbel.ipc_listener_fromfd(fd)
        assert os.get_blocking(fd) == mode
        stream = umbel.ipc_fromfd(fd)
        assert os.get_blocking(fd) == mode
    finally:
        socket.setdefaulttimeout(None)
    umbel.hclose(stream)
    b.close()


def test_a_number_beyond_the_kernels_is_ebadf() -> None:
    for call in (umbel.ipc_fromfd, umbel.ipc_listener_fromfd):
        with pytest.raises(OSError, match="is no descriptor") as caught:
            call(1 << 40)
        assert caught.value.errno == errno.EBADF


def test_a_reset_that_flush_was_told_is_no_end_for_who_receives_descriptors() -> None:
    left, right = umbel.ipc_pair()
    umbel.bsend(left, b"never read")
    umbel.hclose(right)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.flush(left)  # the kernel tells it once

    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive_with_fds(left)
    umbel.hclose(left)
