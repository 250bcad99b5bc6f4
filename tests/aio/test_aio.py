"""The awaitable verbs themselves; what a loop's cancellation does is elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack

import anyio
import pytest
import trio

import umbel
from tests.mutants import opaque
from tests.support import (
    PATIENCE,
    Ends,
    RunLoop,
    have_the_next_wait,
    open_descriptors,
    soon,
)
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.aio.aio_host import AioHost
from umbel.aio.guest import Sleep
from umbel.handle import open_handles, where_opened
from umbel.streams.connection import find_connection
from umbel.testing.transports import transport_at_hand


def test_what_can_be_done_at_once_awaits_nothing(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        await aio.bsend(left, b"let the hub become a guest")
        for call in (aio.bsend(left, b"x"), aio.receive(right), aio.done(left)):
            with pytest.raises(StopIteration):
                call.send(None)  # it ends at its first step

    asyncio.run(main())


def test_what_must_wait_creates_one_future(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    made: list[object] = []

    async def main() -> None:
        await aio.bsend(left, b"x")
        assert await aio.receive(right) == b"x"
        host = current_hub().host
        assert isinstance(host, AioHost)
        make_sleep = host.make_sleep

        def count_and_make() -> Sleep:
            made.append(1)
            return make_sleep()

        monkeypatch.setattr(host, "make_sleep", count_and_make)
        receiving = asyncio.create_task(aio.receive(right, 10, soon()))
        await asyncio.sleep(0)
        await aio.bsend(left, b"y")
        assert await receiving == b"y"

    asyncio.run(main())

    assert len(made) == 1


@pytest.mark.parametrize("way", ["receive", "brecv"])
def test_who_tries_once_finds_what_has_just_come(ends: Ends, way: str) -> None:
    left, right = ends
    have_the_next_wait(left, right)

    async def main() -> bytes:
        with pytest.raises(umbel.DeadlineError):
            await aio.receive(left, deadline=0)
        find_connection(left).waits_left = 255
        find_connection(left).readiness.is_drained = True  # as after a short read
        umbel.bsend(right, b"x")
        if way == "receive":
            return await aio.receive(left, deadline=0)
        return await aio.brecv(left, 1, 0)

    assert asyncio.run(main()) == b"x"


@pytest.mark.parametrize(
    "verb",
    ["bsend", "receive", "brecv", "accept", "receive_exactly", "listener.accept"],
)
def test_what_can_not_be_done_in_time_is_etimedout(run: RunLoop, verb: str) -> None:
    async def main() -> None:
        left, right = aio.ipc_pair()
        plain = aio.listen("mem://nobody")
        listener = aio.listen(f"ipc:@umbel-test-nobody-{os.getpid()}")
        calls: dict[str, Callable[[int], Awaitable[object]]] = {
            "bsend": lambda until: aio.bsend(left, bytes(64 << 20), until),
            "receive": lambda until: aio.receive(left, 1, until),
            "brecv": lambda until: aio.brecv(left, 1, until),
            "accept": lambda until: aio.accept(plain, until),
            "receive_exactly": lambda until: left.receive_exactly(1, until),
            "listener.accept": listener.accept,
        }
        until = umbel.within(0.01)
        with pytest.raises(umbel.DeadlineError):
            await calls[verb](until)
        assert until <= umbel.now() < until + 5000
        for handle in (left, right, plain, listener):
            handle.abort()

    run(main)


@pytest.mark.parametrize("before", ["nothing", "a loop of asyncio's"])
def test_in_trio_a_canceled_task_makes_no_call_though_it_need_not_wait(
    ends: Ends, before: str
) -> None:
    left, right = ends
    if before != "nothing":
        asyncio.run(aio.msleep(0))
        umbel.yield_()

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await aio.bsend(left, b"never sent")
        assert scope.cancelled_caught
        await aio.bsend(left, b"x")

    trio.run(main)

    assert umbel.receive(right, 16, soon()) == b"x"


def test_coroutines_of_umbel_run_beside_tasks_though_no_verb_was_awaited_before(
    ends: Ends,
) -> None:
    left, right = ends
    got: list[bytes] = []

    async def main() -> None:
        with_deadline = umbel.go(lambda: got.append(umbel.brecv(right, 3, soon())))
        os.write(left.fileno(), b"abc")
        while not got:
            await asyncio.sleep(0.001)
        umbel.hclose(with_deadline)

    asyncio.run(main())

    assert got == [b"abc"]


def test_a_deadline_of_a_coroutine_is_kept_by_the_loop(
    ends: Ends, run: RunLoop
) -> None:
    left, _ = ends

    async def main() -> None:
        def wait() -> None:
            with pytest.raises(umbel.DeadlineError):
                umbel.receive(left, 1, umbel.within(0.02))

        with umbel.bundle() as bundle:
            bundle.go(wait)
            await aio.bundle_wait(bundle, soon())

    run(main)


def test_loops_that_take_turns_in_a_thread_are_told_apart(ends: Ends) -> None:
    left, right = ends

    async def exchange() -> bytes:
        receiving = asyncio.ensure_future(aio.receive(right, 10, soon()))
        await asyncio.sleep(0)
        await aio.bsend(left, b"x")
        return await receiving

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        for loop in (first, second, first, second):
            assert loop.run_until_complete(exchange()) == b"x"
        trio.run(_exchange_in_trio, left, right)
        assert first.run_until_complete(exchange()) == b"x"
    finally:
        first.close()
        second.close()


def test_a_trio_that_can_not_be_asked_whether_it_runs_is_known_all_the_same(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    monkeypatch.delattr(trio.lowlevel, "in_trio_run")  # new in trio 0.29

    async def main() -> None:
        await _exchange_in_trio(left, right)
        with pytest.raises(RuntimeError, match=r"await umbel\.aio\.receive"):
            umbel.receive(right, 10, soon())

    trio.run(main)
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(right, 10, umbel.within(0.005))


async def _exchange_in_trio(
    left: umbel.StreamHandle, right: umbel.StreamHandle
) -> None:
    async def send() -> None:
        await trio.lowlevel.checkpoint()
        await aio.bsend(left, b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await aio.receive(right, 10, soon()) == b"x"


def test_when_a_loop_has_ended_the_blocking_verbs_wait_as_ever(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        with pytest.raises(umbel.DeadlineError):
            await aio.receive(right, 10, umbel.within(0.005))

    asyncio.run(main())

    with umbel.go(umbel.bsend, left, b"x"):
        assert umbel.receive(right, 10, soon()) == b"x"
    with umbel.go(umbel.receive, right, 10, soon()):
        umbel.msleep(umbel.now() + 5)
        umbel.bsend(left, b"y")


def test_blocking_code_runs_in_the_task_itself(ends: Ends) -> None:
    left, right = ends
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[object] = []

    def blocking() -> bytes:
        seen.append(asyncio.current_task())
        data = umbel.brecv(right, 3, soon())
        seen.append(asyncio.current_task())
        variable.set("by blocking code")
        return data

    async def main() -> None:
        sending = asyncio.create_task(aio.bsend(left, b"abc"))
        assert await aio.run_blocking(blocking) == b"abc"
        assert seen == [asyncio.current_task()] * 2
        assert variable.get() == "by blocking code"
        await sending

    asyncio.run(main())


def test_what_it_sets_first_of_all_context_variables_stays_set_too() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def main() -> str:
        await aio.run_blocking(variable.set, "by blocking code")
        return variable.get()

    assert contextvars.Context().run(asyncio.run, main()) == "by blocking code"


def test_what_a_task_has_ended_with_keeps_no_context_variables_alive(
    run: RunLoop,
) -> None:
    class Large:
        pass

    variable = contextvars.ContextVar[Large]("variable")
    seen: list[weakref.ref[Large]] = []

    async def work() -> None:
        variable.set(large := Large())
        seen.append(weakref.ref(large))
        await aio.run_blocking(umbel.msleep, umbel.within(0.001))

    async def main() -> None:
        await aio.msleep(0)  # the loop's own callbacks have this task's variables
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(work)
        await aio.msleep(umbel.within(0.002))  # the loop's last alarm is over, too
        gc.collect()
        assert [reference() for reference in seen] == [None] * 5

    run(main)


@pytest.mark.parametrize("scheme", ["mem", "opaque"])
def test_what_a_task_opened_is_known_by_its_line(run: RunLoop, scheme: str) -> None:
    async def main() -> None:
        listener = aio.listen(umbel.Address(scheme, "line"))
        client = await aio.connect(listener.address, soon())
        line = sys._getframe().f_lineno - 1
        server = await listener.accept(soon())
        for stream, where in (client, line), (server, line + 2):
            assert where_opened(open_handles[stream]) == f"{__file__}:{where}"
            stream.abort()
        listener.abort()

    with ExitStack() as stack:
        if scheme == "opaque":
            stack.enter_context(transport_at_hand(opaque.transport, scheme))
        run(main)


def test_blocking_code_may_start_coroutines_and_wait_for_them(run: RunLoop) -> None:
    def blocking() -> list[int]:
        ours, theirs = umbel.chmake(int)
        with ours, theirs, umbel.bundle() as bundle:
            for number in range(3):
                bundle.go(ours.send, number)
            return [theirs.receive(soon()) for _ in range(3)]

    async def main() -> None:
        assert await aio.run_blocking(blocking) == [0, 1, 2]

    run(main)


def test_a_close_in_another_thread_is_ebadf_for_a_task_that_waits(run: RunLoop) -> None:
    left, right = umbel.pair("mem")

    async def main() -> None:
        closing = threading.Timer(0.02, umbel.hclose, (left,))
        closing.start()
        with pytest.raises(umbel.BadHandleError):
            await aio.receive(left, 10, soon())
        closing.join()

    run(main)
    umbel.hclose(right)


def test_a_close_that_tries_once_lets_who_waits_leave_first(run: RunLoop) -> None:
    async def flush(stream: aio.AsyncStreamHandle) -> None:
        with pytest.raises(umbel.BadHandleError):
            await aio.flush(stream)

    async def main() -> None:
        for _ in range(20):  # trio lets tasks run in any order
            near, far = aio.pair("ipc")
            await near.send(b"unread")
            await far.done()  # all that the close has to wait for
            async with anyio.create_task_group() as group:
                group.start_soon(flush, near)
                await anyio.wait_all_tasks_blocked()
                assert await near.close(0) == umbel.CloseReport(consumed=False)
            far.abort()

    run(main)


def test_a_close_just_as_a_receive_looks_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, right = umbel.pair("mem")

    def look(_max_bytes: int) -> None:
        closing = threading.Thread(target=umbel.hclose, args=(left,))
        closing.start()
        closing.join()

    monkeypatch.setattr(find_connection(left), "try_receive", look)

    with pytest.raises(umbel.BadHandleError, match="closed meanwhile"):
        asyncio.run(aio.receive(left, 10, soon()))
    umbel.hclose(right)


def test_handles_of_both_kinds_name_one_stream() -> None:
    left, right = umbel.pair("mem")
    number = int(left)

    awaited = aio.as_async(left)
    del left  # it does not own the stream any more

    assert int(awaited) == number
    assert number in open_handles
    blocking = aio.as_blocking(awaited)
    del awaited
    umbel.bsend(right, b"x")
    assert blocking.receive(1, soon()) == b"x"
    umbel.hclose(blocking)
    umbel.hclose(right)


def test_a_handle_of_either_kind_is_recast_by_what_it_names() -> None:
    blocking: Callable[[object], int] = aio.as_blocking  # type: ignore[assignment]
    awaited: Callable[[object], int] = aio.as_async  # type: ignore[assignment]
    owners = [blocking(umbel.listen("mem://recast"))]
    owners.append(awaited(owners[-1]))
    owners.append(awaited(owners[-1]))

    kinds = [umbel.ListenerHandle, aio.AsyncListenerHandle, aio.AsyncListenerHandle]
    assert [type(owner) for owner in owners] == kinds
    umbel.hclose(owners[-1])
    for recast in (blocking, awaited):
        with pytest.raises(umbel.BadHandleError):
            recast(owners[-1])
        with umbel.bundle() as bundle, pytest.raises(umbel.NotSupportedError):
            recast(bundle)


def test_a_forgotten_handle_of_a_loop_is_told_of_and_closed() -> None:
    async def main() -> None:
        left, right = aio.pair("mem")
        with pytest.warns(ResourceWarning, match="was never closed"):
            del left
        assert await right.receive() == b""
        right.abort()

    asyncio.run(main())


def test_a_task_that_fails_leaves_no_cycles_that_keep_sockets_alive(
    run: RunLoop,
) -> None:
    async def wait_in_vain() -> None:
        left, right = umbel.pair("ipc")
        for call in (aio.receive, aio.brecv):
            with pytest.raises(umbel.DeadlineError):
                await call(left, 5, umbel.within(0.002))
        umbel.hclose(left)
        umbel.hclose(right)

    async def main() -> None:
        await wait_in_vain()
        before = open_descriptors()
        gc.disable()
        try:
            for _ in range(3):
                await wait_in_vain()
            assert open_descriptors() <= before
        finally:
            gc.enable()

    run(main)


def test_without_a_loop_the_verbs_say_so(ends: Ends) -> None:
    call = aio.flush(ends[0])

    with pytest.raises(RuntimeError, match="needs a running asyncio or trio loop"):
        call.send(None)


def test_a_loop_in_a_coroutine_of_umbel_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="main program"):
            await aio.msleep(0)

    with umbel.go(lambda: asyncio.run(main())):
        pass


def test_an_accepted_stream_and_its_peer_talk_and_part(run: RunLoop) -> None:
    async def main() -> None:
        async with aio.listen("mem://aio") as listener:
            client = await aio.connect(listener.address, soon())
            server = await listener.accept(soon())
            async with client, server:
                await client.send(b"ping")
                assert await server.receive_exactly(4) == b"ping"
                await client.done()
                assert [chunk async for chunk in server] == []

    run(main)


def test_a_close_by_another_just_as_a_block_ends_is_no_error() -> None:
    left, right = aio.pair("mem")

    async def close() -> None:
        left.abort()

    async def main() -> None:
        async with left:
            await aio.msleep(0)
            closing = asyncio.create_task(close())
            current_hub().budget = 0  # so that the end of the block lets it run first
        await closing
        right.abort()

    asyncio.run(main())


def test_the_end_of_a_block_waits_for_the_peer_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, run: RunLoop
) -> None:
    monkeypatch.setattr("umbel.aio.handle.CLOSE_GRACE", 0.02)
    left, right = aio.pair("mem")

    async def main() -> None:
        with anyio.fail_after(PATIENCE), pytest.raises(umbel.DeadlineError):
            async with left:
                pass

    run(main)
    right.abort()


@pytest.mark.parametrize("receive", [aio.receive, aio.brecv], ids=["receive", "brecv"])
def test_the_deadline_of_a_call_that_is_over_ends_no_later_one(
    ends: Ends,
    receive: Callable[[umbel.StreamHandle, int, int], Coroutine[None, None, bytes]],
) -> None:
    left, right = ends

    async def main() -> None:
        deadline = umbel.within(0.05)
        first = asyncio.create_task(receive(left, 1, deadline))
        await asyncio.sleep(0)  # it waits
        umbel.bsend(right, b"1")
        assert await first == b"1"

        second = asyncio.create_task(receive(left, 1, umbel.FOREVER))
        await aio.msleep(deadline + 10)
        umbel.bsend(right, b"2")
        assert await asyncio.wait_for(second, PATIENCE) == b"2"

    asyncio.run(main())
