"""Bytes through a stream: what is sent is what is received."""

from __future__ import annotations

import array
import asyncio
import errno
import mmap
import os
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

import umbel
from tests.support import (
    Ends,
    calls,
    drain,
    fill,
    have_the_next_wait,
    pattern,
    run_python,
    soon,
    wait_until_blocked,
)
from umbel import Skip, aio
from umbel.sockets import inbound
from umbel.sockets.unread import ask
from umbel.streams.connection import find_connection
from umbel.values.iolist import FIRST_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer

SIZES = [1, 511, 512, 513, 3000, 65535, 65536, 65537]


def test_one_byte_that_was_sent_is_received(ends: Ends) -> None:
    left, right = ends

    umbel.bsend(left, b"x")

    assert umbel.brecv(right, 1) == b"x"


def test_a_first_read_keeps_its_bytes_though_another_process_reads_the_rest(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends

    def tell_and_take(fd: int, what: int) -> int:
        there = ask(fd, what)
        with socket.socket(fileno=os.dup(fd)) as theirs:
            return len(theirs.recv(there))

    umbel.bsend(left, pattern(1000))
    monkeypatch.setattr(inbound, "ask", tell_and_take)
    received = umbel.receive(right)

    assert received == pattern(1000)[:FIRST_SIZE]


def test_sending_nothing_sends_nothing(ends: Ends) -> None:
    left, right = ends

    umbel.bsend(left, b"")
    umbel.bsendl(left, [b"", b""])
    umbel.bsend(left, b"next")

    assert umbel.receive(right) == b"next"


def _mapped(content: bytes) -> mmap.mmap:
    mapped = mmap.mmap(-1, len(content))
    mapped[:] = content
    return mapped


@pytest.mark.parametrize(
    "data",
    [
        b"12345678",
        bytearray(b"12345678"),
        memoryview(b"x12345678x")[1:-1],
        array.array("i", [0x31323334, 0x35363738]),
        memoryview(array.array("d", [1.5])),
        memoryview(b"12345678").cast("B", (2, 4)),
        _mapped(b"12345678"),
    ],
    ids=["bytes", "bytearray", "view", "array", "view of doubles", "matrix", "mmap"],
)
def test_any_contiguous_buffer_is_sent_as_its_bytes(ends: Ends, data: Buffer) -> None:
    left, right = ends

    umbel.bsend(left, data)
    umbel.bsendl(left, [b"<", data, b">"])

    assert umbel.brecv(right, 18) == bytes(data) + b"<" + bytes(data) + b">"


def test_a_buffer_with_gaps_is_refused_and_breaks_nothing(ends: Ends) -> None:
    left, right = ends

    with pytest.raises(BufferError, match="not contiguous"):
        umbel.bsend(left, memoryview(b"abcd")[::2])
    umbel.bsend(left, b"fine")

    assert umbel.brecv(right, 4) == b"fine"


@pytest.mark.parametrize("wrong", ["text", 5, None], ids=["str", "int", "None"])
def test_what_is_no_buffer_is_refused_and_breaks_nothing(
    ends: Ends, wrong: object
) -> None:
    left, right = ends

    with pytest.raises(TypeError):
        umbel.bsend(left, wrong)  # type: ignore[arg-type]
    umbel.bsend(left, b"fine")

    assert umbel.brecv(right, 4) == b"fine"


def test_the_sent_buffer_is_the_callers_again_on_return(ends: Ends) -> None:
    left, right = ends
    buffer = bytearray(b"first")

    umbel.bsend(left, buffer)
    buffer[:] = b"other"
    buffer.extend(b"can be resized: nothing holds it")

    assert umbel.brecv(right, 5) == b"first"


@pytest.mark.parametrize("size", SIZES)
def test_brecv_gives_exactly_what_was_asked_for(ends: Ends, size: int) -> None:
    left, right = ends
    data = pattern(size + 7)

    with umbel.bundle() as sending:
        for start in range(0, len(data), 512):
            sending.go(umbel.bsend, left, data[start : start + 512])
            umbel.yield_()
        received = umbel.brecv(right, size)

    assert received == data[:size]
    assert umbel.brecv(right, 7) == data[size:]


@pytest.mark.parametrize("size", SIZES)
def test_brecv_fills_exactly_the_buffer(ends: Ends, size: int) -> None:
    left, right = ends
    buffer = bytearray(size)

    with umbel.bundle() as sending:
        sending.go(umbel.bsend, left, pattern(size + 1))
        result: object = umbel.brecv(right, buffer)
        rest = umbel.brecv(right, 1)

    assert result is None
    assert buffer + rest == pattern(size + 1)


def test_brecv_fills_buffers_of_any_item_size(ends: Ends) -> None:
    left, right = ends
    numbers = array.array("i", [0, 0])
    mapped = mmap.mmap(-1, 8)

    umbel.bsend(left, array.array("i", [7, 8]))
    umbel.bsend(left, b"12345678")
    umbel.brecv(right, numbers)
    umbel.brecv(right, mapped)

    assert list(numbers) == [7, 8]
    assert mapped[:] == b"12345678"
    mapped.close()


def test_a_read_only_target_is_refused_and_breaks_nothing(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"fine")

    with pytest.raises(TypeError, match="read-only"):
        umbel.brecv(right, memoryview(b"1234"))
    with pytest.raises(TypeError, match="read-only"):
        # And a checker rejects it: mypy would complain of an ignore without need.
        umbel.brecv(right, b"1234")  # type: ignore[call-overload]

    assert umbel.brecv(right, 4) == b"fine"


def test_brecv_of_nothing_returns_at_once(ends: Ends) -> None:
    _, right = ends

    assert umbel.brecv(right, 0, 0) == b""
    umbel.brecv(right, bytearray(), 0)
    umbel.brecv(right, Skip(0), 0)


@pytest.mark.parametrize("count", [-1, -(2**40)])
def test_a_negative_count_is_einval_and_breaks_nothing(ends: Ends, count: int) -> None:
    left, right = ends
    umbel.bsend(left, b"fine")

    for call in calls(
        lambda: umbel.brecv(right, count),
        lambda: umbel.receive(right, count),
        lambda: Skip(count),
    ):
        with pytest.raises(OSError, match="give") as caught:
            call()
        assert caught.value.errno == errno.EINVAL

    assert umbel.brecv(right, 4) == b"fine"


@pytest.mark.parametrize("size", [0, -1])
def test_receive_of_no_bytes_is_einval_and_says_what_to_give(
    ends: Ends, size: int
) -> None:
    _, right = ends

    with pytest.raises(OSError, match=f"max_bytes is {size}: give 1 or more") as caught:
        umbel.receive(right, size)

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("wrong", [1.5, "3", None], ids=["float", "str", "None"])
def test_a_count_of_the_wrong_type_is_a_type_error(ends: Ends, wrong: object) -> None:
    _, right = ends

    for call in calls(
        lambda: umbel.brecv(right, wrong),  # type: ignore[call-overload]
        lambda: umbel.receive(right, wrong),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        Skip(wrong)  # type: ignore[arg-type]


def test_skip_throws_bytes_away(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"unwanted|wanted")

    umbel.brecv(right, Skip(9))

    assert umbel.brecv(right, 6) == b"wanted"


def test_skip_works_inside_a_list(ends: Ends) -> None:
    left, right = ends
    first, second = bytearray(2), bytearray(3)
    umbel.bsend(left, b"AB....CDE")

    umbel.brecvl(right, [first, Skip(4), second])

    assert first + second == b"ABCDE"


def test_a_skip_longer_than_any_buffer_is_bounded_in_memory(ends: Ends) -> None:
    left, right = ends

    with umbel.bundle() as both:
        both.go(umbel.bsend, left, bytes(3 << 20) + b"!")
        umbel.brecv(right, Skip(3 << 20))

        assert umbel.brecv(right, 1) == b"!"


@pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
@pytest.mark.parametrize("call", [umbel.bsendl, umbel.brecvl], ids=["send", "receive"])
def test_an_empty_list_is_einval_and_breaks_nothing(
    ends: Ends, call: object, make: Callable[[list[object]], object]
) -> None:
    left, right = ends

    with pytest.raises(OSError, match="empty") as caught:
        call(left, make([]))  # type: ignore[operator]
    umbel.bsend(left, b"a")
    umbel.bsend(right, b"b")

    assert caught.value.errno == errno.EINVAL
    assert umbel.brecv(left, 1) + umbel.brecv(right, 1) == b"ba"


def test_a_single_buffer_where_a_list_is_due_is_a_type_error(ends: Ends) -> None:
    left, _ = ends

    with pytest.raises(TypeError, match="list"):
        umbel.bsendl(left, b"abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list"):
        umbel.brecvl(left, bytearray(3))  # type: ignore[arg-type]


def test_lists_longer_than_iov_max_go_through(ends: Ends) -> None:
    left, right = ends
    pieces = [b"%07d" % i for i in range(os.sysconf("SC_IOV_MAX") * 3)]
    targets = [bytearray(7) for _ in pieces]

    with umbel.bundle() as both:
        both.go(umbel.bsendl, left, pieces)
        umbel.brecvl(right, targets)

    assert targets == pieces


@pytest.mark.slow
def test_a_piece_costs_no_more_in_a_list_that_is_longer(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends
    few, many = [b"x"] * 25_000, [b"x"] * 400_000
    reading = threads.submit(umbel.brecv, right, Skip(2 * len(many)))

    began = time.thread_time()
    for _ in range(len(many) // len(few)):
        umbel.bsendl(left, few)
    middle = time.thread_time()
    umbel.bsendl(left, many)
    ended = time.thread_time()

    assert ended - middle < 3 * (middle - began)
    reading.result(20)


def test_a_list_with_large_and_empty_pieces_keeps_its_order(ends: Ends) -> None:
    left, right = ends
    pieces = [b"", pattern(1 << 20), b"", b"x", pattern(1 << 20), b""]

    with umbel.bundle() as both:
        both.go(umbel.bsendl, left, pieces)
        received = umbel.brecv(right, (2 << 20) + 1)

    assert received == b"".join(pieces)


@pytest.mark.slow
def test_64_mib_arrive_whole_at_a_slow_reader(ends: Ends) -> None:
    left, right = ends
    data = pattern(1 << 20) * 64

    with umbel.bundle() as both:
        both.go(umbel.bsend, left, data)
        received = bytearray()
        while len(received) < len(data):
            received += umbel.receive(right, 100_000)
            umbel.yield_()

    assert received == data


def test_both_directions_at_once_do_not_disturb_each_other(ends: Ends) -> None:
    chooser = random.Random(7)

    def talk(mine: umbel.StreamHandle) -> None:
        data = memoryview(pattern(1 << 20))
        while data:
            size = chooser.randint(1, 40_000)
            umbel.bsend(mine, data[:size])
            data = data[size:]
        umbel.done(mine)

    with umbel.bundle() as talking:
        for end in ends:
            talking.go(talk, end)
        left, right = drain(ends[0]), drain(ends[1])

    assert left == right == pattern(1 << 20)


def test_a_thousand_questions_get_their_own_answers(ends: Ends) -> None:
    left, right = ends

    def answer() -> None:
        for _ in range(1000):
            umbel.bsend(right, umbel.brecv(right, 4)[::-1])

    with umbel.bundle() as answering:
        answering.go(answer)
        for i in range(1000):
            question = i.to_bytes(4, "big")
            umbel.bsend(left, question)
            assert umbel.brecv(left, 4) == question[::-1]


def test_receive_gives_what_there_is_and_no_more_than_asked(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"abcdef")

    assert umbel.receive(right, 4) == b"abcd"
    assert umbel.receive(right, 4) == b"ef"


def test_receive_waits_for_the_first_byte(ends: Ends) -> None:
    left, right = ends

    with umbel.bundle() as both:
        both.go(lambda: umbel.bsend(left, umbel.receive(left) + b"!"))
        umbel.bsend(right, b"hello")

        assert umbel.receive(right) == b"hello!"


def test_a_stream_is_iterated_to_its_end(ends: Ends) -> None:
    left, right = ends

    umbel.bsend(left, b"abc")
    left.done()

    assert list(right) == [b"abc"]


def test_send_and_receive_work_at_once_from_two_threads(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends
    data = pattern(5 << 20)

    sending = threads.submit(umbel.bsend, left, data)
    echoing = threads.submit(lambda: umbel.bsend(right, umbel.brecv(right, len(data))))
    received = umbel.brecv(left, len(data))

    sending.result()
    echoing.result()
    assert received == data


def test_a_second_receiver_is_ebusy_and_the_first_undisturbed(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends
    first = threads.submit(umbel.brecv, right, 3)
    wait_until_blocked(right)

    for call in calls(
        lambda: umbel.brecv(right, 1),
        lambda: umbel.receive(right),
        lambda: umbel.ipc_recvfd(right),
    ):
        with pytest.raises(umbel.BusyError) as caught:
            call()
        assert caught.value.errno == errno.EBUSY
    umbel.bsend(left, b"abc")

    assert first.result() == b"abc"


def test_a_second_sender_is_ebusy_and_the_first_undisturbed(ends: Ends) -> None:
    left, right = ends
    data = pattern(4 << 20)

    with umbel.bundle() as sending:
        sending.go(umbel.bsend, left, data)
        with pytest.raises(umbel.BusyError):
            umbel.bsend(left, b"x")
        with pytest.raises(umbel.BusyError):
            umbel.bsendl(left, [b"x"])
        with pytest.raises(umbel.BusyError):
            umbel.done(left)
        with pytest.raises(umbel.BusyError):
            umbel.flush(left, 0)
        received = umbel.brecv(right, len(data))

    assert received == data
    umbel.bsend(left, b"still good")


def test_a_brecv_that_finds_its_descriptor_busy_breaks_nothing(ends: Ends) -> None:
    left, right = ends
    waiting = umbel.go(umbel.fdin, left.fileno())

    with pytest.raises(umbel.BusyError):
        umbel.brecv(left, 2)

    umbel.bsend(right, b"yz")
    umbel.bundle_wait(waiting, soon())
    umbel.hclose(waiting)
    assert umbel.brecv(left, 2, soon()) == b"yz"


def test_but_one_that_has_some_of_its_bytes_breaks(ends: Ends) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(left, 1, umbel.within(0.001))  # all events have been seen
    waiting = umbel.go(umbel.fdin, left.fileno())

    umbel.bsend(right, b"x")
    find_connection(left).readiness.is_drained = False
    with pytest.raises(umbel.BusyError):
        umbel.brecv(left, 2)

    umbel.bsend(right, b"y")
    umbel.bundle_wait(waiting, soon())
    umbel.hclose(waiting)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.brecv(left, 2)


def test_flush_returns_once_the_peer_has_read_everything(ends: Ends) -> None:
    left, right = ends
    order: list[int] = []
    umbel.bsend(left, bytes(100_000))

    def read() -> None:
        while sum(order) < 100_000:
            order.append(len(umbel.receive(right, 30_000)))

    with umbel.bundle() as reading:
        with pytest.raises(umbel.DeadlineError):
            umbel.flush(left, 0)
        reading.go(read)
        umbel.flush(left)

        assert sum(order) == 100_000


def test_flush_ends_at_its_deadline_and_rests_where_readiness_is_no_edge() -> None:
    code = """
import time, umbel
left, right = umbel.pair("mem")
umbel.bsend(left, b"unread")
began = time.process_time()
try:
    umbel.flush(left, umbel.within(0.2))
except umbel.DeadlineError:
    print("late", time.process_time() - began < 0.15)
umbel.hclose(left)
umbel.hclose(right)
"""
    assert run_python(code, UMBEL_POLLER="poll") == "late True\n"


def test_flush_fails_when_the_peer_goes_without_reading(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"unread")

    umbel.hclose(right)

    with pytest.raises(umbel.BrokenStreamError):
        umbel.flush(left)


def test_flush_waits_for_the_peer_also_after_done(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"x")

    umbel.done(left)

    with pytest.raises(umbel.DeadlineError):
        umbel.flush(left, umbel.within(0.01))
    assert umbel.receive(right) == b"x"
    umbel.flush(left, soon())


def test_methods_do_what_the_functions_do(ends: Ends, scheme: str) -> None:
    left, right = ends

    left.send(b"abcdef")
    left.done()

    assert right.receive(2) == b"ab"
    assert right.receive_exactly(4) == b"cdef"
    assert right.receive() == b""
    assert os.fstat(right.fileno()) is not None
    assert right.address.scheme == scheme
    right.abort()
    with pytest.raises(umbel.BadHandleError):
        right.receive()


def test_a_full_buffer_is_reported_with_the_bytes_that_went(ends: Ends) -> None:
    left, right = ends

    sent = fill(left)

    assert sent > 0
    assert len(umbel.brecv(right, sent)) == sent
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(right, 1, 0)


def test_transfers_grow_the_send_buffer_of_ipc_unless_told_otherwise() -> None:
    rooms = []
    for size in (0, 1 << 20):
        left, right = umbel.pair("ipc", buffer_size=size)
        rooms.append(fill(left))
        umbel.hclose(left)
        umbel.hclose(right)

    assert rooms[1] > 2 * rooms[0]


def test_so_do_those_of_streams_that_are_accepted(tmp_path: Path) -> None:
    rooms = []
    for size in (0, 1 << 20):
        address = f"ipc:{tmp_path}/x.sock"
        with umbel.listen(address, buffer_size=size) as listener:
            client = umbel.connect(address)
            server = umbel.accept(listener)
        rooms.append(fill(server))
        umbel.hclose(client)
        umbel.hclose(server)

    assert rooms[1] > 2 * rooms[0]


def test_who_only_sends_lets_others_run(ends: Ends) -> None:
    sent = 0
    has_run = False

    def send() -> None:
        nonlocal sent
        fd = ends[1].fileno()
        while not has_run and sent < 10_000:
            umbel.bsend(ends[0], b"x")
            os.read(fd, 1)  # so that there is always room
            sent += 1

    def run() -> None:
        nonlocal has_run
        umbel.yield_()
        has_run = True

    with umbel.bundle() as both:
        both.go(run)
        both.go(send)

    assert sent < 1_000


@pytest.mark.parametrize("nothing", [0, bytearray(), Skip(0)], ids=str)
def test_who_asks_for_nothing_gets_it_whatever_the_state(
    ends: Ends, nothing: int | bytearray | Skip
) -> None:
    left, right = ends
    umbel.done(right)
    assert umbel.receive(left) == b""

    assert not umbel.brecv(left, nothing)
    umbel.brecvl(left, [bytearray(), Skip(0)])


@pytest.mark.parametrize("bad", [cast("int", None), cast("int", "5"), cast("int", 0.5)])
def test_what_is_no_deadline_is_told_as_such_and_loses_nothing(
    ends: Ends, bad: int
) -> None:
    left, right = ends

    async def receive() -> None:
        await aio.receive(left, deadline=bad)

    for call in (
        lambda: umbel.receive(left, deadline=bad),
        lambda: umbel.msleep(bad),
        lambda: umbel.fdin(left.fileno(), bad),
        lambda: asyncio.run(receive()),
    ):
        with pytest.raises(TypeError, match=r"a deadline is an int.*within\(seconds\)"):
            call()
    umbel.bsend(right, b"x")
    assert umbel.receive(left, deadline=soon()) == b"x"
