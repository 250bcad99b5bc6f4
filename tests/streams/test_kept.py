"""The hub receives for who waits; what a canceled one left is given to the next."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import umbel
from tests.support import Ends, have_the_next_wait, is_blocked, pattern, soon, turn
from umbel import aio
from umbel._kernel.current import current_hub
from umbel._kernel.hub import Hub
from umbel._kernel.watch import MOST_CAUGHT, Watch
from umbel.bridges import as_socket
from umbel.spi import Readiness
from umbel.streams.connection import find_connection


def cancel_in_the_moment(left: umbel.StreamHandle, right: umbel.StreamHandle) -> None:
    """Have "kept" come for a receive on *left* that is canceled before it goes on."""
    have_the_next_wait(left, right)

    def receive() -> None:
        with pytest.raises(umbel.Canceled):
            umbel.receive(left)

    receiving = umbel.go(receive)
    umbel.bsend(right, b"kept")
    current_hub().collect(0)
    umbel.hclose(receiving)
    assert find_connection(left).kept == b"kept"


def tell_once(
    monkeypatch: pytest.MonkeyPatch, stream: umbel.StreamHandle, error: OSError
) -> None:
    """Have the next attempt to receive raise *error*, and later ones find the end."""
    errors = [error]

    def receive(_: int) -> bytes:
        if errors:
            raise errors.pop()
        return b""

    monkeypatch.setattr(find_connection(stream), "try_receive", receive)


def test_the_next_receive_gives_it(ends: Ends) -> None:
    left, right = ends

    cancel_in_the_moment(left, right)
    umbel.bsend(right, b"next")

    assert umbel.receive(left, 3) == b"kep"
    assert umbel.receive(left) == b"t"
    assert umbel.receive(left) == b"next"
    umbel.bsend(right, b"last")
    assert umbel.receive(left) == b"last"


def test_it_may_happen_again(ends: Ends) -> None:
    left, right = ends

    for _ in range(3):
        cancel_in_the_moment(left, right)
        assert umbel.receive(left) == b"kept"


def test_receiving_so_many_bytes_begins_with_it(ends: Ends) -> None:
    left, right = ends

    cancel_in_the_moment(left, right)
    umbel.bsend(right, b"next")

    assert umbel.brecv(left, 6) == b"keptne"
    assert umbel.brecv(left, 2) == b"xt"


def test_filling_buffers_begins_with_it(ends: Ends) -> None:
    left, right = ends
    front, back = bytearray(2), bytearray(4)

    cancel_in_the_moment(left, right)
    umbel.bsend(right, b"next")
    umbel.brecvl(left, [front, umbel.Skip(1), back])

    assert bytes(front + back) == b"ketnex"


def test_descriptors_come_with_the_data_behind_it(ends: Ends) -> None:
    left, right = ends
    mine, sent = os.pipe()

    cancel_in_the_moment(left, right)
    umbel.send_with_fds(right, b"f", [sent])

    assert umbel.receive_with_fds(left) == (b"kept", [])
    data, received = umbel.receive_with_fds(left)
    assert data == b"f"
    for descriptor in (mine, sent, *received):
        os.close(descriptor)


@pytest.mark.parametrize("is_first", [False, True], ids=["for long", "for the first"])
@pytest.mark.parametrize("is_awaited", [False, True])
def test_where_descriptors_are_passed_nothing_is_received_ahead(
    ends: Ends, *, is_awaited: bool, is_first: bool
) -> None:
    left, right = ends
    mine, sent = os.pipe()

    def pass_one() -> None:
        umbel.send_with_fds(left, b"we do", [sent])
        umbel.receive(right)

    if not is_first:
        pass_one()
    have_the_next_wait(left, right)

    def cancel_a_receive() -> None:
        receiving = umbel.go(umbel.receive, left)
        if is_first:
            pass_one()
        umbel.send_with_fds(right, b"f", [sent])
        current_hub().collect(0)
        umbel.hclose(receiving)

    async def cancel_a_task() -> None:
        receiving = asyncio.ensure_future(aio.receive(left))
        await asyncio.sleep(0)
        if is_first:
            pass_one()
        umbel.send_with_fds(right, b"f", [sent])
        turn()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving

    if is_awaited:
        asyncio.run(cancel_a_task())
    else:
        cancel_a_receive()

    data, received = umbel.receive_with_fds(left, deadline=umbel.within(10))
    assert (data, len(received)) == (b"f", 1)
    for descriptor in (mine, sent, *received):
        os.close(descriptor)


def test_nor_by_the_first_receive_after_a_descriptor_has_passed(ends: Ends) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    mine, sent = os.pipe()
    umbel.send_with_fds(left, b"we do", [sent])

    receiving = umbel.go(umbel.receive, left)
    umbel.send_with_fds(right, b"f", [sent])
    current_hub().collect(0)
    umbel.hclose(receiving)
    data, received = umbel.receive_with_fds(left, deadline=soon())

    assert (data, len(received)) == (b"f", 1)
    for descriptor in (mine, sent, *received):
        os.close(descriptor)


def test_nor_by_one_that_waits_in_another_thread(ends: Ends) -> None:
    left, right = ends
    have_the_next_wait(left, right)  # in this thread, whose watch comes first
    with umbel.go(umbel.receive, left):
        umbel.bsend(right, b"-")
    mine, sent = os.pipe()
    has_begun, has_come = threading.Event(), threading.Event()

    def receive() -> tuple[bytes, list[int]]:
        receiving = umbel.go(umbel.receive, left)
        has_begun.set()
        assert has_come.wait(10)
        current_hub().collect(0)
        umbel.hclose(receiving)
        return umbel.receive_with_fds(left, deadline=soon())

    with ThreadPoolExecutor(1) as threads:
        receiving = threads.submit(receive)
        assert has_begun.wait(10)
        umbel.send_with_fds(left, b"we do", [sent])
        umbel.send_with_fds(right, b"f", [sent])
        has_come.set()
        data, received = receiving.result()

    assert (data, len(received)) == (b"f", 1)
    for descriptor in (mine, sent, *received):
        os.close(descriptor)


@pytest.mark.parametrize("verb", ["receive", "brecv"])
def test_a_task_that_begins_in_that_moment_begins_with_it(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    left, right = ends
    connection = find_connection(left)
    connection.readiness.is_drained = True
    watch_in = Readiness.watch_in

    def keep_and_watch(readiness: Readiness, hub: Hub) -> Watch:
        # As a receive of another thread's does that is canceled just now.
        monkeypatch.undo()
        connection.keep(b"kept")
        return watch_in(readiness, hub)

    umbel.bsend(right, b"next")
    monkeypatch.setattr(Readiness, "watch_in", keep_and_watch)
    receiving = getattr(aio, verb)(left, 4)

    assert asyncio.run(receiving) == b"kept"
    assert umbel.receive(left) == b"next"


def test_an_orderly_close_counts_it_as_discarded(ends: Ends) -> None:
    left, right = ends

    cancel_in_the_moment(left, right)
    umbel.done(right)

    assert umbel.close(left).discarded == len(b"kept")


def test_it_goes_along_to_another_process(ends: Ends) -> None:
    here, there = umbel.ipc_pair()
    left, right = ends

    cancel_in_the_moment(left, right)
    umbel.bsend(right, b"next")
    umbel.send_handle(here, left)
    moved = umbel.receive_handle(there)
    assert isinstance(moved, umbel.StreamHandle)

    assert umbel.brecv(moved, 8) == b"keptnext"
    umbel.bsend(moved, b"back")
    assert umbel.receive(right) == b"back"
    for handle in (here, there, moved):
        umbel.hclose(handle)


def test_a_socket_cannot_take_it_along(ends: Ends) -> None:
    left, right = ends

    cancel_in_the_moment(left, right)

    with pytest.raises(umbel.BusyError, match="receive them first"):
        as_socket(left)
    assert umbel.receive(left) == b"kept"
    as_socket(left).close()


def test_a_task_that_is_canceled_in_the_moment_loses_nothing(ends: Ends) -> None:
    left, right = ends

    async def main() -> bytes:
        await aio.bsend(right, b"-")
        await aio.receive(left)
        receiving = asyncio.ensure_future(aio.receive(left))
        await asyncio.sleep(0)
        await aio.bsend(right, b"kept")
        turn()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert find_connection(left).kept == b"kept"
        await aio.bsend(right, b"next")
        return await aio.brecv(left, 8)

    assert asyncio.run(main()) == b"keptnext"


def test_a_reset_that_a_canceled_task_was_to_be_told_is_told_to_the_next(
    ends: Ends,
) -> None:
    left, right = ends

    async def main() -> None:
        await aio.bsend(right, b"-")
        await aio.receive(left)
        await aio.bsend(left, b"never read")
        receiving = asyncio.ensure_future(aio.receive(left))
        await asyncio.sleep(0)
        umbel.hclose(right)
        turn()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        with pytest.raises(umbel.BrokenStreamError):
            await aio.receive(left)

    asyncio.run(main())


def test_so_is_one_that_only_the_hubs_attempt_was_told(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    tell_once(monkeypatch, left, umbel.BrokenStreamError())

    async def main() -> None:
        receiving = asyncio.create_task(aio.receive(left))
        while not is_blocked(left):
            await asyncio.sleep(0)
        umbel.bsend(right, b"x")
        turn()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        with pytest.raises(umbel.BrokenStreamError):
            await aio.receive(left)

    asyncio.run(main())


def test_a_task_whose_receive_timed_out_leaves_nothing_to_be_caught(ends: Ends) -> None:
    left, right = ends
    have_the_next_wait(left, right)

    async def main() -> bytes:
        with pytest.raises(umbel.DeadlineError):
            await aio.receive(left, deadline=umbel.within(0.01))
        receiving = asyncio.create_task(aio.brecv(left, 1, soon()))
        while not is_blocked(left):
            await asyncio.sleep(0)
        umbel.bsend(right, b"x")
        return await receiving

    assert asyncio.run(main()) == b"x"


@pytest.mark.parametrize("size", [1, 447, 448, 449, 4095, 4096, 4097, 20_000])
def test_more_than_a_hub_receives_at_once_comes_whole(ends: Ends, size: int) -> None:
    left, right = ends
    data = pattern(size)
    got = bytearray()

    def receive() -> None:
        while len(got) < 3 * size:
            got.extend(umbel.receive(left, 65536, umbel.within(20)))

    async def receive_in_task() -> None:
        while len(got) < 3 * size:
            got.extend(await aio.receive(left, 65536, umbel.within(20)))

    async def main() -> None:
        receiving = asyncio.ensure_future(receive_in_task())
        for _ in range(3):
            await asyncio.sleep(0)
            await aio.bsend(right, data)
            await asyncio.sleep(0.001)
        await receiving

    with umbel.bundle() as receiving:
        receiving.go(receive)
        for _ in range(3):
            umbel.bsend(right, data)
            umbel.yield_()
    assert got == 3 * data
    got.clear()

    asyncio.run(main())
    assert got == 3 * data


def test_what_came_while_no_task_waited_comes_whole(ends: Ends) -> None:
    left, right = ends
    data = pattern(1000)

    async def main() -> bytes:
        await aio.bsend(right, b"-")
        await aio.receive(left)
        await aio.bsend(right, data)
        turn()
        return b"".join([await aio.receive(left, 100, 0) for _ in range(10)])

    assert asyncio.run(main()) == data


def test_a_receive_that_wants_less_is_left_to_its_caller(ends: Ends) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    got: list[bytes] = []

    with umbel.bundle() as receiving:
        receiving.go(lambda: got.append(umbel.receive(left, MOST_CAUGHT - 1)))
        umbel.bsend(right, b"x" * MOST_CAUGHT)
        umbel.yield_()

    assert got == [b"x" * (MOST_CAUGHT - 1)]
    assert umbel.receive(left) == b"x"


def test_what_an_attempt_raises_in_the_hub_is_its_receivers(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    have_the_next_wait(left, right)

    def fail(_: int) -> bytes:
        message = "a transport's flaw"
        raise ValueError(message)

    def receive() -> None:
        with pytest.raises(ValueError, match="a transport's flaw"):
            umbel.receive(left)

    monkeypatch.setattr(find_connection(left), "try_receive", fail)
    with umbel.bundle() as receiving:
        receiving.go(receive)
        umbel.bsend(right, b"x")
        umbel.yield_()


def test_a_reset_that_the_hub_was_told_is_its_receivers(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    tell_once(monkeypatch, left, OSError(errno.ECONNRESET, "once"))
    caught: list[int | None] = []

    def receive() -> None:
        with pytest.raises(umbel.BrokenStreamError) as error:
            umbel.receive(left)
        caught.append(error.value.errno)

    receiving = umbel.go(receive)
    umbel.bsend(right, b"x")
    umbel.bundle_wait(receiving, soon())
    umbel.hclose(receiving)

    assert caught == [errno.ECONNRESET]


def test_a_signal_that_strikes_while_the_hub_receives_is_mains(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    connection = find_connection(left)
    honest = connection.try_receive
    assert honest is not None
    got: list[bytes] = []
    struck: list[int] = []

    def interrupted(max_bytes: int) -> bytes | None:
        if not struck:
            struck.append(max_bytes)
            raise KeyboardInterrupt
        return honest(max_bytes)

    monkeypatch.setattr(connection, "try_receive", interrupted)
    receiving = umbel.go(lambda: got.append(umbel.receive(left)))
    umbel.bsend(right, b"x")
    with pytest.raises(KeyboardInterrupt):
        umbel.msleep(umbel.within(20))

    receiving.wait(umbel.within(20))
    assert got == [b"x"]
    receiving.close()
