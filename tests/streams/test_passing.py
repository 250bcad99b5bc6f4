"""Several descriptors at once, and whole handles, to another process."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import umbel
from tests.support import (
    Ends,
    calls,
    drain,
    open_descriptors,
    python,
    run_python,
    soon,
)
from umbel.handle import lookup
from umbel.streams.listener import Listening
from umbel.testing.conformance.looking import few_descriptors

CHILD = """
import os, sys
import umbel
s = umbel.ipc_connect(sys.argv[1])
moved = umbel.receive_handle(s)
umbel.hclose(s)
"""


def test_several_descriptors_travel_with_their_data(ends: Ends) -> None:
    pipes = [os.pipe() for _ in range(3)]

    umbel.bsend(ends[0], b"before")
    umbel.send_with_fds(ends[0], b"with", [write for _, write in pipes])
    umbel.bsend(ends[0], b"behind")

    assert umbel.brecv(ends[1], 6) == b"before"
    data, received = umbel.receive_with_fds(ends[1], 4)
    assert data == b"with"
    for i, (fd, (read, write)) in enumerate(zip(received, pipes, strict=True)):
        assert not os.get_inheritable(fd)
        os.write(fd, b"%d" % i)
        assert os.read(read, 1) == b"%d" % i
        for each in (fd, read, write):
            os.close(each)
    assert umbel.brecv(ends[1], 6) == b"behind"


def test_data_without_descriptors_comes_with_none(ends: Ends) -> None:
    umbel.bsend(ends[0], b"plain")

    assert umbel.receive_with_fds(ends[1]) == (b"plain", [])


def test_the_end_of_the_stream_is_empty_again_and_again(ends: Ends) -> None:
    umbel.done(ends[0])

    assert [umbel.receive_with_fds(ends[1]) for _ in range(2)] == [(b"", [])] * 2


def test_more_descriptors_than_wanted_are_emsgsize_and_closed(ends: Ends) -> None:
    read, write = os.pipe()
    umbel.send_with_fds(ends[0], b"x", [read, write, read])
    before = open_descriptors()

    with pytest.raises(OSError, match="more than 2") as caught:
        umbel.receive_with_fds(ends[1], 10, 2)

    assert caught.value.errno == errno.EMSGSIZE
    assert open_descriptors() == before
    os.close(read)
    os.close(write)


def test_no_room_for_a_descriptor_is_emfile(ends: Ends) -> None:
    umbel.send_with_fds(ends[0], b"x", [0, 1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)

    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(OSError, match="room for a descriptor") as caught:
            umbel.receive_with_fds(ends[1], deadline=umbel.within(5))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert caught.value.errno == errno.EMFILE
    os.close(free_again := os.dup(0))
    assert free_again == free  # the one that came was closed


def test_huge_limits_take_what_there_is(ends: Ends) -> None:
    umbel.send_with_fds(ends[0], b"x", [0])

    data, fds = umbel.receive_with_fds(ends[1], 1 << 40, 1 << 40, umbel.within(5))

    assert (data, len(fds)) == (b"x", 1)
    os.close(fds[0])


def test_bad_arguments_break_nothing(ends: Ends) -> None:
    for call, number in zip(
        calls(
            lambda: umbel.send_with_fds(ends[0], b"", [0]),
            lambda: umbel.send_with_fds(ends[0], b"x", [0] * 254),
            lambda: umbel.send_with_fds(ends[0], b"x", [10**6]),
            lambda: umbel.receive_with_fds(ends[0], 0),
            lambda: umbel.receive_with_fds(ends[0], 1, -1),
        ),
        [errno.EINVAL, errno.EINVAL, errno.EBADF, errno.EINVAL, errno.EINVAL],
        strict=True,
    ):
        with pytest.raises(OSError, match=r".") as caught:
            call()
        assert caught.value.errno == number

    umbel.bsend(ends[0], b"fine")
    assert umbel.brecv(ends[1], 4) == b"fine"


def test_the_most_descriptors_that_the_kernel_takes_go_through(ends: Ends) -> None:
    read, write = os.pipe()

    umbel.send_with_fds(ends[0], b"x", [read] * 253)
    _, received = umbel.receive_with_fds(ends[1])

    assert len(received) == 253
    for fd in (*received, read, write):
        os.close(fd)


def test_a_receiver_that_is_canceled_as_they_come_leaks_nothing(ends: Ends) -> None:
    read, write = os.pipe()
    before = open_descriptors()

    receiving = umbel.go(umbel.receive_with_fds, ends[1])
    umbel.send_with_fds(ends[0], b"x", [read, write])
    umbel.hclose(receiving)
    umbel.hclose(ends[1])  # what lies in it is freed with it
    umbel.hclose(ends[0])

    assert len(open_descriptors()) == len(before) - 2
    os.close(read)
    os.close(write)


def test_with_descriptors_false_the_kernel_refuses_them() -> None:
    try:
        left, right = umbel.pair("ipc", descriptors=False)
    except umbel.NotSupportedError:
        pytest.skip("needs Linux 6.16")

    with pytest.raises(PermissionError, match="takes no descriptors"):
        umbel.ipc_sendfd(left, 0)
    umbel.bsend(left, b"x")  # nothing was moved, and so nothing is broken
    assert umbel.brecv(right, 1) == b"x"
    umbel.hclose(left)
    umbel.hclose(right)


def test_with_descriptors_false_none_come_with_what_is_received() -> None:
    try:
        left, right = umbel.pair("ipc", descriptors=False)
    except umbel.NotSupportedError:
        pytest.skip("needs Linux 6.16")
    umbel.bsend(left, b"plain")

    assert umbel.receive_with_fds(right) == (b"plain", [])
    umbel.bsend(left, b"p")
    with pytest.raises(OSError, match="without a descriptor") as caught:
        umbel.ipc_recvfd(right)
    assert caught.value.errno == errno.EPROTO
    umbel.hclose(left)
    umbel.hclose(right)


def test_descriptors_false_holds_for_accepted_streams(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/x.sock"
    try:
        listener = umbel.listen(address, descriptors=False)
    except umbel.NotSupportedError:
        assert not os.listdir(tmp_path)
        pytest.skip("needs Linux 6.16")
    with listener:
        client = umbel.connect(address)
        with pytest.raises(PermissionError):
            umbel.ipc_sendfd(client, 0)  # though nobody has accepted yet
        server = umbel.accept(listener)
        umbel.ipc_sendfd(server, 0)  # the client takes them
        umbel.hclose(client)
        umbel.hclose(server)


# Handles.


def test_a_stream_goes_on_in_another_process_with_its_unread_bytes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"
    near, far = umbel.ipc_pair()
    umbel.bsend(near, b"unread|")
    code = CHILD + "umbel.bsend(moved, umbel.brecv(moved, 11)[::-1]); moved.close()"

    with umbel.ipc_listen(path) as listener, python(code, str(path)) as child:
        with umbel.ipc_accept(listener) as s:
            umbel.send_handle(s, far)
            with pytest.raises(umbel.BadHandleError):
                umbel.bsend(far, b"x")
            umbel.bsend(near, b"more")
            assert umbel.brecv(near, 11) == b"erom|daernu"
            assert umbel.close(near) == umbel.CloseReport(True, 0)
        assert child.wait(20) == 0


def test_ended_directions_stay_ended(ends: Ends) -> None:
    near, far = umbel.ipc_pair()
    umbel.done(far)
    umbel.done(near)
    assert umbel.receive(far) == b""

    umbel.send_handle(ends[0], far)
    moved = umbel.receive_handle(ends[1])

    assert isinstance(moved, umbel.StreamHandle)
    for _ in range(2):
        assert umbel.receive(moved, 1, 0) == b""
    with pytest.raises(umbel.EndOfStreamError):
        umbel.bsend(moved, b"x")
    umbel.hclose(moved)
    umbel.hclose(near)


def test_a_listener_goes_on_in_another_process_with_its_queue_and_file(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "x.sock", tmp_path / "other.sock"
    code = (
        CHILD
        + """
for _ in range(2):
    with umbel.accept(moved) as client:
        umbel.bsend(client, b"from the child")
umbel.close(moved)
"""
    )
    with umbel.ipc_listen(path) as listener, python(code, str(path)) as child:
        moving = umbel.ipc_listen(other)
        waiting = umbel.ipc_connect(other)
        with umbel.ipc_accept(listener) as s:
            umbel.send_handle(s, moving)
            late = umbel.ipc_connect(other)
            for client in (waiting, late):
                assert umbel.brecv(client, 14, umbel.within(20)) == b"from the child"
                umbel.close(client)
        assert child.wait(20) == 0

    assert not other.exists()  # the child removed it


def test_what_is_in_use_or_broken_stays_here(ends: Ends, tmp_path: Path) -> None:
    near, far = umbel.ipc_pair()
    with umbel.go(umbel.receive, far):
        with pytest.raises(umbel.BusyError):
            umbel.send_handle(ends[0], far)
        umbel.bsend(near, b"x")
    with pytest.raises(umbel.DeadlineError):
        umbel.brecv(far, 1, 0)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.send_handle(ends[0], far)
    with umbel.ipc_listen(tmp_path / "x.sock") as listener:
        accepting = umbel.go(umbel.accept, listener)
        with pytest.raises(umbel.BusyError, match="cancel it first"):
            umbel.send_handle(ends[0], listener)
        umbel.hclose(accepting)

    umbel.bsend(ends[0], b"nothing was sent")
    assert umbel.receive(ends[1]) == b"nothing was sent"
    umbel.hclose(near)
    umbel.hclose(far)


def test_what_another_thread_uses_while_it_is_described_stays_there(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = umbel.ipc_pair()
    described = json.dumps
    told: list[str] = []

    def describe(header: object) -> str:
        def use() -> None:
            with pytest.raises(umbel.BusyError):
                umbel.receive(far, deadline=soon())
            told.append("busy")

        thread = threading.Thread(target=use)
        thread.start()
        thread.join(5)
        return described(header)

    umbel.bsend(near, b"here")
    monkeypatch.setattr(json, "dumps", describe)
    umbel.send_handle(ends[0], far)
    moved = umbel.receive_handle(ends[1])

    assert told == ["busy"]
    assert isinstance(moved, umbel.StreamHandle)
    assert umbel.brecv(moved, 4, soon()) == b"here"
    umbel.hclose(moved)
    umbel.hclose(near)


def fill_socket(stream: umbel.StreamHandle) -> int:
    """Send until there is no more room; that direction stays whole."""
    count = 0
    with socket.socket(fileno=os.dup(stream.fileno())) as raw:
        try:
            while True:
                count += raw.send(bytes(4096), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return count


def test_what_waits_to_travel_is_in_use(ends: Ends) -> None:
    near, far = umbel.ipc_pair()
    count = fill_socket(ends[0])

    with umbel.go(umbel.send_handle, ends[0], far):
        for use in calls(
            lambda: umbel.receive(far),
            lambda: umbel.bsend(far, b"x"),
            lambda: umbel.done(far),
            lambda: umbel.send_handle(near, far),
        ):
            with pytest.raises(umbel.BusyError):
                use()
        umbel.brecv(ends[1], count)
    moved = umbel.receive_handle(ends[1])
    umbel.bsend(near, b"here")

    assert isinstance(moved, umbel.StreamHandle)
    assert umbel.brecv(moved, 4) == b"here"
    umbel.hclose(moved)
    umbel.hclose(near)


def test_what_gets_a_new_handle_as_it_waits_to_travel_does_all_the_same(
    ends: Ends,
) -> None:
    near, far = umbel.ipc_pair()
    count = fill_socket(ends[0])

    with umbel.go(umbel.send_handle, ends[0], far):
        renamed = umbel.hown(far)
        umbel.brecv(ends[1], count)
    moved = umbel.receive_handle(ends[1])

    with pytest.raises(umbel.BadHandleError):
        umbel.bsend(renamed, b"it is there, and no longer here")
    umbel.hclose(moved)
    umbel.hclose(near)


@pytest.mark.parametrize("is_listener", [False, True])
def test_what_is_closed_as_it_waits_to_travel_does_not(
    ends: Ends, is_listener: bool, tmp_path: Path
) -> None:
    before = open_descriptors()
    near, far = umbel.ipc_pair()
    count = fill_socket(ends[0])
    moved = umbel.ipc_listen(tmp_path / "x.sock") if is_listener else far
    told: list[type[BaseException]] = []

    def send() -> None:
        try:
            umbel.send_handle(ends[0], moved)
        except OSError as error:
            told.append(type(error))

    with umbel.go(send):
        umbel.hclose(moved)
    stranger = os.memfd_create("of the same number")

    assert told == [umbel.BadHandleError]
    umbel.brecv(ends[1], count)
    with pytest.raises(umbel.DeadlineError):
        umbel.receive_with_fds(ends[1], deadline=umbel.within(0.01))
    os.close(stranger)
    umbel.hclose(near)
    if is_listener:
        umbel.hclose(far)
    assert open_descriptors() == before


def test_an_orderly_close_of_what_waits_to_travel_overtakes_it(ends: Ends) -> None:
    near, far = umbel.ipc_pair()
    fill_socket(ends[0])
    umbel.done(near)

    def send() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.send_handle(ends[0], far)

    with umbel.go(send):
        assert umbel.close(far, soon()).consumed
    umbel.hclose(near)


def send_descriptor(stream: umbel.StreamHandle, moved: int, deadline: int) -> None:
    umbel.send_with_fds(stream, b"x", [0], deadline)


@pytest.mark.parametrize("send", [umbel.send_handle, send_descriptor])
def test_what_can_not_be_sent_in_time_breaks_only_what_it_is_sent_on(
    ends: Ends, send: Callable[[umbel.StreamHandle, umbel.StreamHandle, int], None]
) -> None:
    near, far = umbel.ipc_pair()
    fill_socket(ends[0])

    with pytest.raises(umbel.DeadlineError):
        send(ends[0], far, umbel.within(0.01))

    with pytest.raises(umbel.BrokenStreamError):
        umbel.send_handle(ends[0], far)
    umbel.bsend(near, b"here")
    assert umbel.brecv(far, 4) == b"here"
    umbel.hclose(near)
    umbel.hclose(far)


def test_what_has_no_descriptor_cannot_travel(ends: Ends) -> None:
    bundle, listener = umbel.bundle(), umbel.listen("mem://x")

    for handle in (bundle, listener):
        with pytest.raises(umbel.NotSupportedError, match="handed"):
            umbel.send_handle(ends[0], handle)  # type: ignore[arg-type]
        umbel.hclose(handle)


@pytest.mark.parametrize(
    "junk",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02{}",
        b"\0\0\0\x04junk",
        b"\0\0\0\x02[]",
        b"\0\0\x27\x10" + b"[" * 10_000,
    ],
    ids=["empty", "huge", "no fields", "no JSON", "a list", "too deep"],
)
def test_junk_is_eproto_and_leaks_nothing(ends: Ends, junk: bytes) -> None:
    a, b = socket.socketpair()
    umbel.send_with_fds(ends[0], junk, [a.fileno()])
    before = open_descriptors()

    with pytest.raises(OSError, match="send_handle") as caught:
        umbel.receive_handle(ends[1], umbel.within(5))

    assert caught.value.errno == errno.EPROTO
    assert open_descriptors() == before
    a.close()
    b.close()


@pytest.mark.parametrize("kind", ["stream", "listener"])
def test_what_arrives_and_gets_no_handle_is_closed_once(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "x.sock"
    left, peer = umbel.ipc_pair()
    moving = left if kind == "stream" else umbel.ipc_listen(path)
    umbel.send_handle(ends[0], moving)

    def register(*_: object) -> int:
        raise MemoryError

    before = open_descriptors()
    monkeypatch.setattr("umbel.streams.listener.register", register)
    with pytest.raises(MemoryError):
        umbel.receive_handle(ends[1], umbel.within(5))
    monkeypatch.undo()

    assert open_descriptors() == before
    assert not path.exists()
    umbel.hclose(peer)
    if kind == "listener":
        umbel.hclose(left)


@pytest.mark.parametrize("state", [{}, {"unlink": True}, {"device": 0, "inode": 0}])
def test_a_peer_cannot_have_a_file_removed(
    ends: Ends, tmp_path: Path, state: dict[str, object]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if "inode" in state:
        found = victim.stat()
        state = {"device": found.st_dev, "inode": found.st_ino}
    header = json.dumps(
        {"address": f"ipc:{victim}", "is_listener": True, "state": state}
    ).encode()
    with socket.socket(socket.AF_UNIX) as evil:
        evil.bind(str(tmp_path / "evil"))
        evil.listen()
        size = len(header).to_bytes(4, "big")
        umbel.send_with_fds(ends[0], size + header, [evil.fileno()])

    umbel.hclose(umbel.receive_handle(ends[1], umbel.within(5)))

    assert victim.read_text() == "precious"


@pytest.mark.parametrize("is_taken_over", [True, False])
def test_a_file_that_changed_hands_on_the_way_is_left(
    ends: Ends, tmp_path: Path, is_taken_over: bool
) -> None:
    path = tmp_path / "x.sock"
    umbel.send_handle(ends[0], umbel.ipc_listen(path))
    other = None
    if is_taken_over:
        other = umbel.listen(f"ipc:{path}", takeover=True)
    else:
        path.unlink()

    umbel.hclose(umbel.receive_handle(ends[1], umbel.within(5)))

    assert path.exists() is is_taken_over
    if other is not None:
        umbel.hclose(other)


def test_a_header_without_a_descriptor_is_eproto(ends: Ends) -> None:
    umbel.bsend(ends[0], b"\0\0\0\x02{}")

    with pytest.raises(OSError, match="0 descriptors") as caught:
        umbel.receive_handle(ends[1])

    assert caught.value.errno == errno.EPROTO


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0\x05", b"\0\0\0\x05{"])
def test_a_handle_that_does_not_come_as_a_whole_is_late(
    ends: Ends, part: bytes
) -> None:
    umbel.send_with_fds(ends[0], part, [0])
    before = open_descriptors()

    with pytest.raises(umbel.DeadlineError):
        umbel.receive_handle(ends[1], umbel.within(0.01))

    assert open_descriptors() == before
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(ends[1])


def test_a_byte_without_a_descriptor_is_no_beginning_of_a_handle(ends: Ends) -> None:
    umbel.bsend(ends[0], b"\0")

    with pytest.raises(OSError, match="0 descriptors") as caught:
        umbel.receive_handle(ends[1], umbel.within(5))

    assert caught.value.errno == errno.EPROTO


def test_one_that_has_not_begun_to_come_can_be_waited_for_again(ends: Ends) -> None:
    near, far = umbel.ipc_pair()
    with pytest.raises(umbel.DeadlineError):
        umbel.receive_handle(ends[1], umbel.within(0.01))
    with pytest.raises(umbel.DeadlineError):
        umbel.receive_with_fds(ends[1], deadline=umbel.within(0.01))
    umbel.hclose(umbel.go(umbel.receive_handle, ends[1]))  # canceled
    umbel.hclose(umbel.go(umbel.receive_with_fds, ends[1]))

    umbel.send_handle(ends[0], far)
    moved = umbel.receive_handle(ends[1], umbel.within(5))
    assert isinstance(moved, umbel.StreamHandle)
    umbel.bsend(near, b"x")
    assert umbel.receive(moved) == b"x"
    umbel.hclose(near)
    umbel.hclose(moved)


def test_data_around_a_handle_keeps_its_place(ends: Ends) -> None:
    near, far = umbel.ipc_pair()
    umbel.bsend(ends[0], b"before")
    umbel.send_handle(ends[0], far)
    umbel.bsend(ends[0], b"behind")
    umbel.done(ends[0])

    assert umbel.brecv(ends[1], 6) == b"before"
    moved = umbel.receive_handle(ends[1])
    assert drain(ends[1]) == b"behind"
    umbel.hclose(moved)
    umbel.hclose(near)


@pytest.mark.parametrize("length", [65_000, 66_000])
def test_what_takes_too_long_to_describe_is_refused_before_it_is_sent(
    ends: Ends, length: int
) -> None:
    with umbel.listen("mem:" + "x" * length) as listener:
        moved = umbel.connect(listener.address, 0)
        peer = umbel.accept(listener)

    if length < 1 << 16:
        umbel.send_handle(ends[0], moved)
        moved_to = umbel.receive_handle(ends[1], umbel.within(5))
    else:
        with pytest.raises(OSError, match="bytes to describe") as caught:
            umbel.send_handle(ends[0], moved)
        assert caught.value.errno == errno.EMSGSIZE
        umbel.bsend(ends[0], b"x")
        assert umbel.receive(ends[1]) == b"x"
        moved_to = moved
    assert isinstance(moved_to, umbel.StreamHandle)
    umbel.bsend(peer, b"hello")
    assert umbel.brecv(moved_to, 5) == b"hello"
    umbel.hclose(moved_to)
    umbel.hclose(peer)


FORKED = """
import os, sys
import umbel
path = sys.argv[1]
with umbel.ipc_listen(path) as listener:
    left, right = umbel.ipc_pair()
    if os.fork() == 0:
        umbel.send_handle(left, listener)
        os._exit(0)
    os.wait()
    umbel.hclose(umbel.receive_handle(right))
    print(os.path.exists(path))
print(os.path.exists(path))
umbel.hclose(left)
umbel.hclose(right)
"""


def test_a_forked_child_hands_on_a_listener_without_its_file(tmp_path: Path) -> None:
    assert run_python(FORKED, str(tmp_path / "x.sock")) == "True\nFalse\n"


def test_a_listener_that_asks_who_may_come_in_cannot_be_moved(
    ends: Ends, tmp_path: Path
) -> None:
    path = tmp_path / "x.sock"

    with umbel.listen(f"ipc:{path}", allow=lambda _: True) as listener:
        with pytest.raises(umbel.NotSupportedError, match="allow="):
            umbel.send_handle(ends[0], listener)
        umbel.hclose(umbel.ipc_connect(path))
        umbel.hclose(umbel.accept(listener))


def test_a_stream_that_was_told_of_a_reset_cannot_be_moved(ends: Ends) -> None:
    near, far = umbel.ipc_pair()
    umbel.bsend(near, b"never read")
    umbel.hclose(far)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.flush(near, umbel.within(20))

    with pytest.raises(umbel.BrokenStreamError):
        umbel.send_handle(ends[0], near)

    umbel.hclose(near)


#: As Python does not name them: asm-generic/socket.h.
SO_PASSPIDFD = 76


@pytest.mark.parametrize(
    "option", [socket.SO_PASSCRED, SO_PASSPIDFD], ids=["credentials", "pidfd"]
)
def test_what_an_adopted_socket_brings_besides_leaves_room_for_descriptors(
    option: int,
) -> None:
    a, b = socket.socketpair()
    try:
        b.setsockopt(socket.SOL_SOCKET, option, 1)
    except OSError:
        pytest.skip("this kernel has none")
    read, write = os.pipe()
    left, right = umbel.ipc_fromfd(a.detach()), umbel.ipc_fromfd(b.detach())
    before = open_descriptors()
    umbel.send_with_fds(left, b"two", [read, write])
    data, found = umbel.receive_with_fds(right, 10, 2)
    assert (data, len(found)) == (b"two", 2)
    for fd in found:
        os.close(fd)
    umbel.send_with_fds(left, b"three", [read, write, read])
    with pytest.raises(OSError, match="more than 2") as caught:
        umbel.receive_with_fds(right, 10, 2)
    assert caught.value.errno == errno.EMSGSIZE
    assert open_descriptors() == before
    umbel.hclose(left)
    umbel.hclose(right)
    os.close(read)
    os.close(write)


def test_a_pidfd_for_which_there_is_no_room_takes_nothing_with_it() -> None:
    a, b = socket.socketpair()
    try:
        b.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    except OSError:
        pytest.skip("this kernel has none")
    left, right = umbel.ipc_fromfd(a.detach()), umbel.ipc_fromfd(b.detach())
    before = open_descriptors()
    for room in (1, 0):
        umbel.send_with_fds(left, b"x", [left.fileno()])
        with few_descriptors(room):
            try:
                _, found = umbel.receive_with_fds(right)
            except OSError as error:
                assert (error.errno, room) == (errno.EMFILE, 0)
            else:
                assert (len(found), room) == (1, 1)
                os.close(found[0])
    assert open_descriptors() == before
    umbel.hclose(left)
    umbel.hclose(right)


def test_a_listener_with_a_stream_that_is_kept_cannot_be_moved(
    ends: Ends, tmp_path: Path
) -> None:
    with umbel.ipc_listen(tmp_path / "x.sock") as listener:
        client = umbel.connect(listener.address)
        lookup(listener, Listening).keep(umbel.accept(listener))
        with pytest.raises(umbel.BusyError):
            umbel.send_handle(ends[0], listener)
        umbel.hclose(umbel.accept(listener))
        umbel.hclose(client)


def test_a_handle_that_is_not_wanted_here_breaks_nothing() -> None:
    code = """
import umbel
left, right = umbel.pair("mem")
moving, peer = umbel.pair("ipc")
umbel.send_handle(left, moving)
umbel.bsend(left, b"what follows")
umbel.block("ipc")
try:
    umbel.receive_handle(right)
except umbel.NotSupportedError:
    print(umbel.receive(right))
for handle in (left, right, peer):
    umbel.hclose(handle)
"""
    assert run_python(code) == "b'what follows'\n"


def test_a_peer_of_another_user_cannot_have_a_socket_removed(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sock"
    umbel.send_handle(ends[0], umbel.ipc_listen(path))
    monkeypatch.setattr("umbel.passing.same_user", lambda _: False)

    umbel.hclose(umbel.receive_handle(ends[1], umbel.within(5)))

    assert path.exists()
