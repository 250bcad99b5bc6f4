"""Orderly close and hard close: what each side knows, and what is left."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import umbel
from tests.support import (
    Ends,
    calls,
    drain,
    fill,
    is_blocked,
    lateness,
    open_descriptors,
    pattern,
    python,
    run_python,
    soon,
    wait_until_blocked,
)
from umbel import CloseReport, aio, spi
from umbel._kernel.current import current_hub
from umbel.handle import lookup
from umbel.plugins import add_plugin, remove_plugin
from umbel.shutdown import GLANCE
from umbel.streams.connection import find_connection
from umbel.streams.listener import AcceptUse, Listening


def close_both(ends: Ends) -> tuple[CloseReport, CloseReport]:
    left, right = ends
    reports = []
    with umbel.bundle() as closing:
        closing.go(lambda: reports.append(umbel.close(left)))
        other = umbel.close(right)
    return reports[0], other


def test_both_sides_closing_both_get_their_report(ends: Ends) -> None:
    umbel.bsend(ends[0], b"ABC")
    assert umbel.brecv(ends[1], 3) == b"ABC"

    assert close_both(ends) == (CloseReport(True, 0), CloseReport(True, 0))


def test_both_that_had_bytes_unread_are_told_that_all_was_read(
    scheme: str, threads: ThreadPoolExecutor
) -> None:
    reports = []
    for _ in range(200):  # one in six said that not all had been read
        left, right = umbel.pair(scheme)
        umbel.bsend(left, bytes(1000))
        umbel.bsend(right, bytes(1000))
        closing = threads.submit(umbel.close, right, umbel.within(20))
        reports += [umbel.close(left, umbel.within(20)), closing.result()]

    assert set(reports) == {CloseReport(True, 1000)}


def test_a_peer_that_goes_on_reading_holds_up_a_close_for_a_moment_only(
    ends: Ends,
) -> None:
    left, right = ends
    umbel.bsend(left, b"read later")
    umbel.done(right)
    start = umbel.now()
    report = umbel.close(left, umbel.within(20))

    assert report.consumed is False
    assert umbel.now() - start < 10_000
    assert umbel.brecv(right, 10) == b"read later"
    umbel.hclose(right)


def test_it_holds_up_none_that_has_no_time_or_has_seen_its_end() -> None:
    def at_once(stream: umbel.StreamHandle) -> None:
        assert umbel.close(stream, 0).consumed is False

    def see_its_end(stream: umbel.StreamHandle) -> None:
        assert umbel.receive(stream) == b""
        assert umbel.close(stream).consumed is False

    for close in (at_once, see_its_end):
        took = []
        for _ in range(5):  # a busy machine makes anything late now and then
            left, right = umbel.ipc_pair()
            umbel.bsend(left, b"read later")
            umbel.done(right)
            start = umbel.now()
            close(left)
            took.append(umbel.now() - start)
            umbel.hclose(right)
        assert min(took) < 1000 * GLANCE / 2


def test_a_closed_stream_has_no_descriptor(ends: Ends) -> None:
    descriptor = ends[0].fileno()

    close_both(ends)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_ipc_close_is_the_same_on_ipc_handles(ends: Ends) -> None:
    umbel.ipc_done(ends[1])

    report = umbel.ipc_close(ends[0])

    assert report == CloseReport(True, 0)


def test_close_needs_no_more_after_done_and_the_peers_end(ends: Ends) -> None:
    for end in ends:
        umbel.done(end)
    for end in ends:
        assert drain(end) == b""

    assert umbel.close(ends[0], 0) == CloseReport(True, 0)
    assert umbel.close(ends[1], 0) == CloseReport(True, 0)


def test_close_counts_what_it_throws_away(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, pattern(70_000))
    umbel.done(right)

    assert umbel.close(left) == CloseReport(True, 70_000)


def test_bytes_that_the_peer_never_read_are_told(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"unread")
    umbel.done(right)

    assert umbel.close(left).consumed is False
    assert umbel.brecv(right, 6) == b"unread"  # they are there for it all the same


def test_a_peer_that_never_closes_is_etimedout(scheme: str) -> None:
    def close(until: int) -> None:
        left, right = umbel.pair(scheme)
        descriptor = left.fileno()
        try:
            umbel.close(left, until)
        except umbel.DeadlineError as error:
            assert error.errno == errno.ETIMEDOUT
            assert error.report == CloseReport(True, 0)
            raise
        finally:
            umbel.hclose(right)
            with pytest.raises(umbel.BadHandleError):
                umbel.close(left)
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(descriptor)

    assert lateness(close) <= 20


def test_a_flooding_peer_cannot_hold_up_a_close(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends

    def flood() -> None:
        while True:
            umbel.bsend(right, bytes(65536))

    flooding = threads.submit(flood)
    with pytest.raises(umbel.DeadlineError) as caught:
        umbel.close(left, umbel.within(0.1))

    assert caught.value.report is not None
    assert caught.value.report.discarded > 0
    with pytest.raises(umbel.BrokenStreamError):
        flooding.result(20)


def test_close_drains_to_the_end_not_to_a_pause(ends: Ends) -> None:
    left, right = ends

    def talk_on() -> None:
        assert drain(right) == b""
        for _ in range(3):
            umbel.bsend(right, b"more")
            umbel.msleep(umbel.within(0.01))
        umbel.done(right)

    with umbel.bundle() as talking:
        talking.go(talk_on)

        assert umbel.close(left) == CloseReport(True, 12)


def test_a_drain_limit_ends_the_close_with_emsgsize(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, bytes(1001))
    umbel.done(right)

    with pytest.raises(OSError, match="drain_limit=1000") as caught:
        umbel.close(left, drain_limit=1000)

    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(left)


def test_a_drain_limit_that_is_kept_is_no_error(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, bytes(1000))
    umbel.done(right)

    assert umbel.close(left, drain_limit=1000).discarded == 1000


def test_a_peer_that_left_our_bytes_unread_is_econnreset(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"unread")
    umbel.hclose(right)

    with pytest.raises(umbel.BrokenStreamError) as caught:
        umbel.close(left)

    assert caught.value.errno == errno.ECONNRESET
    assert caught.value.report == CloseReport(False, 0)


@pytest.mark.parametrize("has_ended", ["nothing", "receive", "brecv"])
def test_so_it_is_if_the_peer_had_ended_its_direction(
    ends: Ends, has_ended: str
) -> None:
    left, right = ends
    umbel.bsend(left, b"unread")
    umbel.done(right)
    if has_ended == "receive":
        assert umbel.receive(left) == b""
    elif has_ended == "brecv":
        with pytest.raises(umbel.EndOfStreamError):
            umbel.brecv(left, 1)
    umbel.hclose(right)

    with pytest.raises(umbel.BrokenStreamError) as caught:
        umbel.close(left)

    assert caught.value.report == CloseReport(False, 0)


def test_a_look_at_what_is_unread_takes_no_reset_away(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"unread")
    assert not umbel.query(left, spi.UnreadBytes).is_zero()
    umbel.hclose(right)

    for _ in range(2):
        with pytest.raises(umbel.BrokenStreamError):
            umbel.query(left, spi.UnreadBytes).is_zero()
        with pytest.raises(umbel.BrokenStreamError):
            umbel.receive(left)


def test_a_peer_that_read_all_and_just_closed_is_a_good_end(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"read")
    assert umbel.brecv(right, 4) == b"read"
    umbel.hclose(right)

    assert umbel.close(left) == CloseReport(True, 0)


def test_nothing_we_sent_is_lost_when_requests_lie_unread(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"a request that is never read")
    answer = pattern(1 << 20)
    received = []

    def read_answer() -> None:
        umbel.done(right)
        received.append(drain(right))

    with umbel.bundle() as reading:
        reading.go(read_answer)
        umbel.bsend(left, answer)
        umbel.close(left)

    assert received == [answer]


def test_a_reader_that_starts_after_the_close_gets_all(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"early")
    umbel.done(right)

    umbel.close(left, 0)

    assert drain(right) == b"early"


@pytest.mark.parametrize("direction", ["send", "receive"])
def test_closing_a_broken_stream_is_econnreset(ends: Ends, direction: str) -> None:
    left, right = ends
    descriptor = left.fileno()
    if direction == "send":
        fill(left)
    else:
        with pytest.raises(umbel.DeadlineError):
            umbel.brecv(left, 1, 0)
    umbel.done(right)

    with pytest.raises(umbel.BrokenStreamError, match="failed before") as caught:
        umbel.close(left)

    assert caught.value.report == CloseReport(direction == "receive", 0)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_a_canceled_close_still_closes(ends: Ends) -> None:
    left, _ = ends
    caught: list[umbel.Canceled] = []

    def close() -> None:
        try:
            umbel.close(left)
        except umbel.Canceled as error:
            caught.append(error)
            raise

    umbel.hclose(umbel.go(close))

    assert caught[0].errno == errno.ECANCELED
    assert caught[0].report == CloseReport(True, 0)
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(left)


def test_a_close_in_a_canceled_coroutine_is_ecanceled_and_closes(ends: Ends) -> None:
    left, _ = ends

    def work() -> None:
        try:
            umbel.msleep(-1)
        finally:
            umbel.close(left)

    umbel.hclose(umbel.go(work))

    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(left)


def test_so_is_one_that_need_not_wait(ends: Ends) -> None:
    left, right = ends
    umbel.done(right)
    caught: list[object] = []

    def work() -> None:
        try:
            umbel.msleep(-1)
        finally:
            with pytest.raises(umbel.Canceled) as error:
                umbel.close(left)
            caught.append(error.value.report)

    umbel.hclose(umbel.go(work))

    assert caught == [CloseReport()]
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(left)


@pytest.mark.parametrize("is_read", [True, False])
def test_after_a_failed_send_it_is_told_whether_the_peer_read_what_was_sent(
    ends: Ends, is_read: bool
) -> None:
    left, right = ends
    with pytest.raises(umbel.DeadlineError) as failed:
        umbel.bsend(left, bytes(1 << 24), 0)
    if is_read:
        umbel.brecv(right, umbel.Skip(failed.value.bytes_done))

    with pytest.raises(umbel.BrokenStreamError) as caught:
        umbel.close(left)

    assert caught.value.report == CloseReport(consumed=is_read)


def test_after_a_receive_that_was_told_of_a_reset_it_is_known_that_bytes_were_lost(
    ends: Ends,
) -> None:
    left, right = ends
    umbel.bsend(left, b"never read")
    umbel.hclose(right)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(left)

    with pytest.raises(umbel.BrokenStreamError) as caught:
        umbel.close(left)

    assert caught.value.report == CloseReport(consumed=False)


def test_any_error_of_a_close_has_a_report(ends: Ends) -> None:
    class Refusing:
        @spi.hookimpl.close.wrapper
        def close(self, context: spi.CloseContext) -> spi.Wrapped[CloseReport]:
            yield
            return spi.Outcome(error=OSError(errno.EIO, "refused by policy"))

    left, right = ends
    umbel.done(right)
    add_plugin(Refusing(), "refusing")
    try:
        with pytest.raises(OSError, match="by policy") as caught:
            umbel.close(left, 0)
    finally:
        remove_plugin("refusing")

    assert getattr(caught.value, "report", None) == CloseReport()


def test_deadline_0_succeeds_if_the_peers_end_is_there(ends: Ends) -> None:
    left, right = ends
    umbel.done(right)

    assert umbel.close(left, 0).consumed is True


def test_deadline_0_is_etimedout_if_it_is_not(ends: Ends) -> None:
    left, right = ends

    with pytest.raises(umbel.DeadlineError, match="let it close"):
        umbel.close(left, 0)

    assert drain(right) == b""  # it was told that we are done all the same


@pytest.mark.parametrize("how", [umbel.close, umbel.hclose], ids=["close", "hclose"])
def test_a_receiver_in_a_coroutine_is_taken_over_with_ebadf(
    ends: Ends, how: object
) -> None:
    left, right = ends
    caught = []

    def receive() -> None:
        with pytest.raises(umbel.BadHandleError) as error:
            umbel.receive(left)
        caught.append(error.value.errno)
        umbel.yield_()  # it is free to go on: nothing is pending

    with umbel.bundle() as receiving:
        receiving.go(receive)
        umbel.done(right)
        how(left)  # type: ignore[operator]

    assert caught == [errno.EBADF]


def test_also_by_a_close_that_tries_once(ends: Ends) -> None:
    left, right = ends
    receiving = umbel.go(umbel.receive, left)
    umbel.done(right)

    umbel.close(left, 0)

    with pytest.raises(ExceptionGroup) as caught:
        umbel.hclose(receiving)
    assert isinstance(caught.value.exceptions[0], umbel.BadHandleError)


@pytest.mark.parametrize("how", [umbel.close, umbel.hclose], ids=["close", "hclose"])
def test_a_receiver_in_another_thread_is_taken_over_with_ebadf(
    ends: Ends,
    threads: ThreadPoolExecutor,
    how: Callable[[umbel.StreamHandle], object],
) -> None:
    left, right = ends
    receiving = threads.submit(umbel.brecv, left, 5)
    wait_until_blocked(left)

    closing = threads.submit(how, left)

    with pytest.raises(umbel.BadHandleError):
        receiving.result(20)
    umbel.done(right)  # only now, lest the receiver see the end first
    closing.result(20)


def test_a_sender_is_taken_over_and_told_how_much_went(ends: Ends) -> None:
    left, right = ends
    caught = []

    def send() -> None:
        with pytest.raises(umbel.BadHandleError) as error:
            umbel.bsend(left, bytes(64 << 20))
        caught.append(error.value.bytes_done)

    with umbel.bundle() as sending:
        sending.go(send)
        umbel.hclose(left)

    assert len(drain(right)) == caught[0] > 0


def test_a_task_that_sends_is_taken_over_and_the_close_goes_on(ends: Ends) -> None:
    left, right = ends

    async def main() -> int:
        sending = asyncio.create_task(aio.bsend(left, bytes(64 << 20)))
        while not is_blocked(left):
            await asyncio.sleep(0)
        closing = asyncio.create_task(aio.close(left, umbel.within(10)))
        with pytest.raises(umbel.BadHandleError):
            await sending
        start = umbel.now()
        umbel.done(right)
        while await aio.receive(right, 1 << 20):
            pass
        with suppress(OSError):  # the send was cut
            await closing
        return umbel.now() - start

    assert asyncio.run(main()) < 5000


def test_an_orderly_close_does_not_pretend_that_a_cut_send_was_whole(
    ends: Ends,
) -> None:
    left, right = ends

    def send() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.bsend(left, bytes(64 << 20))

    with umbel.bundle() as sending:
        sending.go(send)
        umbel.done(right)
        sending.go(drain, right)  # all that comes, so that nothing else is wrong
        with pytest.raises(umbel.BrokenStreamError):
            umbel.close(left, soon())

    umbel.hclose(right)


def test_a_close_that_cuts_a_send_before_its_first_byte_goes_on(ends: Ends) -> None:
    left, right = ends
    fill(left)
    find_connection(left).outbound_error = None  # as if all sends had been whole

    def send() -> None:
        with pytest.raises(umbel.BadHandleError):
            umbel.bsend(left, b"nothing of it")

    with umbel.bundle() as sending:
        sending.go(send)
        umbel.done(right)
        sending.go(drain, right)
        umbel.close(left, soon())

    umbel.hclose(right)


def test_of_two_closers_one_wins_and_the_other_gets_ebadf(
    ends: Ends, threads: ThreadPoolExecutor
) -> None:
    left, right = ends
    umbel.done(right)

    outcomes = [threads.submit(umbel.close, left) for _ in range(4)]

    errors = [outcome.exception(20) for outcome in outcomes]
    assert sum(error is None for error in errors) == 1
    assert sum(isinstance(error, umbel.BadHandleError) for error in errors) == 3


def test_any_use_after_close_is_ebadf(ends: Ends) -> None:
    left, _ = ends
    umbel.hclose(left)

    for call in calls(
        lambda: umbel.bsend(left, b"x"),
        lambda: umbel.bsend(left, b""),
        lambda: umbel.bsendl(left, [b"x"]),
        lambda: umbel.brecv(left, 1),
        lambda: umbel.brecv(left, 0),
        lambda: umbel.brecv(left, bytearray(1)),
        lambda: umbel.brecvl(left, [bytearray(1)]),
        lambda: umbel.receive(left),
        lambda: umbel.done(left),
        lambda: umbel.ipc_done(left),
        lambda: umbel.flush(left),
        lambda: umbel.ipc_sendfd(left, 0),
        lambda: umbel.ipc_recvfd(left),
        lambda: umbel.close(left),
        lambda: umbel.ipc_close(left),
        lambda: umbel.hclose(left),
        lambda: umbel.hown(left),
        lambda: umbel.query(left, umbel.PeerIdentity),
        lambda: left.address,
        left.fileno,
        left.close,
    ):
        with pytest.raises(umbel.BadHandleError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
        assert str(int(left)) in str(caught.value)


def test_hclose_never_waits_though_output_is_clogged(ends: Ends) -> None:
    left, right = ends
    sent = fill(left)

    umbel.hclose(left)

    assert len(drain(right)) == sent


def test_after_hclose_the_peer_is_not_kept_waiting(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(right, b"never read")

    umbel.hclose(left)

    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(right, 10, umbel.within(5))


def test_a_with_block_closes_in_good_order(ends: Ends) -> None:
    left, right = ends
    umbel.done(right)

    with left:
        umbel.bsend(left, b"x")

    assert drain(right) == b"x"
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(left)


def test_a_with_block_that_fails_closes_hard(ends: Ends) -> None:
    left, _ = ends

    with pytest.raises(ZeroDivisionError), left:
        raise ZeroDivisionError

    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(left)


def test_a_handle_closed_inside_its_with_block_is_fine(ends: Ends) -> None:
    with ends[0] as left:
        umbel.hclose(left)


def test_a_listener_closes_at_once(listener: umbel.ListenerHandle) -> None:
    assert umbel.close(listener, 0) == CloseReport(None, 0)

    with pytest.raises(umbel.BadHandleError):
        umbel.accept(listener, 0)


@pytest.mark.parametrize("how", [umbel.close, umbel.hclose], ids=["close", "hclose"])
def test_who_waits_in_accept_gets_ebadf_from_a_close(
    listener: umbel.ListenerHandle, threads: ThreadPoolExecutor, how: object
) -> None:
    accepting = threads.submit(umbel.accept, listener)
    wait_until_blocked(listener)

    how(listener)  # type: ignore[operator]

    with pytest.raises(umbel.BadHandleError):
        accepting.result(20)


def test_a_coroutine_that_waits_in_accept_gets_ebadf_from_a_close(
    listener: umbel.ListenerHandle,
) -> None:
    accepted: list[umbel.StreamHandle] = []

    def serve() -> None:
        accepted.extend(listener)  # a closed listener just ends the loop

    with umbel.bundle() as serving:
        serving.go(serve)
        umbel.hclose(listener)

    assert accepted == []


def test_who_accepts_as_the_listener_closes_does_not_begin(
    listener: umbel.ListenerHandle,
) -> None:
    found = lookup(listener, Listening)
    me = current_hub().current

    with AcceptUse(me, found) as use:
        umbel.hclose(listener)
        with pytest.raises(umbel.BadHandleError):
            use.go_on_as(me)
    with pytest.raises(umbel.BadHandleError), AcceptUse(me, found):
        pass

    assert found.accepter is None


@pytest.mark.slow
def test_ten_thousand_connections_leave_nothing(tmp_path: Path) -> None:
    code = """
import resource, sys, threading, os
import umbel
def cycle(count):
    for _ in range(count):
        client = umbel.ipc_connect(path)
        server = umbel.ipc_accept(listener)
        umbel.bsend(client, b"question")
        umbel.bsend(server, umbel.brecv(server, 8)[::-1])
        assert umbel.brecv(client, 8) == b"noitseuq"
        closing = umbel.go(umbel.ipc_close, server)
        umbel.ipc_close(client)
        umbel.hclose(closing)
path = sys.argv[1]
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with umbel.ipc_listen(path) as listener:
    cycle(500)
    before = memory(), len(os.listdir("/proc/self/fd")), threading.active_count()
    cycle(10_000)
    after = memory(), len(os.listdir("/proc/self/fd")), threading.active_count()
assert after[1:] == before[1:], (before, after)
assert after[0] - before[0] < 1 << 20, (before, after)
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")

    run_python(code, str(tmp_path / "x.sock"))


def test_errors_leave_no_cycles_for_the_collector() -> None:
    # A cycle keeps sockets and buffers alive until the collector happens to run.
    code = """
import gc
import umbel

def attempt(call, *arguments):
    try:
        call(*arguments)
    except (OSError, umbel.Canceled):
        pass

def work():
    left, right = umbel.ipc_pair()
    attempt(umbel.receive, left, 10, 0)
    attempt(umbel.receive, left, 10, umbel.within(0.001))
    attempt(umbel.brecv, left, 10, umbel.within(0.001))
    attempt(umbel.bsend, left, bytes(8 << 20), 0)
    attempt(umbel.bsend, left, b"")
    attempt(umbel.close, left, 0)
    umbel.hclose(right)
    left, right = umbel.ipc_pair()
    for call in (umbel.receive, umbel.close):
        waiting = umbel.go(attempt, call, left)
        umbel.hclose(waiting)
    waiting = umbel.go(attempt, umbel.receive, right)
    umbel.hclose(right)
    umbel.hclose(waiting)
    with umbel.listen("mem://x") as listener:
        attempt(umbel.accept, listener, umbel.within(0.001))
        waiting = umbel.go(attempt, umbel.accept, listener)
    umbel.hclose(waiting)

work()
gc.collect()
gc.disable()
gc.set_debug(gc.DEBUG_SAVEALL)
work()
gc.collect()
for thing in gc.garbage:
    print(type(thing), repr(thing)[:200])
gc.set_debug(0)
"""
    assert run_python(code) == ""


# libdill's own example, line by line.

_ANSWERER = """
import sys
import umbel
with umbel.ipc_listen(sys.argv[1]) as ls:
    print("listening", flush=True)
    s = umbel.ipc_accept(ls)
    buf = bytearray(3)
    umbel.brecv(s, buf, -1)
    umbel.bsend(s, b"DEF", -1)
    print(bytes(buf), umbel.ipc_close(s, -1), flush=True)
"""


def test_libdills_example_works_line_by_line_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "test.ipc"

    with python(_ANSWERER, str(path)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "listening\n"
        s = umbel.ipc_connect(path, -1)
        umbel.bsend(s, b"ABC", -1)
        buf = bytearray(3)
        umbel.brecv(s, buf, -1)
        report = umbel.ipc_close(s, -1)
        told = other.stdout.read()

    assert buf == b"DEF"
    assert report == CloseReport(True, 0)
    assert told == "b'ABC' CloseReport(consumed=True, discarded=0)\n"
    assert not path.exists()


def test_libdills_example_works_within_one_process() -> None:
    s, other = umbel.ipc_pair()
    answers = []

    def answer() -> None:
        answers.append(umbel.brecv(other, 3))
        umbel.bsend(other, b"DEF", -1)
        umbel.ipc_close(other, -1)

    with umbel.go(answer):
        umbel.bsend(s, b"ABC", -1)
        buf = bytearray(3)
        umbel.brecv(s, buf, -1)
        umbel.ipc_close(s, -1)

    assert (bytes(buf), answers) == (b"DEF", [b"ABC"])


_SILENT = """
import sys
import umbel
ls = umbel.ipc_listen(sys.argv[1])
print("listening", flush=True)
s = umbel.ipc_accept(ls)
print("accepted", flush=True)
umbel.msleep(-1)
"""


def test_a_killed_process_is_econnreset_in_close(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"

    with python(_SILENT, str(path)) as other:
        assert other.stdout is not None
        other.stdout.readline()
        s = umbel.ipc_connect(path)
        umbel.bsend(s, b"never read")
        other.stdout.readline()
        other.send_signal(signal.SIGKILL)
        with pytest.raises(umbel.BrokenStreamError) as caught:
            umbel.ipc_close(s, umbel.within(20))

    assert caught.value.report == CloseReport(False, 0)


def test_closing_streams_frees_exactly_their_descriptors(scheme: str) -> None:
    before = open_descriptors()
    pairs = [umbel.pair(scheme) for _ in range(20)]
    assert len(open_descriptors() - before) == 40

    for left, right in pairs:
        close_both((left, right))

    assert open_descriptors() == before


def test_a_wrong_drain_limit_is_refused_and_closes_nothing(ends: Ends) -> None:
    left, right = ends
    with pytest.raises(OSError, match="drain_limit") as caught:
        umbel.close(left, drain_limit=-1)
    with pytest.raises(TypeError, match="drain_limit"):
        umbel.close(left, drain_limit="x")  # type: ignore[arg-type]  # what it is about

    assert caught.value.errno == errno.EINVAL
    umbel.bsend(left, b"as it was")
    assert umbel.brecv(right, 9) == b"as it was"


@pytest.mark.parametrize("poller", ["poll", ""])
def test_a_thread_that_sleeps_does_not_keep_open_what_another_closes(
    poller: str,
) -> None:
    code = """
import threading, umbel
a, b = umbel.ipc_pair()
has_waited, is_over = threading.Event(), umbel.chmake()
def wait():
    try: umbel.receive(a, 1, umbel.within(0.01))
    except umbel.DeadlineError: has_waited.set()
    umbel.msleep(umbel.within(60))
threading.Thread(target=wait, daemon=True).start()
has_waited.wait()
import time; time.sleep(0.05)  # it falls asleep; if later, there is nothing to see
umbel.hclose(a)
print(umbel.receive(b, 1, umbel.within(20)))
umbel.hclose(b)
"""
    assert run_python(code, UMBEL_POLLER=poller) == "b''\n"
