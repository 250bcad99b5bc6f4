"""Waiting for descriptors of the program's own."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import umbel
from tests.support import Ends, calls, fill, lateness, soon, wait_until
from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel.errors import Canceled
from umbel.fd import _lent
from umbel.spi import Readiness, WaitQueue

Pipe = tuple[int, int]
Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = os.pipe()
    yield found
    for fd in found:
        try:
            os.close(fd)
        except OSError:
            pass  # the test did


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def leave_no_room(sock: socket.socket) -> None:
    with suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def test_fdin_returns_when_there_is_something_to_read(pipe: Pipe) -> None:
    read_end, write_end = pipe
    got: list[bytes] = []

    def read() -> None:
        umbel.fdin(read_end)
        got.append(os.read(read_end, 10))

    with umbel.go(read):
        os.write(write_end, b"x")

    assert got == [b"x"]


def test_fdin_returns_at_once_when_something_is_there(pipe: Pipe) -> None:
    os.write(pipe[1], b"x")

    for _ in range(3):  # level, not edge: it is still there
        umbel.fdin(pipe[0], 0)


def test_fdin_returns_on_a_hang_up(pipe: Pipe) -> None:
    os.close(pipe[1])

    umbel.fdin(pipe[0], 0)


def test_what_has_ended_once_and_was_opened_again_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    readiness = Readiness(reader)
    closing = threading.Timer(0.05, os.close, (writer,))
    closing.start()
    readiness.wait_in(soon())
    assert os.read(reader, 1) == b""
    closing.join()

    readiness.wait_in(soon())  # it has ended still
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    with suppress(umbel.DeadlineError):
        readiness.wait_in(umbel.within(0.01))  # it may end early, once
    with pytest.raises(umbel.DeadlineError):
        readiness.wait_in(umbel.within(0.01))
    os.write(writer, b"x")
    readiness.wait_in(soon())
    assert os.read(reader, 1) == b"x"

    readiness.forget()
    os.close(reader)
    os.close(writer)


def test_fdout_returns_when_there_is_room_again(pipe: Pipe) -> None:
    read_end, write_end = pipe
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, bytes(65536))
    except BlockingIOError:
        pass  # it is full
    with pytest.raises(umbel.DeadlineError):
        umbel.fdout(write_end, 0)

    with umbel.go(umbel.fdout, write_end):
        os.read(read_end, 65536)

    assert os.write(write_end, b"x") == 1


def test_waiting_ends_at_the_deadline(pipe: Pipe) -> None:
    assert lateness(lambda until: umbel.fdin(pipe[0], until)) <= 20


def test_deadline_0_polls(pipe: Pipe) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.fdin(pipe[0], 0)
    umbel.fdout(pipe[1], 0)


def test_a_closed_descriptor_is_ebadf(pipe: Pipe) -> None:
    os.close(pipe[0])

    for call in calls(lambda: umbel.fdin(pipe[0]), lambda: umbel.fdout(pipe[0], 0)):
        with pytest.raises(OSError, match="not open") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_a_second_waiter_is_ebusy_and_the_first_undisturbed(pipe: Pipe) -> None:
    got: list[str] = []

    def wait() -> None:
        umbel.fdin(pipe[0])
        got.append("first")

    with umbel.go(wait):
        with pytest.raises(umbel.BusyError):
            umbel.fdin(pipe[0])
        with pytest.raises(umbel.BusyError):
            umbel.fdclean(pipe[0])
        os.write(pipe[1], b"x")

    assert got == ["first"]


def test_both_directions_can_be_waited_for_at_once() -> None:
    a, b = socket.socketpair()
    order: list[str] = []

    def wait_in() -> None:
        umbel.fdin(a.fileno())
        order.append("in")

    with a, b, umbel.go(wait_in):
        umbel.fdout(a.fileno())
        order.append("out")
        b.send(b"x")

    assert order == ["out", "in"]


def test_who_has_waited_in_one_direction_leaves_the_other_to_wait(
    sockets: Sockets,
) -> None:
    ours, theirs = sockets
    leave_no_room(ours)
    writing = umbel.go(umbel.fdout, ours.fileno())
    reading = umbel.go(umbel.fdin, ours.fileno())

    theirs.send(b"x")
    umbel.bundle_wait(reading, soon())
    theirs.recv(1 << 20)

    umbel.bundle_wait(writing, soon())
    umbel.hclose(reading)
    umbel.hclose(writing)


def test_a_wait_leaves_no_registration_behind(pipe: Pipe) -> None:
    for call in calls(
        lambda: umbel.fdin(pipe[0], umbel.within(0.005)),
        lambda: umbel.hclose(umbel.go(umbel.fdin, pipe[0])),
        lambda: umbel.fdout(pipe[1]),
    ):
        try:
            call()
        except umbel.DeadlineError:
            pass

        assert current_hub().watches.find(pipe[0]) is None
        assert current_hub().watches.find(pipe[1]) is None


def test_a_wait_leaves_nothing_lent(pipe: Pipe) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.fdin(pipe[0], umbel.within(0.01))
    os.close(pipe[0])

    assert not _lent.get(pipe[0])


def test_a_descriptor_that_was_closed_and_came_back_is_a_new_one(pipe: Pipe) -> None:
    read_end, write_end = pipe
    with pytest.raises(umbel.DeadlineError):
        umbel.fdin(read_end, umbel.within(0.005))
    umbel.fdclean(read_end)
    os.close(read_end)
    os.close(write_end)

    again, other = os.pipe()
    assert again == read_end
    with umbel.go(umbel.fdin, again):
        os.write(other, b"x")


def test_a_regular_file_is_always_ready(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)

    umbel.fdin(fd, 0)
    umbel.fdout(fd, 0)

    os.close(fd)


def test_waiting_for_a_streams_descriptor_leaves_the_stream_usable(ends: Ends) -> None:
    left, right = ends

    with umbel.go(umbel.fdin, right.fileno()):
        umbel.bsend(left, b"x")
    assert umbel.receive(right) == b"x"

    with umbel.go(umbel.receive, right):
        with pytest.raises(umbel.BusyError, match="waits for that descriptor"):
            umbel.fdin(right.fileno())
        umbel.bsend(left, b"y")


def test_a_canceled_wait_is_ecanceled_again(pipe: Pipe) -> None:
    caught: list[int] = []

    def wait() -> None:
        for _ in range(2):
            with pytest.raises(umbel.Canceled) as error:
                umbel.fdin(pipe[0])
            caught.append(error.value.errno)

    umbel.hclose(umbel.go(wait))

    assert caught == [errno.ECANCELED] * 2


def test_who_was_canceled_and_has_yet_to_leave_keeps_nobody_from_waiting(
    pipe: Pipe,
) -> None:
    hub = current_hub()
    waiter: list[Coroutine] = []

    def wait() -> None:
        waiter.append(hub.current)
        umbel.fdin(pipe[0])

    waiting = umbel.go(wait)
    hub.interrupt(waiter[0], Canceled())

    with pytest.raises(umbel.DeadlineError):
        umbel.fdin(pipe[0], umbel.within(0.01))
    umbel.hclose(waiting)


@pytest.mark.skipif(
    os.environ.get("UMBEL_POLLER") == "poll", reason="it reports in another order"
)
def test_an_edge_that_comes_with_a_cancellation_is_left_to_the_next_receiver(
    pipe: Pipe,
) -> None:
    left, right = umbel.ipc_pair()
    receiver = umbel.go(umbel.receive, left)

    def cancel() -> None:
        umbel.fdin(pipe[0])
        umbel.hclose(receiver)

    with umbel.go(cancel):
        umbel.msleep(umbel.now())  # a look that takes in the edges of being watched
        # The next look sees both, and whoever is woken first runs first.
        os.write(pipe[1], b"x")
        umbel.bsend(right, b"y")

    assert umbel.receive(left, 1, umbel.within(20)) == b"y"
    umbel.hclose(left)
    umbel.hclose(right)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_an_edge_that_comes_with_a_cancellation_is_left_to_the_next_wait(
    sockets: Sockets, direction: str
) -> None:
    ours, theirs = sockets
    readiness = Readiness(ours.fileno())
    wait = readiness.wait_in if direction == "in" else readiness.wait_out
    leave_no_room(ours)

    def use_up() -> None:
        while True:
            wait(umbel.within(0.01))

    with pytest.raises(umbel.DeadlineError):
        use_up()

    waiting = umbel.go(wait, -1)
    if direction == "in":
        theirs.send(b"x")
    else:
        theirs.recv(1 << 20)
    current_hub().collect(0)
    umbel.hclose(waiting)

    wait(soon())
    readiness.forget()


def test_a_wake_up_since_the_ticket_ends_a_wait_at_once() -> None:
    queue = WaitQueue()
    ticket = queue.ticket()

    queue.wake_all()

    queue.wait(ticket, soon())


def wait_in(queue: WaitQueue, woken: list[int], number: int) -> None:
    queue.wait(queue.ticket(), soon())
    woken.append(number)


def test_one_wake_up_is_for_the_first_who_waits() -> None:
    queue = WaitQueue()
    woken: list[int] = []
    waiting = umbel.bundle()
    for number in range(3):
        waiting.go(wait_in, queue, woken, number)

    queue.wake_one()
    umbel.yield_()

    assert woken == [0]
    queue.wake_all()
    waiting.wait(soon())
    assert woken == [0, 1, 2]
    umbel.hclose(waiting)


def test_the_one_wake_up_of_who_is_canceled_is_for_the_next() -> None:
    queue = WaitQueue()
    woken: list[int] = []
    first = umbel.go(wait_in, queue, woken, 1)
    second = umbel.go(wait_in, queue, woken, 2)

    queue.wake_one()
    umbel.hclose(first)
    second.wait(soon())

    assert woken == [2]
    umbel.hclose(second)


# On a stream's own descriptor.


def receive_once(ends: Ends) -> None:
    """Have the hub watch the first end, as any receive that waited has it do."""
    with umbel.go(umbel.receive, ends[0]):
        umbel.bsend(ends[1], b"x")


def test_fdin_on_a_streams_descriptor_leaves_the_stream_its_edge(ends: Ends) -> None:
    receive_once(ends)
    got: list[bytes] = []

    def look_and_receive() -> None:
        umbel.fdin(ends[0].fileno(), umbel.within(20))
        got.append(umbel.brecv(ends[0], 1, umbel.within(5)))

    with umbel.go(look_and_receive):
        umbel.bsend(ends[1], b"y")

    assert got == [b"y"]


def test_a_stream_that_was_busy_with_fdin_goes_on_as_ever(ends: Ends) -> None:
    with umbel.go(umbel.fdin, ends[0].fileno()):
        with pytest.raises(umbel.BusyError):
            umbel.receive(ends[0], deadline=umbel.within(5))
        with pytest.raises(umbel.BusyError):
            umbel.brecv(ends[0], 1, umbel.within(5))
        umbel.bsend(ends[1], b"x")

    assert umbel.brecv(ends[0], 1, umbel.within(5)) == b"x"  # nothing is broken
    got: list[bytes] = []
    with umbel.go(lambda: got.append(umbel.receive(ends[0], 9, umbel.within(5)))):
        umbel.bsend(ends[1], b"y")
    assert got == [b"y"]


def test_fdclean_leaves_a_streams_own_watch_alone(ends: Ends) -> None:
    receive_once(ends)

    umbel.fdclean(ends[0].fileno())

    got: list[bytes] = []
    with umbel.go(lambda: got.append(umbel.receive(ends[0], 9, umbel.within(5)))):
        umbel.bsend(ends[1], b"y")
    assert got == [b"y"]


def wait_and_tell(stream: umbel.StreamHandle, told: list[type[BaseException]]) -> None:
    try:
        umbel.fdin(stream.fileno(), umbel.within(20))
    except umbel.BadHandleError as error:
        told.append(type(error))


@pytest.mark.parametrize("has_waited", [True, False])
def test_closing_a_stream_wakes_who_waits_for_its_descriptor(
    ends: Ends, has_waited: bool
) -> None:
    if has_waited:
        receive_once(ends)
    told: list[type[BaseException]] = []

    waiting = umbel.go(wait_and_tell, ends[0], told)
    umbel.hclose(ends[0])
    umbel.bundle_wait(waiting, umbel.within(5))
    umbel.hclose(waiting)

    assert told == [umbel.BadHandleError]


@pytest.mark.parametrize("has_waited", [True, False])
def test_closing_a_stream_wakes_who_waits_for_its_descriptor_in_another_thread(
    ends: Ends, has_waited: bool
) -> None:
    if has_waited:
        receive_once(ends)
    told: list[type[BaseException]] = []
    hubs: list[Hub] = []

    def wait() -> None:
        hubs.append(current_hub())
        wait_and_tell(ends[0], told)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: hubs and hubs[0].main.is_parked, "the wait")
    umbel.hclose(ends[0])
    waiter.join(5)

    assert not waiter.is_alive()
    assert told == [umbel.BadHandleError]


def test_closing_a_stream_wakes_who_waits_for_room_in_its_descriptor(
    ends: Ends,
) -> None:
    fill(ends[0])

    waiting = umbel.go(umbel.fdout, ends[0].fileno())
    umbel.hclose(ends[0])

    with pytest.raises(ExceptionGroup) as caught:
        umbel.bundle_wait(waiting, soon())
    assert isinstance(caught.value.exceptions[0], umbel.BadHandleError)
    umbel.hclose(waiting)


def test_who_waited_for_a_closed_stream_leaves_a_new_one_its_watch(
    ends: Ends, sockets: Sockets
) -> None:
    number = ends[0].fileno()
    waiting = umbel.go(umbel.fdin, number)
    umbel.hclose(ends[0])  # it is told, and has yet to leave
    new = umbel.ipc_fromfd(os.dup2(sockets[0].fileno(), number))
    receiving = umbel.go(umbel.brecv, new, 1)  # watches that number

    with pytest.raises(ExceptionGroup):
        umbel.bundle_wait(waiting)
    sockets[1].send(b"x")

    umbel.bundle_wait(receiving, soon())
    for handle in (waiting, receiving, new):
        umbel.hclose(handle)


@pytest.mark.parametrize("fd", [-1, 1 << 40])
def test_what_can_be_no_descriptor_is_ebadf(fd: int) -> None:
    for call in calls(lambda: umbel.fdin(fd), lambda: umbel.fdout(fd)):
        with pytest.raises(OSError, match="no descriptor") as caught:
            call()
        assert caught.value.errno == errno.EBADF
