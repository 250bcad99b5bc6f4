"""Loops that are closed, nested, interleaved or moved, and what waits in them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import umbel
from tests.support import PATIENCE, Ends, soon, turn, wait_until
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.handle import open_handles
from umbel.plugins import remove_plugin
from umbel_plugins import faults

trio = pytest.importorskip("trio")

Sleep = Callable[[float], Awaitable[object]]


async def talk() -> None:
    """Have a task receive what another one sends a little later."""
    left, right = aio.pair()
    receiving = asyncio.create_task(right.receive(100, soon()))
    await asyncio.sleep(0.01)
    await left.send(b"x")
    assert await asyncio.wait_for(receiving, 20) == b"x"
    left.abort()
    right.abort()


async def talk_in_trio() -> None:
    left, right = aio.pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, b"x")
        with trio.fail_after(20):
            assert await right.receive() == b"x"
    left.abort()
    right.abort()


def end(task: asyncio.Task[Any]) -> None:
    """End what *task* runs, whose loop is closed."""
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()


# Closed.


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", ["data", "deadline"])
def test_a_loop_closed_with_a_task_in_a_verb_harms_nobody(
    ends: Ends, what: str
) -> None:
    loop = asyncio.new_event_loop()
    forgotten: list[asyncio.Task[bytes]] = []

    async def leave() -> None:
        deadline = umbel.within(0.05) if what == "deadline" else -1
        forgotten.append(asyncio.create_task(aio.receive(ends[0], 100, deadline)))
        await asyncio.sleep(0.01)

    loop.run_until_complete(leave())
    loop.close()
    if what == "data":
        umbel.bsend(ends[1], b"for nobody")

    left, right = umbel.pair()
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(left, 100, umbel.within(0.1))
    asyncio.run(talk())
    umbel.hclose(left)
    umbel.hclose(right)
    forgotten.clear()


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("has_run", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("place", ["main", "coroutine", "thread"])
def test_a_task_that_is_closed_after_its_loop_ends_what_it_ran(
    place: str, has_run: bool, is_closed: bool
) -> None:
    loop = asyncio.new_event_loop()
    listener = umbel.listen("mem://forgotten")
    task = loop.create_task(aio.accept(listener))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    if is_closed:
        umbel.hclose(listener)  # which makes it ready
    if has_run:
        umbel.msleep(umbel.within(0.01))

    close = partial(end, task)
    if place == "main":
        close()
    elif place == "coroutine":
        umbel.hclose(umbel.go(close))
    else:
        in_thread(close)
    umbel.msleep(umbel.within(0.01))

    if not is_closed:
        client = umbel.connect("mem://forgotten")
        umbel.hclose(umbel.accept(listener, soon()))
        umbel.hclose(client)
        umbel.hclose(listener)
    left, right = umbel.pair()
    with umbel.go(umbel.bsend, right, b"x"):
        assert umbel.brecv(left, 1, soon()) == b"x"
    umbel.hclose(left)
    umbel.hclose(right)


@pytest.mark.parametrize("moment", ["at once", "alone again", "woken before"])
def test_an_orderly_close_does_not_wait_for_a_task_of_a_closed_loop(
    ends: Ends, moment: str
) -> None:
    left, right = ends
    loop = asyncio.new_event_loop()
    receiving = loop.create_task(aio.receive(left))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    if moment == "alone again":
        umbel.msleep(umbel.within(0.01))
    umbel.done(right)
    if moment == "woken before":
        umbel.msleep(umbel.within(0.01))

    assert umbel.close(left, soon()).consumed

    end(receiving)


def test_a_send_of_a_closed_loop_leaves_a_stream_that_was_closed_since(
    ends: Ends,
) -> None:
    loop = asyncio.new_event_loop()
    sending = loop.create_task(aio.bsend(ends[0], bytes(50_000_000)))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()

    umbel.hclose(ends[0])

    end(sending)


def test_a_server_that_is_closed_after_its_loop_frees_what_it_has() -> None:
    listener = umbel.listen("mem://forgotten")
    client = umbel.connect("mem://forgotten")
    begun: list[asyncio.Task[None]] = []

    async def handler(stream: aio.AsyncStreamHandle) -> None:
        begun.append(asyncio.current_task())  # type: ignore[arg-type]  # in one
        await aio.receive(stream)

    async def main() -> asyncio.Task[None]:
        server = asyncio.create_task(aio.serve(listener, handler))
        while not begun:
            await asyncio.sleep(0)
        return server

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(main())
    loop.close()
    for task in (server, *begun):
        end(task)

    assert listener not in open_handles
    assert umbel.receive(client, 1, soon()) == b""
    umbel.hclose(client)


# Stopped by a blocking verb.


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_a_task_may_close_a_bundle_of_which_one_awaits_something(kind: str) -> None:
    def wait(sleep: Sleep) -> None:
        aio.wait(sleep(20))

    async def main(sleep: Sleep) -> None:
        bundle = umbel.go(wait, sleep)
        await sleep(0.01)
        umbel.hclose(bundle)

    if kind == "trio":
        trio.run(main, trio.sleep)
    else:
        asyncio.run(main(asyncio.sleep))


def test_a_task_that_closes_a_bundle_which_takes_its_time_goes_on_unharmed(
    ends: Ends,
) -> None:
    hub = current_hub()
    has_begun = threading.Event()

    def end_slowly() -> None:
        has_begun.set()
        try:
            umbel.msleep(-1)
        finally:
            wait_until(lambda: hub.main.is_parked, "the task's wait")

    def work(inner: umbel.BundleHandle) -> None:
        inner.go(end_slowly)
        with suppress(umbel.BadHandleError):  # it is closed meanwhile
            umbel.bundle_wait(inner)

    def have_it_done_elsewhere() -> None:
        with umbel.bundle() as inner:
            threading.Thread(target=work, args=(inner,)).start()
            has_begun.wait(PATIENCE)
            umbel.msleep(-1)

    async def main() -> None:
        umbel.hclose(umbel.go(have_it_done_elsewhere))
        umbel.bsend(ends[0], b"x")  # it would raise what is pending
        assert await aio.receive(ends[1]) == b"x"

    asyncio.run(main())


def test_a_blocking_verb_in_a_task_is_refused_though_a_coroutine_is_busy(
    ends: Ends,
) -> None:
    is_over = False

    def work() -> None:
        while not is_over:
            umbel.yield_()

    async def main() -> None:
        nonlocal is_over
        busy = umbel.go(work)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"umbel\.aio\.receive"):
            umbel.receive(ends[0])
        is_over = True
        await aio.close(busy)

    asyncio.run(main())


# What a coroutine awaits of its host.


def test_an_await_whose_deadline_has_come_ends_before_it_began() -> None:
    told: list[type[BaseException]] = []

    def wait() -> None:
        try:
            aio.wait(asyncio.sleep(0.01), umbel.now())
        except umbel.DeadlineError as error:
            told.append(type(error))

    async def main() -> None:
        waiting = umbel.go(wait)
        await aio.bundle_wait(waiting, soon())
        await aio.close(waiting)

    asyncio.run(main())

    assert told == [umbel.DeadlineError]


def test_a_task_that_is_awaited_when_its_deadline_has_come_is_canceled() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(20))
        with pytest.raises(umbel.DeadlineError):
            await aio.run_blocking(aio.wait, task, 0)
        assert task.cancelled()

    asyncio.run(main())


def test_one_that_is_done_gives_its_result_all_the_same() -> None:
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        done.set_result(7)
        assert await aio.run_blocking(aio.wait, done, 0) == 7

    asyncio.run(main())


def test_an_await_is_canceled_in_the_step_in_which_it_began() -> None:
    async def main() -> None:
        waiting = umbel.go(lambda: aio.wait(asyncio.sleep(20)))
        async with asyncio.timeout(20):
            await aio.close(waiting)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_who_awaits_is_told_that_the_loop_has_ended(kind: str) -> None:
    bundles: list[umbel.BundleHandle] = []
    told: list[BaseException] = []

    def wait(sleep: Sleep) -> None:
        try:
            aio.wait(sleep(20))
        except BaseException as error:
            told.append(error)
            raise

    async def main(sleep: Sleep) -> None:
        bundles.append(umbel.go(wait, sleep))
        await sleep(0.01)

    if kind == "trio":
        trio.run(main, trio.sleep)
    else:
        asyncio.run(main(asyncio.sleep))

    with pytest.raises(BaseExceptionGroup):
        umbel.bundle_wait(bundles[0], soon())
    umbel.hclose(bundles[0])
    assert len(told) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of 3.12")
def test_eager_tasks_that_a_coroutine_starts_may_await_what_runs_on_a_stack() -> None:
    tasks: list[asyncio.Task[None]] = []

    def start() -> None:
        tasks.append(asyncio.get_running_loop().create_task(aio.msleep(soon())))
        tasks.append(asyncio.get_running_loop().create_task(aio.msleep(0)))

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        bundle = umbel.go(start)
        await asyncio.wait_for(tasks[1], PATIENCE)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        umbel.hclose(bundle)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of 3.12")
def test_what_is_awaited_does_not_begin_on_the_coroutines_stack(ends: Ends) -> None:
    got: list[bytes] = []

    async def receive_later() -> bytes:
        await aio.msleep(umbel.within(0.01))
        return await aio.receive(ends[0])

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        receiving = umbel.go(lambda: got.append(aio.wait(receive_later())))
        await asyncio.sleep(0.02)
        await aio.bsend(ends[1], b"x")
        await aio.bundle_wait(receiving, soon())
        await aio.close(receiving)

    asyncio.run(main())

    assert got == [b"x"]


# One in another, one after the other, one in another thread.


def test_asyncio_runs_in_a_task_of_trio() -> None:
    async def main() -> None:
        await talk_in_trio()
        asyncio.run(talk())
        await talk_in_trio()

    trio.run(main)


def test_trio_runs_in_a_task_of_asyncio() -> None:
    async def main() -> None:
        await talk()
        trio.run(talk_in_trio)
        await talk()

    asyncio.run(main())


def test_a_task_of_trio_is_woken_though_a_loop_in_another_one_has_ended() -> None:
    woken: list[int] = []

    async def wait() -> None:
        await aio.msleep(umbel.within(0.05))
        woken.append(1)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.01)
            asyncio.run(talk())

    trio.run(main)
    assert woken


def test_loops_in_tasks_of_trio_leave_no_tasks_there() -> None:
    def count() -> int:
        root = trio.lowlevel.current_root_task()
        return sum(len(nursery.child_tasks) for nursery in root.child_nurseries)

    async def main() -> None:
        await talk_in_trio()
        before = count()
        for _ in range(3):
            asyncio.run(talk())
            await talk_in_trio()
        with trio.fail_after(PATIENCE):
            while count() > before:
                await trio.sleep(0.001)

    trio.run(main)


@pytest.mark.parametrize("is_woken_before", [False, True])
def test_a_task_that_is_woken_as_an_inner_loop_ends_goes_on(
    is_woken_before: bool,
) -> None:
    left, right = umbel.chmake(int)

    def receive() -> int:
        found = right.receive()
        umbel.yield_()
        return found

    async def main() -> int:
        receiving = asyncio.create_task(aio.run_blocking(receive))
        await asyncio.sleep(0.01)
        if is_woken_before:
            umbel.chsend(left, 1)
        trio.run(talk_in_trio)
        if not is_woken_before:
            umbel.chsend(left, 1)
        return await asyncio.wait_for(receiving, 20)

    assert asyncio.run(main()) == 1
    left.abort()
    right.abort()


def test_a_task_that_begins_as_an_inner_loop_ends_goes_on() -> None:
    def work() -> int:
        umbel.yield_()
        return 7

    async def main() -> int:
        await aio.msleep(0)
        working = asyncio.create_task(aio.run_blocking(work))
        current_hub().budget = 0  # so that it lets others run first
        await asyncio.sleep(0)
        trio.run(talk_in_trio)
        return await asyncio.wait_for(working, 20)

    assert asyncio.run(main()) == 7


def test_a_receive_that_begins_as_an_inner_loop_ends_goes_on(ends: Ends) -> None:
    left, right = ends

    async def run_another() -> None:
        trio.run(talk_in_trio)

    async def main() -> bytes:
        await aio.msleep(0)
        receiving = asyncio.create_task(aio.receive(left, 100, soon()))
        current_hub().budget = -1  # so that it lets others run first
        await asyncio.create_task(run_another())
        umbel.bsend(right, b"x")
        return await receiving

    assert asyncio.run(main()) == b"x"


def test_a_bundle_is_closed_though_an_await_in_it_takes_its_time_to_end() -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            await asyncio.sleep(0.05)

    async def main() -> None:
        waiting = umbel.go(lambda: aio.wait(slow(), umbel.within(0.01)))
        await asyncio.sleep(0.03)  # its deadline has come, and `slow` takes its time
        with pytest.raises(ExceptionGroup, match="bundle") as caught:
            umbel.hclose(waiting)
        assert isinstance(caught.value.exceptions[0], umbel.DeadlineError)

    asyncio.run(main())


@pytest.mark.parametrize("is_closed", [False, True], ids=["stopped", "closed"])
def test_an_await_in_a_loop_that_does_not_run_ends_by_its_deadline(
    is_closed: bool,
) -> None:
    loop = asyncio.new_event_loop()

    def wait() -> None:
        # One that is closed never runs again.
        with pytest.raises(
            asyncio.CancelledError if is_closed else umbel.DeadlineError
        ):
            aio.wait(asyncio.sleep(20), umbel.within(0.05))

    async def begin() -> umbel.BundleHandle:
        waiting = umbel.go(wait)
        await asyncio.sleep(0)
        return waiting

    async def end(waiting: umbel.BundleHandle) -> None:
        await aio.bundle_wait(waiting, soon())

    waiting = loop.run_until_complete(begin())
    if is_closed:
        loop.close()
    asyncio.run(end(waiting))
    umbel.hclose(waiting)
    loop.close()


def test_of_two_loops_in_turns_each_wakes_its_own(ends: Ends) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    waiting: list[asyncio.Task[bytes]] = []

    async def begin() -> None:
        waiting.append(asyncio.create_task(aio.receive(ends[0], 100, soon())))
        await asyncio.sleep(0.01)

    async def end() -> bytes:
        umbel.bsend(ends[1], b"x")
        return await asyncio.wait_for(waiting.pop(), 20)

    first.run_until_complete(begin())
    second.run_until_complete(talk())
    got = first.run_until_complete(end())
    first.close()
    second.close()

    assert got == b"x"


def test_a_reset_is_raised_by_a_receive_that_began_in_the_loop_before(
    ends: Ends,
) -> None:
    left, right = ends

    async def main() -> None:
        umbel.bsend(left, b"never read")
        receiving = aio.receive(left)
        receiving.send(None)  # a future of the loop before
        umbel.hclose(right)
        turn()  # the hub receives for it, before trio has refused the future
        with pytest.raises(umbel.BrokenStreamError):
            receiving.throw(TypeError("trio.run received unrecognized yield message"))

    asyncio.run(talk())
    trio.run(main)


def test_what_the_hub_caught_for_it_there_comes_first(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        receiving = aio.receive(left)
        receiving.send(None)  # as above
        umbel.bsend(right, b"first")
        turn()
        umbel.bsend(right, b"then")
        with pytest.raises(StopIteration) as received:
            receiving.throw(TypeError("trio.run received unrecognized yield message"))
        assert received.value.value == b"first"
        assert await aio.receive(left) == b"then"

    asyncio.run(talk())
    trio.run(main)


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_loop_goes_on_in_another_thread_when_its_first_one_has_ended() -> None:
    loop = asyncio.new_event_loop()

    for _ in range(3):
        in_thread(lambda: loop.run_until_complete(talk()))
    loop.run_until_complete(talk())
    loop.close()


def test_blocking_code_of_a_thread_that_has_ended_can_be_closed_with_its_task() -> None:
    loop = asyncio.new_event_loop()
    begun: list[asyncio.Task[None]] = []

    async def begin() -> None:
        begun.append(asyncio.create_task(aio.msleep(-1)))
        await asyncio.sleep(0)

    in_thread(lambda: loop.run_until_complete(begin()))
    loop.close()

    end(begun.pop())


def test_a_loop_that_moves_on_leaves_its_first_thread_its_hub(ends: Ends) -> None:
    loop = asyncio.new_event_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    def echo() -> None:
        for chunk in ends[1]:
            umbel.bsend(ends[1], chunk)

    loop.run_until_complete(talk())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with umbel.go(echo):
        for number in range(200):
            umbel.bsend(ends[0], b"%d" % number)
            assert umbel.receive(ends[0], 100, soon()) == b"%d" % number
        asyncio.run_coroutine_threadsafe(talk(), loop).result(20)
        umbel.done(ends[0])
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()

    assert all("in another thread" in message for message in told)


# In the moment of a cancellation.


def test_a_receive_that_is_canceled_as_its_latency_ends_loses_nothing() -> None:
    async def main(rounds: int) -> bytes:
        with faults.plan(latency=0.01):
            left, right = aio.pair()
            await right.send(b"precious")
            receiving = asyncio.create_task(left.receive())
            await asyncio.sleep(0)
            time.sleep(0.02)  # its latency is over, and the loop has not looked
            for _ in range(rounds):
                await asyncio.sleep(0)
            receiving.cancel()
            try:
                return await receiving
            except asyncio.CancelledError:
                return await left.receive(100, soon())
            finally:
                left.abort()
                right.abort()

    got = [asyncio.run(main(rounds)) for rounds in range(5)]
    remove_plugin("faults")

    assert got == [b"precious"] * 5


def test_flush_is_ebadf_if_the_stream_is_closed_as_its_pause_ends() -> None:
    async def main() -> None:
        left, right = aio.pair()
        await left.send(b"unread")
        flushing = asyncio.create_task(aio.flush(left))
        for _ in range(6):  # each edge tells of room, too, so that it begins to pause
            await asyncio.sleep(0.03)
            await right.send(b"x")
        await asyncio.sleep(0.001)

        async def close() -> None:
            await aio.msleep(umbel.now() + 1)
            left.abort()

        closing = asyncio.create_task(close())
        await asyncio.sleep(0)
        time.sleep(0.05)  # now both are due at once
        with pytest.raises(umbel.BadHandleError):
            await flushing
        await closing
        right.abort()

    asyncio.run(main())


def test_two_threads_can_not_both_become_the_receiver() -> None:
    count = 300
    barrier = threading.Barrier(3)
    current: list[umbel.StreamHandle] = []
    told: list[str] = []

    async def receive() -> None:
        for _ in range(count):
            barrier.wait()
            try:
                told.append((await aio.receive(current[-1], 100, soon())).decode())
            except umbel.BusyError:
                told.append("busy")
            barrier.wait()

    threads = [
        threading.Thread(target=lambda: asyncio.run(receive()), daemon=True)
        for _ in range(2)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(count):
            left, right = umbel.pair()
            current.append(left)
            told.clear()
            barrier.wait()
            wait_until(lambda: told, "EBUSY for the second one")
            umbel.bsend(right, b"x")
            barrier.wait()
            assert sorted(told) == ["busy", "x"]
            umbel.hclose(left)
            umbel.hclose(right)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


# Interrupted.


@pytest.mark.parametrize("way", ["sleeps", "is ready"])
def test_a_loop_that_a_coroutine_has_interrupted_may_go_on(way: str) -> None:
    ran: list[int] = []

    def pause(count: int) -> None:
        if way == "sleeps":
            umbel.msleep(umbel.within(count / 100))
        else:
            for _ in range(count):
                umbel.yield_()

    def interrupt() -> None:
        pause(1)
        raise KeyboardInterrupt

    def work() -> None:
        pause(5)
        ran.append(1)

    async def main() -> None:
        bundle.go(interrupt)
        bundle.go(work)
        await asyncio.sleep(PATIENCE * 2)

    async def go_on() -> None:
        async with asyncio.timeout(PATIENCE):
            while not ran:
                await asyncio.sleep(0.001)

    bundle = umbel.bundle()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        runner.run(go_on())
    umbel.hclose(bundle)


def test_between_two_runs_of_a_loop_calls_that_never_wait_are_fair(ends: Ends) -> None:
    left, right = ends
    came: list[str] = []

    def timer() -> None:
        umbel.msleep(umbel.within(0.01))
        came.append("the timer")

    with asyncio.Runner() as runner:
        runner.run(aio.msleep(0))
        with umbel.go(timer):
            give_up = time.monotonic() + PATIENCE
            while not came and time.monotonic() < give_up:
                umbel.bsend(left, b"x")
                umbel.brecv(right, 1)
            assert came == ["the timer"]


def test_what_began_between_two_loops_goes_on_once_a_task_sends(ends: Ends) -> None:
    went_on: list[bool] = []

    def rest() -> None:
        umbel.msleep(umbel.within(0.001))
        went_on.append(True)

    asyncio.run(aio.msleep(0))
    resting = umbel.go(rest)

    async def main() -> None:
        await aio.bsend(ends[0], b"x")  # the first call here, which needn't wait
        async with asyncio.timeout(PATIENCE):
            while not went_on:
                await asyncio.sleep(0.001)

    asyncio.run(main())
    umbel.hclose(resting)
