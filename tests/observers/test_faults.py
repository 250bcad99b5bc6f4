"""Planned faults: what they do, that they are the same again, and what they keep."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

import umbel
from tests.support import (
    drain,
    open_descriptors,
    pattern,
    run_python,
    wait_until_blocked,
)
from umbel import aio, testing
from umbel.plugins import remove_plugin
from umbel.spi import DescriptorPassing, Stream
from umbel.testing.conformance import check
from umbel_plugins import faults

T = TypeVar("T")

DATA = pattern(10_000)


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    umbel.load_plugins("faults")
    yield
    remove_plugin("faults")


@pytest.fixture(params=["ipc", "mem", "tcp"])
def any_scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_ends(scheme: str) -> tuple[umbel.StreamHandle, umbel.StreamHandle]:
    if scheme != "tcp":
        return umbel.pair(scheme)
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        left = umbel.connect(listener.address)
        return left, umbel.accept(listener)


def abort(*handles: umbel.Handle) -> None:
    for handle in handles:
        umbel.hclose(handle)


def sizes_of_reads(seed: int) -> list[int]:
    """Send DATA at once, and tell in what sizes it is received."""
    with faults.plan(seed=seed, short_reads=0.9):
        left, right = umbel.pair("mem")
        umbel.bsend(left, DATA)
        umbel.done(left)
        pieces = list(right)
        abort(left, right)
    assert b"".join(pieces) == DATA
    return [len(piece) for piece in pieces]


def test_short_reads_lose_nothing_and_are_the_same_for_a_seed() -> None:
    first = sizes_of_reads(7)

    assert len(first) > 2
    assert sizes_of_reads(7) == first
    assert sizes_of_reads(8) != first


def test_a_seed_gives_the_same_faults_in_another_process() -> None:
    code = f"""
import umbel
left, right = umbel.pair("mem")
umbel.bsend(left, bytes({len(DATA)}))
umbel.done(left)
print([len(piece) for piece in right])
umbel.hclose(left)
umbel.hclose(right)
"""
    given = "seed=7, short_reads=0.9"

    printed = run_python(code, UMBEL_PLUGINS="faults", UMBEL_FAULTS=given)

    assert printed == f"{sizes_of_reads(7)}\n"


def test_faults_of_one_stream_do_not_depend_on_the_use_of_another() -> None:
    with faults.plan(seed=7, short_reads=0.9):
        left, right = umbel.pair("mem")
        others = umbel.pair("mem")
        umbel.bsend(others[0], DATA)
        umbel.receive(others[1])
        umbel.bsend(left, DATA)
        umbel.done(left)
        sizes = [len(piece) for piece in right]
        abort(left, right, *others)

    assert sizes == sizes_of_reads(7)


def test_split_writes_arrive_in_pieces_and_whole(any_scheme: str) -> None:
    with faults.plan(seed=7, split_writes=1):
        left, right = make_ends(any_scheme)
        pieces: list[bytes] = []
        with umbel.bundle() as b:
            b.go(lambda: pieces.extend(right))
            umbel.bsendl(left, [DATA[:10], b"", DATA[10:]])
            umbel.done(left)
            umbel.bundle_wait(b, umbel.within(10))
        abort(left, right)

    assert b"".join(pieces) == DATA
    assert len(pieces) > 2


def test_a_split_send_that_times_out_tells_how_much_it_sent() -> None:
    with faults.plan(seed=7, split_writes=0.5):
        left, right = umbel.pair("ipc")
        with pytest.raises(umbel.DeadlineError) as caught:
            umbel.bsend(left, bytes(64 << 20), 0)
        umbel.hclose(left)
        received = len(drain(right))
        umbel.hclose(right)

    assert caught.value.bytes_done == received > 0


def test_latency_lets_other_coroutines_run() -> None:
    seen: list[str] = []
    with faults.plan(latency=0.2):
        left, right = umbel.pair("mem")
        with umbel.bundle() as b:
            b.go(lambda: seen.append(umbel.receive(right).decode()))
            b.go(lambda: seen.append("other"))
            umbel.bsend(left, b"late")
            umbel.bundle_wait(b)
        abort(left, right)

    assert seen == ["other", "late"]


@pytest.mark.parametrize("has_descriptor", [False, True])
def test_latency_is_of_each_send_and_each_receive(*, has_descriptor: bool) -> None:
    def main() -> list[int]:
        left, right = umbel.pair("mem")
        moments = [umbel.now()]
        if has_descriptor:
            umbel.send_with_fds(left, b"x", [0])
            moments.append(umbel.now())
            os.close(umbel.receive_with_fds(right)[1][0])
        else:
            umbel.bsend(left, b"x")
            moments.append(umbel.now())
            umbel.brecv(right, 1)
        moments.append(umbel.now())
        abort(left, right)
        return moments

    with faults.plan(seed=1, latency=1000):
        start, sent, received = testing.run(main)

    assert start + 1000 < sent < received - 1000


def test_latency_keeps_the_deadline() -> None:
    with faults.plan(seed=1, latency=1000):
        left, right = umbel.pair("mem")
        deadline = umbel.within(0.05)
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(right, deadline=deadline)
        late = umbel.now() - deadline
        abort(left, right)

    assert 0 <= late < 10_000


def test_what_is_there_at_the_deadline_is_received_in_spite_of_latency() -> None:
    with faults.plan(seed=1, latency=1000):
        left, right = umbel.pair("mem")
        umbel.bsend(left, b"x", 0)

        assert umbel.receive(right, deadline=0) == b"x"

        abort(left, right)


def test_a_stream_is_reset_after_its_bytes_were_sent(any_scheme: str) -> None:
    with faults.plan(reset_after=1000):
        left, right = make_ends(any_scheme)
        with pytest.raises(ConnectionResetError) as caught:
            umbel.bsend(left, DATA)
        with pytest.raises(ConnectionResetError):
            umbel.receive(left, deadline=0)
        umbel.hclose(left)
        received = umbel.brecv(right, 1000)
        umbel.hclose(right)

    assert isinstance(caught.value, umbel.BrokenStreamError)
    assert caught.value.bytes_done == 1000
    assert received == DATA[:1000]


def test_a_stream_is_reset_after_its_bytes_were_received(any_scheme: str) -> None:
    with faults.plan(reset_after=1000):
        left, right = make_ends(any_scheme)
        umbel.bsend(left, DATA[:1000])

        assert umbel.brecv(right, 1000) == DATA[:1000]
        with pytest.raises(ConnectionResetError):
            umbel.brecv(right, 1)
        with pytest.raises(ConnectionResetError):
            umbel.close(right)
        umbel.hclose(left)


def test_a_reset_wakes_a_coroutine_that_waits_in_the_other_direction(
    any_scheme: str,
) -> None:
    with faults.plan(reset_after=5):
        left, right = make_ends(any_scheme)
        with umbel.bundle() as b:
            b.go(receive_reset, left)
            umbel.yield_()
            with pytest.raises(ConnectionResetError):
                umbel.bsend(left, b"123456")
            umbel.bundle_wait(b, umbel.within(10))
        abort(left, right)


def test_a_reset_wakes_a_thread_that_waits_in_the_other_direction(
    any_scheme: str, threads: ThreadPoolExecutor
) -> None:
    with faults.plan(reset_after=5):
        left, right = make_ends(any_scheme)
        waiting = threads.submit(receive_reset, left)
        wait_until_blocked(left)
        with pytest.raises(ConnectionResetError):
            umbel.bsend(left, b"123456")
        waiting.result(10)
        abort(left, right)


def test_a_reset_is_told_to_who_waits_for_the_peer_to_read() -> None:
    with faults.plan(reset_after=3):
        left, right = umbel.pair("ipc")
        umbel.bsend(left, b"ab")
        umbel.bsend(right, b"abc")
        with umbel.bundle() as b:
            b.go(flush_reset, left)
            umbel.yield_()
            umbel.brecv(left, 3)
            receive_reset(left)
            umbel.bundle_wait(b, umbel.within(10))
        flush_reset(left)
        abort(left, right)


def flush_reset(stream: umbel.StreamHandle) -> None:
    with pytest.raises(ConnectionResetError):
        umbel.flush(stream, umbel.within(10))


def receive_reset(stream: umbel.StreamHandle) -> None:
    with pytest.raises(ConnectionResetError):
        umbel.receive(stream)


def test_a_reset_closes_descriptors_that_nobody_can_get_any_more() -> None:
    with faults.plan(reset_after=3):
        left, right = umbel.pair("ipc")
        umbel.send_with_fds(left, b"abc", [0])
        before = open_descriptors()

        data, descriptors = umbel.receive_with_fds(right)
        with pytest.raises(ConnectionResetError):
            umbel.receive_with_fds(right)

        for descriptor in descriptors:
            os.close(descriptor)
        assert (data, open_descriptors()) == (b"abc", before)
        with pytest.raises(ConnectionResetError):
            umbel.send_with_fds(left, b"d", [0])
        abort(left, right)


class Racing:
    """A stream that is reset by a send while descriptors are being received."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.outside: Stream | None = None

    def query(self, kind: type[T]) -> T | None:
        found = DescriptorPassing(lambda _data, _fds, _deadline: None, self.receive)
        return found if isinstance(found, kind) else None

    def receive(
        self, max_bytes: int, most: int, deadline: int
    ) -> tuple[bytes, list[int]]:
        assert self.outside is not None
        with pytest.raises(ConnectionResetError):
            self.outside.send([memoryview(b"x")], -1)
        return b"x", [self.fd]

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None: ...
    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def done(self, deadline: int) -> None: ...
    def abort(self) -> None: ...


def test_descriptors_that_come_during_a_reset_are_closed() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    racing = Racing(fd)
    with faults.plan(reset_after=0) as plan:
        racing.outside = plan.spoil(racing, "pair", "mem")
        passing = racing.outside.query(DescriptorPassing)
        assert passing is not None
        with pytest.raises(ConnectionResetError):
            passing.receive(0, 1, -1)

    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_awaited_calls_have_the_faults_too() -> None:
    async def use() -> list[int]:
        await aio.bsend(left, DATA)
        umbel.done(left)
        return [len(piece) async for piece in aio_pieces(right)]

    async def aio_pieces(stream: umbel.StreamHandle) -> AsyncIterator[bytes]:
        while piece := await aio.receive(stream):
            yield piece

    with faults.plan(seed=7, short_reads=0.9):
        left, right = umbel.pair("mem")
        sizes = asyncio.run(use())
        abort(left, right)

    assert sizes == sizes_of_reads(7)


def test_a_close_that_went_well_can_be_told_as_etimedout() -> None:
    with faults.plan(close_timeouts=1):
        left, right = umbel.pair("ipc")
        umbel.done(right)
        before = open_descriptors()
        with pytest.raises(umbel.DeadlineError) as caught:
            umbel.close(left)
        left_open = open_descriptors()
        umbel.hclose(right)

    assert caught.value.report == umbel.CloseReport(True, 0)
    assert len(left_open) == len(before) - 1


def test_emfile_in_accept_leaves_the_peer_in_the_queue(
    listener: umbel.ListenerHandle,
) -> None:
    peer = umbel.connect(listener.address)
    with faults.plan(accept_emfile=1), pytest.raises(OSError, match="fault") as caught:
        umbel.accept(listener, umbel.within(10))

    stream = umbel.accept(listener, umbel.within(10))
    abort(stream, peer)
    assert caught.value.errno == errno.EMFILE


def test_a_refused_connect_is_seen_by_nobody(listener: umbel.ListenerHandle) -> None:
    with faults.plan(refused_connects=1), pytest.raises(ConnectionRefusedError):
        umbel.connect(listener.address)

    with pytest.raises(umbel.DeadlineError):
        umbel.accept(listener, 0)


def test_a_likelihood_of_a_half_strikes_now_and_then() -> None:
    def refused() -> str:
        try:
            umbel.hclose(umbel.connect(listener.address))
        except ConnectionRefusedError:
            return "refused"
        return "connected"

    with umbel.listen("mem://x") as listener:
        with faults.plan(seed=3, refused_connects=0.5):
            first = [refused() for _ in range(20)]
        with faults.plan(seed=3, refused_connects=0.5):
            second = [refused() for _ in range(20)]

    assert set(first) == {"refused", "connected"}
    assert first == second


def test_a_plan_that_is_left_has_no_more_faults() -> None:
    with faults.plan(reset_after=0, close_timeouts=1, split_writes=1):
        left, right = umbel.pair("mem")

    umbel.bsend(left, DATA)
    umbel.done(right)
    assert umbel.brecv(right, len(DATA)) == DATA
    assert umbel.close(left) == umbel.CloseReport(True, 0)
    umbel.hclose(right)


def test_of_plans_within_each_other_the_inner_one_counts() -> None:
    with faults.plan(refused_connects=1), umbel.listen("mem://x") as listener:
        with faults.plan():
            umbel.hclose(umbel.connect(listener.address))
        with pytest.raises(ConnectionRefusedError):
            umbel.connect(listener.address)


def test_a_plan_of_one_scheme_leaves_the_others_alone() -> None:
    with faults.plan(scheme="tcp", refused_connects=1, reset_after=0):
        with umbel.listen("mem://x") as listener:
            umbel.hclose(umbel.connect(listener.address))
        with pytest.raises(ConnectionRefusedError):
            umbel.connect("tcp://127.0.0.1:1")


def test_a_stream_with_faults_keeps_its_other_abilities() -> None:
    with faults.plan():
        left, right = umbel.pair("ipc")

        assert umbel.query(left, umbel.PeerIdentity).pid == os.getpid()
        assert left.fileno() >= 0
        umbel.bsend(left, b"x")
        umbel.brecv(right, 1)
        umbel.flush(left, 0)

        abort(left, right)


def test_an_open_stream_with_faults_can_be_sent_on() -> None:
    with faults.plan(seed=5, short_reads=1, split_writes=1):
        left, right = umbel.pair("ipc")
        moved, peer = umbel.pair("ipc")
        umbel.send_handle(left, moved)
        received = umbel.receive_handle(right)
        assert isinstance(received, umbel.StreamHandle)
        umbel.bsend(peer, b"hello")

        assert umbel.brecv(received, 5) == b"hello"

        abort(left, right, received, peer)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sed=7", "there is seed"),
        ("short_reads=often", "float"),
        ("short_reads=2", "0 to 1"),
        ("short_reads=nan", "0 to 1"),
        ("latency=-1", "0 or more"),
        ("latency=inf", "0 or more"),
        ("reset_after=-1", "0 or more"),
        ("seed", "int"),
    ],
)
def test_faults_that_cannot_be_are_einval(text: str, why: str) -> None:
    with pytest.raises(OSError, match=why) as caught:
        faults.Faults.parse(text)

    assert caught.value.errno == errno.EINVAL


def test_a_program_with_a_wrong_environment_has_no_stream() -> None:
    code = """
import umbel
for _ in range(2):
    try:
        umbel.pair("mem")
    except OSError as error:
        print(error.errno)
"""
    printed = run_python(code, UMBEL_PLUGINS="faults", UMBEL_FAULTS="short_reads=7")

    assert printed == f"{errno.EINVAL}\n" * 2


def test_a_plan_loads_the_plugin() -> None:
    code = """
import umbel
from umbel_plugins import faults
with faults.plan(refused_connects=1):
    try:
        umbel.connect("mem://x")
    except ConnectionRefusedError as error:
        print("planned" in str(error))
"""
    assert run_python(code) == "True\n"


#: Behaviours of the kit that move bytes in tens of thousands of calls.
MANY_CALLS = {9, 11}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "driver"), [("mem", "threads"), ("tcp", "coroutines")]
)
def test_the_kits_behaviours_of_bytes_hold_under_faults(
    scheme: str, driver: str
) -> None:
    numbers = set(range(1, 35)) - MANY_CALLS

    with faults.plan(seed=7, short_reads=0.5, split_writes=0.5, latency=0.001):
        late = check(scheme, numbers, [driver])
    with faults.plan(seed=7, short_reads=0.5, split_writes=0.5):
        many = check(scheme, MANY_CALLS, [driver])

    assert late.failed + many.failed == []
    assert len([v for v in late.verdicts if v.state == "passed"]) > 20


def test_a_plan_that_is_entered_again_makes_no_false_end() -> None:
    again = faults.plan(reset_after=10)
    with again:
        left, right = umbel.pair()
    umbel.bsend(right, bytes(1100))
    umbel.brecv(left, 1000)  # more than the plan has left, but it is not active

    with again:
        assert umbel.brecv(left, 10) == bytes(10)
        with pytest.raises(umbel.BrokenStreamError, match="planned"):
            umbel.receive(left)
    umbel.hclose(left)
    umbel.hclose(right)


def test_a_flush_amid_faults_ends_at_its_deadline() -> None:
    with faults.plan():
        left, right = umbel.pair("ipc")
        umbel.bsend(left, b"unread")

        for deadline in (0, umbel.within(0.01)):
            with pytest.raises(umbel.DeadlineError):
                umbel.flush(left, deadline)

        abort(left, right)


def test_bytes_that_travel_with_descriptors_bring_the_reset_nearer() -> None:
    with faults.plan(reset_after=3):
        left, right = umbel.pair("ipc")
        umbel.send_with_fds(left, b"12", [0])

        with pytest.raises(umbel.BrokenStreamError) as caught:
            umbel.bsend(left, b"34")

        assert caught.value.bytes_done == 1
        abort(left, right)
