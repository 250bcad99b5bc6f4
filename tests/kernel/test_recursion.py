"""Coroutines and the limit of recursion: each begins afresh, and only it is hit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import umbel
from tests.support import Ends, pattern, watched_stream
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.handle import hclose_if_open
from umbel.streams.connection import find_connection

trio = pytest.importorskip("trio")

LIMIT = sys.getrecursionlimit()
#: Its callbacks may fail for want of room before any line of ours.
IS_MONITORED = sys.version_info >= (3, 12) and bool(
    sys.monitoring.get_tool(sys.monitoring.COVERAGE_ID)
)
pytestmark = pytest.mark.skipif(IS_MONITORED, reason="coverage is measured")


def at_depth(depth: int, call: Callable[[], object]) -> None:
    if depth:
        at_depth(depth - 1, call)
    else:
        call()


async def dive(depth: int, call: Callable[[], Awaitable[object]]) -> None:
    """As `at_depth`, in a task."""
    if depth:
        await dive(depth - 1, call)
    else:
        await call()


def test_who_starts_coroutines_deep_down_leaves_them_no_less_room() -> None:
    failures: list[RecursionError] = []

    def go_down() -> None:
        umbel.yield_()
        try:
            at_depth(LIMIT // 2, lambda: None)
        except RecursionError as error:
            failures.append(error)

    def start() -> None:
        with umbel.go(go_down):
            pass

    with umbel.bundle() as running:
        at_depth(LIMIT // 2, start)
        for _ in range(10):  # and whoever takes their carriers
            running.go(go_down)

    assert failures == []


def test_bundles_nest_as_deep_as_there_is_memory() -> None:
    ended = 0

    def enter(level: int) -> None:
        nonlocal ended
        try:
            with umbel.bundle() as inner:
                if level:
                    inner.go(enter, level - 1)
                umbel.msleep(-1)
        finally:
            ended += 1

    umbel.hclose(umbel.go(enter, 400))

    assert ended == 401


def test_who_hits_the_limit_in_a_verb_loses_no_event_of_others() -> None:
    count = 160
    got: list[int] = []
    pairs = [umbel.ipc_pair() for _ in range(count)]
    idle, peer = umbel.ipc_pair()

    def read(number: int) -> None:
        umbel.brecv(pairs[number][0], 1)
        got.append(number)

    def look() -> None:
        try:
            umbel.receive(idle, deadline=0)
        except umbel.DeadlineError:
            pass

    def dive() -> None:
        for number in range(count):
            umbel.bsend(pairs[number][1], b"x")
            try:
                at_depth(LIMIT - count + number, look)
            except RecursionError:
                pass

    with umbel.bundle() as readers:
        for number in range(count):
            readers.go(read, number)
        with umbel.go(dive):
            pass
        umbel.bundle_wait(readers, umbel.within(20))

    assert sorted(got) == list(range(count))
    for pair in [*pairs, (idle, peer)]:
        for end in pair:
            umbel.hclose(end)


@pytest.mark.parametrize("descriptors", [True, False])
def test_who_hits_the_limit_in_a_verb_loses_no_bytes_of_others(
    descriptors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel_transports.ipc.set_descriptors", lambda *_: None)
    data = pattern(1000)  # more than a first read asks for
    got: list[bytes] = []
    idle, peer = umbel.ipc_pair()

    def look() -> None:
        with suppress(umbel.DeadlineError):
            umbel.receive(idle, deadline=0)

    def dive(depth: int) -> None:
        with suppress(RecursionError):
            at_depth(depth, look)

    for depth in range(LIMIT - 160, LIMIT):
        near, far = umbel.pair("ipc", descriptors=descriptors)
        got.clear()
        with umbel.go(got.extend, near):
            umbel.bsend(far, data)
            with umbel.go(dive, depth):
                pass
            umbel.done(far)
        umbel.hclose(near)
        umbel.hclose(far)

        assert b"".join(got) == data
    umbel.hclose(idle)
    umbel.hclose(peer)


def test_who_hits_the_limit_in_a_verb_loses_no_timer_of_others(ends: Ends) -> None:
    count = 160
    woken: list[int] = []

    def sleep(number: int, deadline: int) -> None:
        umbel.msleep(deadline)
        woken.append(number)

    def look() -> None:
        try:
            umbel.receive(ends[0], deadline=0)
        except umbel.DeadlineError:
            pass

    def dive() -> None:
        for number in range(count):
            due = umbel.now() + 1
            sleepers.go(sleep, number, due)
            while umbel.now() <= due:
                pass  # nobody has looked yet
            try:
                at_depth(LIMIT - count + number, look)
            except RecursionError:
                pass

    with umbel.bundle() as sleepers:
        with umbel.go(dive):
            pass
        umbel.bundle_wait(sleepers, umbel.within(20))

    assert sorted(woken) == list(range(count))


def test_who_hits_the_limit_in_a_verb_loses_nothing_that_was_posted() -> None:
    hub = current_hub()
    ran: list[int] = []

    def deep() -> None:
        if not ran and hub.current is not hub.main:
            raise RecursionError  # as it would at the limit
        ran.append(1)

    def look() -> None:
        hub.post(deep)
        with pytest.raises(RecursionError):
            hub.collect(0)

    umbel.hclose(umbel.go(look))
    umbel.msleep(0)

    assert ran == [1]


@pytest.mark.parametrize("close", [umbel.hclose, umbel.close])
def test_a_close_that_hits_the_limit_leaves_no_watch(
    close: Callable[[umbel.StreamHandle], object],
) -> None:
    hub = current_hub()

    def dive(stream: umbel.StreamHandle, depth: int) -> None:
        with suppress(RecursionError):
            at_depth(depth, lambda: close(stream))

    for depth in range(LIMIT - 160, LIMIT):
        near = watched_stream()
        fd = near.fileno()
        assert hub.watches.find(fd) is not None
        with umbel.go(dive, near, depth):
            pass
        hclose_if_open(near)

        # Or the next stream of that number would hang.
        assert hub.watches.find(fd) is None


def test_a_listener_whose_close_hits_the_limit_can_be_closed_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sock"

    def dive(listener: umbel.ListenerHandle, depth: int) -> None:
        with suppress(RecursionError):
            at_depth(depth, lambda: umbel.close(listener))

    for depth in range(LIMIT - 160, LIMIT):
        listener = umbel.ipc_listen(path)
        with umbel.go(dive, listener, depth):
            pass
        hclose_if_open(listener)

        assert not path.exists()


def test_an_object_of_the_programs_is_closed_once_though_it_hits_the_limit() -> None:
    calls = 0

    class Deep:
        def query(self, kind: type[object]) -> None:
            return None

        def close(self) -> None:
            nonlocal calls
            calls += 1
            raise RecursionError

    for close in (umbel.hclose, umbel.close):
        handle = umbel.hmake(Deep())
        with pytest.raises(RecursionError):
            close(handle)
        with pytest.raises(umbel.BadHandleError):
            close(handle)

    assert calls == 2


def test_a_call_that_hits_the_limit_leaves_no_direction_busy() -> None:
    def dive(call: Callable[[], object], depth: int) -> None:
        with suppress(RecursionError, ConnectionError):
            at_depth(depth, call)

    for depth in range(LIMIT - 160, LIMIT):
        near, far = umbel.ipc_pair()
        umbel.bsend(far, b"x")
        umbel.done(far)
        for call in (lambda s=near: umbel.brecv(s, 1), lambda s=near: umbel.done(s)):
            for _ in range(2):  # the second time it may be broken, or have ended
                with umbel.go(dive, call, depth):
                    pass
        found = find_connection(near)

        assert (found.sender, found.receiver) == (None, None)
        umbel.hclose(near)
        umbel.hclose(far)


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_a_task_that_hits_the_limit_leaves_the_loop_its_deadlines(
    run: Callable[..., None],
) -> None:
    async def main() -> None:
        near, far = aio.pair("ipc")

        async def wait() -> None:
            with suppress(umbel.DeadlineError):
                await near.receive(deadline=umbel.now() + 1)

        for depth in range(LIMIT - 160, LIMIT):
            with suppress(RecursionError):
                await dive(depth, wait)
        await aio.msleep(umbel.now() + 1)  # which would never end
        near.abort()
        far.abort()

    run(main() if run is asyncio.run else main)


def test_a_value_that_is_sent_at_the_limit_in_a_task_wakes_its_receiver_or_none() -> (
    None
):
    async def main() -> None:
        await aio.msleep(0)  # the hub is this loop's guest from now on
        for depth in range(LIMIT - 60, LIMIT):
            left, right = umbel.chmake(int)
            got: list[int | None] = []

            def receive(
                handle: umbel.ChannelHandle[int], found: list[int | None]
            ) -> None:
                try:
                    found.append(umbel.chrecv(handle, umbel.within(0.05)))
                except umbel.DeadlineError:
                    found.append(None)

            receiver = umbel.go(receive, right, got)
            try:
                at_depth(depth, partial(umbel.chsend, left, 1))
                is_sent = True
            except RecursionError:
                is_sent = False
            while not got:
                await asyncio.sleep(0.001)
            assert got == [1] or (not is_sent and got == [None])
            for handle in (receiver, left, right):
                umbel.hclose(handle)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_look_at_the_limit_in_a_task_queues_nobody_twice(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        near, far = aio.pair("ipc")

        async def look() -> None:
            with suppress(umbel.DeadlineError):
                await near.receive(deadline=0)

        for depth in range(LIMIT - 60, LIMIT):
            got: list[bytes] = []

            def read(found: list[bytes]) -> None:
                for _ in range(2):
                    found.append(umbel.receive(right, deadline=umbel.within(20)))
                    umbel.yield_()

            with umbel.bundle() as bundle:
                bundle.go(read, got)
                await asyncio.sleep(0)
                umbel.bsend(left, b"one")
                with suppress(RecursionError):
                    await dive(depth, look)
                while not got:
                    await asyncio.sleep(0)
                umbel.bsend(left, b"two")
                while len(got) < 2:
                    await asyncio.sleep(0)
            assert got == [b"one", b"two"]
        near.abort()
        far.abort()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_close_at_the_limit_tells_a_task_that_receives_or_can_be_made_again() -> None:
    async def main() -> None:
        for depth in range(LIMIT - 60, LIMIT):
            near, far = aio.pair("ipc")
            receiving = asyncio.ensure_future(near.receive())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with suppress(RecursionError):
                at_depth(depth, partial(umbel.hclose, near))
            hclose_if_open(near)
            with pytest.raises(umbel.BadHandleError):
                await asyncio.wait_for(receiving, 10)
            far.abort()

    asyncio.run(main())


def test_a_wait_that_hits_the_limit_in_a_task_leaves_no_deadline_to_the_next() -> None:
    async def main() -> None:
        near, far = aio.pair("ipc")
        first = umbel.within(2)
        for depth in range(LIMIT - 60, LIMIT):
            # Each is sooner than the ones before, so that the loop is told of it.
            first -= 20
            waiting = asyncio.ensure_future(
                dive(depth, partial(near.receive, deadline=first))
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError, RecursionError):
                await waiting
        receiving = asyncio.ensure_future(near.receive())
        await asyncio.sleep(0)
        await aio.msleep(first + 60 * 20 + 50)
        await far.send(b"x")
        assert await receiving == b"x"
        near.abort()
        far.abort()

    asyncio.run(main())
