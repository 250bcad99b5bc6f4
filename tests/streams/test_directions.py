"""The ends of a stream's directions: ended by done, broken by a failure."""

from __future__ import annotations

import asyncio
import errno
import signal

import pytest

import umbel
from tests.support import (
    Ends,
    calls,
    drain,
    fill,
    have_the_next_wait,
    is_blocked,
    lateness,
    pattern,
    soon,
)
from umbel import aio
from umbel.streams.connection import find_connection


def test_the_peer_receives_what_was_sent_and_then_the_end(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"last words")

    umbel.done(left)

    assert umbel.brecv(right, 10) == b"last words"
    for _ in range(3):
        with pytest.raises(umbel.EndOfStreamError) as caught:
            umbel.brecv(right, 1, 0)
        assert caught.value.errno == errno.EPIPE


def test_receive_gives_the_end_again_and_again(ends: Ends) -> None:
    left, right = ends

    umbel.done(left)

    assert [umbel.receive(right, 10, 0) for _ in range(3)] == [b"", b"", b""]


def test_an_end_in_the_middle_of_a_brecv_tells_how_much_came(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"four")
    umbel.done(left)

    with pytest.raises(umbel.EndOfStreamError) as caught:
        umbel.brecv(right, 10)

    assert caught.value.bytes_done == 4
    assert umbel.receive(right) == b""


def test_the_end_in_the_middle_of_a_list_is_epipe(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"abc")
    umbel.done(left)

    with pytest.raises(umbel.EndOfStreamError) as caught:
        umbel.brecvl(right, [bytearray(2), umbel.Skip(2), bytearray(2)])

    assert caught.value.bytes_done == 3


def test_sending_after_done_is_epipe(ends: Ends) -> None:
    left, _ = ends
    umbel.done(left)

    for call in calls(
        lambda: umbel.bsend(left, b"x"),
        lambda: umbel.bsendl(left, [b"x"]),
        lambda: umbel.ipc_sendfd(left, 0),
        lambda: umbel.done(left),
    ):
        with pytest.raises(umbel.EndOfStreamError) as caught:
            call()
        assert caught.value.errno == errno.EPIPE


def test_after_done_we_can_still_receive(ends: Ends) -> None:
    left, right = ends

    umbel.done(left)
    umbel.bsend(right, b"answer")

    assert umbel.brecv(left, 6) == b"answer"


def test_after_the_peers_end_we_can_still_send(ends: Ends) -> None:
    left, right = ends

    umbel.done(left)
    assert drain(right) == b""
    umbel.bsend(right, b"answer")
    umbel.done(right)

    assert drain(left) == b"answer"


def test_a_late_brecv_breaks_its_direction_alone(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"only")

    with pytest.raises(umbel.DeadlineError) as caught:
        umbel.brecv(right, 10, umbel.within(0.01))

    assert (caught.value.errno, caught.value.bytes_done) == (errno.ETIMEDOUT, 4)
    for call in calls(lambda: umbel.brecv(right, 1), lambda: umbel.receive(right, 1)):
        with pytest.raises(umbel.BrokenStreamError) as broken:
            call()
        assert broken.value.errno == errno.ECONNRESET
    umbel.bsend(right, b"other way")
    assert umbel.brecv(left, 9) == b"other way"


def test_a_late_bsend_breaks_its_direction_alone(ends: Ends) -> None:
    left, right = ends
    fill(left)

    for call in calls(
        lambda: umbel.bsend(left, b"x"),
        lambda: umbel.bsend(left, b""),
        lambda: umbel.done(left),
    ):
        with pytest.raises(umbel.BrokenStreamError):
            call()
    umbel.bsend(right, b"other way")
    assert umbel.brecv(left, 9) == b"other way"


def test_a_late_receive_loses_and_breaks_nothing(ends: Ends) -> None:
    left, right = ends

    with pytest.raises(umbel.DeadlineError):
        umbel.receive(right, 10, umbel.within(0.01))
    umbel.bsend(left, b"whole")

    assert umbel.receive(right, 10, 0) == b"whole"


def test_a_late_brecv_of_nothing_that_came_breaks_all_the_same(ends: Ends) -> None:
    left, right = ends

    with pytest.raises(umbel.DeadlineError):
        umbel.brecv(right, 1, 0)
    umbel.bsend(left, b"x")

    with pytest.raises(umbel.BrokenStreamError):
        umbel.brecv(right, 1, 0)


@pytest.mark.parametrize("deadline", [0, 1], ids=["0", "long ago"])
def test_a_deadline_in_the_past_takes_what_is_there(ends: Ends, deadline: int) -> None:
    left, right = ends

    umbel.bsend(left, b"abc", deadline)

    assert umbel.receive(right, 2, deadline) == b"ab"
    assert umbel.brecv(right, 1, deadline) == b"c"
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(right, 1, deadline)


def test_a_receive_ends_at_its_deadline(ends: Ends) -> None:
    _, right = ends

    assert lateness(lambda until: umbel.receive(right, 1, until)) <= 20


def test_a_send_without_room_ends_at_its_deadline(scheme: str) -> None:
    def send(until: int) -> None:
        left, right = umbel.pair(scheme)
        try:
            umbel.bsend(left, bytes(64 << 20), until)
        finally:
            umbel.hclose(left)
            umbel.hclose(right)

    assert lateness(send) <= 40  # 64 MiB are made, and a pair, within it


def test_the_deadline_is_for_the_call_not_for_each_byte(ends: Ends) -> None:
    left, right = ends

    def drip() -> None:
        while True:
            umbel.bsend(left, b".")
            umbel.msleep(umbel.within(0.005))

    dripping = umbel.go(drip)
    deadline = umbel.within(0.1)
    with pytest.raises(umbel.DeadlineError) as caught:
        umbel.brecv(right, 100_000, deadline)
    umbel.hclose(dripping)

    assert 0 < caught.value.bytes_done < 100
    assert umbel.now() - deadline < 2000


def test_a_peer_that_is_gone_is_econnreset_in_both_directions(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"unread")
    umbel.hclose(right)

    for _ in range(2):
        with pytest.raises(umbel.BrokenStreamError) as caught:
            umbel.bsend(left, b"x")
        assert caught.value.errno == errno.ECONNRESET
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(left)


def test_no_call_raises_sigpipe(ends: Ends) -> None:
    left, right = ends
    umbel.hclose(right)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    try:
        for call in calls(
            lambda: umbel.bsend(left, b"x"),
            lambda: umbel.bsendl(left, [b"x", b"y"]),
            lambda: umbel.ipc_sendfd(left, 0),
        ):
            with pytest.raises(umbel.BrokenStreamError):
                call()
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_a_canceled_send_tells_how_much_went(ends: Ends) -> None:
    left, right = ends
    caught: list[umbel.Canceled] = []

    def send() -> None:
        try:
            umbel.bsend(left, bytes(64 << 20))
        except umbel.Canceled as error:
            caught.append(error)
            raise

    umbel.hclose(umbel.go(send))

    assert len(umbel.brecv(right, caught[0].bytes_done)) == caught[0].bytes_done > 0
    with pytest.raises(umbel.BrokenStreamError):
        umbel.bsend(left, b"x")


def test_a_canceled_receive_loses_nothing(ends: Ends) -> None:
    left, right = ends

    receiving = umbel.go(umbel.receive, right)
    umbel.bsend(left, b"whole")
    umbel.hclose(receiving)  # it is ready to go on, but is canceled first

    assert umbel.receive(right, 10, 0) == b"whole"


def test_data_behind_the_last_full_read_is_found(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, pattern(1000))

    assert umbel.receive(right, 1000) == pattern(1000)
    umbel.bsend(left, b"more")

    assert umbel.receive(right, 1000, umbel.within(5)) == b"more"


def test_the_end_behind_a_short_read_is_found(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"x")
    umbel.done(left)

    assert umbel.receive(right, 1000) == b"x"
    assert umbel.receive(right, 1000, umbel.within(5)) == b""


def test_the_death_of_the_peer_behind_a_short_read_is_found(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"unread by the peer")
    umbel.bsend(left, b"x")
    assert umbel.receive(right, 1000) == b"x"

    umbel.hclose(left)

    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(right, 1000, umbel.within(5))


@pytest.mark.parametrize("way", ["brecv", "receive"])
def test_an_end_that_came_with_the_data_is_found_without_another_edge(
    ends: Ends, way: str
) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    got: list[bytes] = []

    def receive() -> None:
        if way == "brecv":
            with pytest.raises(umbel.EndOfStreamError):
                umbel.brecv(left, 10, soon())
            return
        for _ in range(2):
            find_connection(left).waits_left = 255
            got.append(umbel.receive(left, 10, soon()))

    with umbel.go(receive):
        umbel.bsend(right, b"ab")
        umbel.hclose(right)

    assert got == ([b"ab", b""] if way == "receive" else [])


@pytest.mark.parametrize("way", ["brecv", "receive"])
def test_a_task_finds_it_too(ends: Ends, way: str) -> None:
    left, right = ends
    have_the_next_wait(left, right)
    got: list[bytes] = []

    async def receive() -> None:
        if way == "brecv":
            with pytest.raises(umbel.EndOfStreamError):
                await aio.brecv(left, 10, soon())
            return
        for _ in range(2):
            find_connection(left).waits_left = 255
            got.append(await aio.receive(left, 10, soon()))

    async def main() -> None:
        with pytest.raises(umbel.DeadlineError):  # from now on it is watched
            await aio.receive(left, deadline=umbel.within(0.01))
        receiving = asyncio.create_task(receive())
        while not is_blocked(left):
            await asyncio.sleep(0)
        umbel.bsend(right, b"ab")
        umbel.hclose(right)
        await receiving

    asyncio.run(main())

    assert got == ([b"ab", b""] if way == "receive" else [])
