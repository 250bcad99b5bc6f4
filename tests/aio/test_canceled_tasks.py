"""What the loop's own cancellation tells of a call that it ended, and leaves."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

import umbel
from tests.support import Ends, RunLoop, is_blocked, soon, turn
from umbel import aio
from umbel.handle import lookup, open_handles
from umbel.streams.listener import Listening


async def canceled(
    call: Awaitable[object], waits: Callable[[], bool]
) -> asyncio.CancelledError:
    """Cancel *call* when it *waits*, and give what it raised."""
    task = asyncio.ensure_future(call)
    while not waits():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value


def test_a_canceled_receipt_of_so_many_bytes_tells_how_many_had_come(
    ends: Ends,
) -> None:
    left, right = ends
    umbel.bsend(right, b"abc")

    error = asyncio.run(canceled(aio.brecv(left, 5), lambda: is_blocked(left)))

    assert vars(error)["bytes_done"] == 3
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(left)


def test_a_canceled_send_tells_how_many_bytes_went(ends: Ends) -> None:
    left, right = ends
    data = bytes(100_000_000)

    error = asyncio.run(canceled(aio.bsend(left, data), lambda: is_blocked(left)))

    count = vars(error)["bytes_done"]
    assert 0 < count < len(data)
    with pytest.raises(umbel.BrokenStreamError):
        umbel.bsend(left, b"more")
    assert umbel.brecv(right, count) == bytes(count)


def test_no_descriptor_is_given_while_bytes_of_it_are_here(ends: Ends) -> None:
    left, right = ends
    fd = left.fileno()

    async def main() -> None:
        receiving = asyncio.ensure_future(aio.receive(left))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await aio.bsend(right, b"here")
        turn()  # the hub receives them
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving

    asyncio.run(main())

    with pytest.raises(umbel.BusyError, match="receive them first"):
        left.fileno()
    assert umbel.receive(left, deadline=0) == b"here"
    assert left.fileno() == fd


def test_a_canceled_close_tells_what_is_known_of_the_peer(ends: Ends) -> None:
    left, _ = ends
    umbel.bsend(left, b"unread")

    # Once it has taken the handle, it goes on until it waits.
    error = asyncio.run(canceled(aio.close(left), lambda: left not in open_handles))

    assert vars(error)["report"] == umbel.CloseReport(consumed=False)
    with pytest.raises(umbel.BadHandleError):
        umbel.bsend(left, b"more")


def test_a_deadline_that_came_with_the_cancellation_is_not_told_to_the_next_call(
    ends: Ends,
) -> None:
    left, right = ends

    async def main() -> bytes:
        await aio.msleep(0)  # the hub is this loop's guest from now on
        receiving = asyncio.ensure_future(aio.receive(left, 1, umbel.now() + 20))
        await asyncio.sleep(0)
        time.sleep(0.03)  # the loop, too: both are to come in one round
        turn()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        receiving = asyncio.ensure_future(aio.receive(left, 1, umbel.within(20)))
        await asyncio.sleep(0)
        await aio.bsend(right, b"x")
        return await receiving

    assert asyncio.run(main()) == b"x"


def canceled_in_hand_over(
    receive: Callable[[], Awaitable[object]], send: Callable[[], None], count: int = 1
) -> Coroutine[object, object, None]:
    """Cancel tasks that *receive* in the very step in which others *send*."""

    async def run() -> None:
        tasks = [asyncio.ensure_future(receive()) for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            send()
            task.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task

    return run()


@pytest.mark.parametrize("is_blocking", [False, True])
@pytest.mark.parametrize("is_choice", [False, True])
def test_a_value_that_was_handed_to_a_canceled_task_is_received_next(
    *, is_choice: bool, is_blocking: bool
) -> None:
    left, right = umbel.chmake(int)
    values = iter(range(10))

    async def receive() -> int | None:
        if is_blocking and is_choice:
            return (await aio.run_blocking(umbel.choose, [umbel.Recv(left)]))[1]
        if is_blocking:
            return await aio.run_blocking(umbel.chrecv, left)
        if is_choice:
            return (await aio.choose([umbel.Recv(left)]))[1]
        value = await aio.chrecv(left)
        return value  # noqa: RET504 - or its type would be inferred from ours

    async def main() -> list[int]:
        await canceled_in_hand_over(
            receive, lambda: umbel.chsend(right, next(values), 0), 3
        )
        sender = asyncio.ensure_future(aio.chsend(right, 3))
        await asyncio.sleep(0)
        got = [await aio.chrecv(left, umbel.within(10)) for _ in range(4)]
        await sender
        return got

    assert asyncio.run(main()) == [0, 1, 2, 3]
    left.abort()
    right.abort()


def test_a_choice_that_had_sent_as_its_task_was_canceled_gives_nothing_back() -> None:
    left, right = umbel.chmake(int)
    got: list[int] = []

    async def send() -> None:
        await aio.run_blocking(umbel.choose, [umbel.Send(right, 7)])

    asyncio.run(canceled_in_hand_over(send, lambda: got.append(umbel.chrecv(left, 0))))

    assert got == [7]
    with pytest.raises(umbel.DeadlineError):
        umbel.choose([umbel.Recv(left), umbel.Recv(right)], 0)
    left.abort()
    right.abort()


def test_it_goes_to_who_waits_already() -> None:
    left, right = umbel.chmake(int)

    async def main() -> int:
        first, second = (asyncio.ensure_future(aio.chrecv(left)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        umbel.chsend(right, 7, 0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await asyncio.wait_for(second, 10)

    assert asyncio.run(main()) == 7
    left.abort()
    right.abort()


@pytest.mark.parametrize("end", [umbel.chdone, umbel.hclose])
def test_it_is_received_though_the_sender_has_ended_its_direction(
    end: Callable[[umbel.ChannelHandle[int]], None],
) -> None:
    left, right = umbel.chmake(int)

    async def main() -> None:
        await canceled_in_hand_over(
            partial(aio.chrecv, left), lambda: umbel.chsend(right, 7, 0)
        )

    asyncio.run(main())
    end(right)

    assert umbel.choose([umbel.Recv(left)], 0) == (0, 7)
    with pytest.raises(umbel.EndOfStreamError):
        umbel.chrecv(left, 0)
    left.abort()
    if end is umbel.chdone:
        right.abort()


def test_it_is_gone_with_the_channel() -> None:
    left, right = umbel.chmake(int)

    async def main() -> None:
        def send() -> None:
            umbel.chsend(right, 7, 0)
            left.abort()

        await canceled_in_hand_over(partial(aio.chrecv, left), send)

    asyncio.run(main())
    right.abort()


def test_a_stream_that_a_canceled_task_has_accepted_is_accepted_next(
    tmp_path: Path,
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()
    asked: list[threading.Thread] = []

    def answer() -> None:
        asked.append(threading.current_thread())
        is_asked.set()
        may_answer.wait(20)

    def ask(_: umbel.PeerIdentity) -> bool:
        umbel.to_thread(answer)  # its result counts, also if a cancellation comes then
        return True

    listener = umbel.listen(f"ipc:{tmp_path}/x.sock", allow=ask)
    client = umbel.connect(listener.address)

    async def main() -> bytes:
        accepting = asyncio.ensure_future(aio.ipc_accept(listener))
        while not is_asked.is_set():
            await asyncio.sleep(0)
        may_answer.set()
        asked[0].join()
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting
        server = await aio.ipc_accept(listener, umbel.within(10))
        umbel.bsend(client, b"here")
        data = await server.receive_exactly(4, umbel.within(10))
        server.abort()
        return data

    assert asyncio.run(main()) == b"here"
    umbel.hclose(client)
    umbel.hclose(listener)


class Kept(NamedTuple):
    """A connection whose server a canceled task has accepted, and left."""

    client: umbel.StreamHandle
    server: umbel.StreamHandle
    listener: umbel.ListenerHandle
    listening: Listening


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    listener = umbel.ipc_listen(tmp_path / "x.sock")
    client = umbel.ipc_connect(tmp_path / "x.sock")
    server = umbel.ipc_accept(listener)
    return Kept(client, server, listener, lookup(listener, Listening))


def test_also_by_accept(kept: Kept) -> None:
    kept.listening.keep(kept.server)

    async def main() -> None:
        again = await aio.accept(kept.listener, soon())
        assert int(again) == int(kept.server)
        again.abort()

    asyncio.run(main())
    umbel.hclose(kept.client)
    umbel.hclose(kept.listener)


def test_it_is_closed_with_the_listener(kept: Kept) -> None:
    kept.listening.keep(kept.server)

    umbel.hclose(kept.listener)

    assert umbel.receive(kept.client, 1, soon()) == b""
    umbel.hclose(kept.client)


def test_or_at_once_if_the_listener_is_closed_already(kept: Kept) -> None:
    umbel.hclose(kept.listener)

    kept.listening.keep(kept.server)

    assert umbel.receive(kept.client, 1, soon()) == b""
    umbel.hclose(kept.client)


def test_it_is_received_next_though_the_handle_was_handed_on() -> None:
    left, right = umbel.chmake(int)

    async def main() -> int:
        receiving = asyncio.ensure_future(aio.chrecv(left))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        owned = umbel.hown(left)
        umbel.chsend(right, 7, 0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        value = await aio.chrecv(owned, umbel.within(10))
        owned.abort()
        return value

    assert asyncio.run(main()) == 7
    right.abort()


@pytest.mark.parametrize("is_awaited", [False, True])
def test_what_fails_in_a_bundle_that_a_canceled_task_closes_is_told(
    *, is_awaited: bool
) -> None:
    def fail() -> None:
        try:
            umbel.msleep(-1)
        finally:
            raise ValueError("on the way out")

    async def main() -> None:
        bundle = umbel.go(fail)
        close = aio.close(bundle) if is_awaited else aio.run_blocking(bundle.abort)
        closing = asyncio.ensure_future(close)
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(ExceptionGroup) as caught:
            await closing
        assert isinstance(caught.value.exceptions[0], ValueError)

    asyncio.run(main())


def test_code_that_ends_the_program_as_its_task_is_canceled_ends_it() -> None:
    def work() -> None:
        try:
            umbel.msleep(-1)
        except umbel.Canceled:
            sys.exit(3)

    tasks: list[asyncio.Future[None]] = []

    async def main() -> None:
        tasks.append(asyncio.ensure_future(aio.run_blocking(work)))
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)

    with pytest.raises(SystemExit) as caught:
        asyncio.run(main())
    assert caught.value is tasks[0].exception()


def test_an_awaited_verb_that_fails_leaves_no_cycle() -> None:
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise KeyError

    async def fail_awaited() -> None:
        fail()

    def wait() -> None:
        with pytest.raises(KeyError):
            aio.wait(fail_awaited())

    async def main() -> None:
        with pytest.raises(KeyError):
            await aio.run_blocking(fail)
        assert seen[0]() is None
        with umbel.go(wait) as waiting:
            await aio.bundle_wait(waiting)
        await asyncio.sleep(0.01)
        assert seen[1]() is None

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


@pytest.mark.parametrize("library", ["trio", "anyio"])
def test_a_scope_inside_blocking_code_is_refused_and_nothing_else_is_canceled(
    library: str, ends: Ends, run: RunLoop
) -> None:
    scopes = pytest.importorskip(library)

    def receive(is_caught: bool) -> str:
        with scopes.move_on_after(0.01):
            try:
                umbel.receive(ends[0])
            except umbel.Canceled:
                if not is_caught:
                    raise
        return "went on"

    async def main() -> None:
        with pytest.raises(RuntimeError, match="put the scope into what"):
            await aio.run_blocking(receive, False)
        assert await aio.run_blocking(receive, True) == "went on"
        await aio.msleep(umbel.within(0.01))

    if library == "trio":
        scopes.run(main)
    else:
        run(main)


def test_who_cleans_up_in_a_scope_of_anyios_does_not_keep_the_processor_busy(
    run: RunLoop,
) -> None:
    anyio = pytest.importorskip("anyio")

    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)

    async def main() -> None:
        began = time.process_time()
        with anyio.move_on_after(0.01):
            await aio.run_blocking(lambda: aio.wait(slow()))
        assert time.process_time() - began < 0.25

    run(main)


@pytest.mark.parametrize("rounds", range(5))
def test_a_value_for_who_is_late_and_then_canceled_is_received_next(
    rounds: int,
) -> None:
    async def main() -> None:
        sender, receiver = umbel.chmake(str)
        with sender, receiver:
            task = asyncio.create_task(aio.chrecv(receiver, umbel.within(0.005)))
            await asyncio.sleep(0)
            late = umbel.within(0.005)
            while umbel.now() <= late:
                time.sleep(0.001)
            for _ in range(rounds):  # its timer fires; it has not run yet
                await asyncio.sleep(0)
            got: list[str] = []
            with suppress(umbel.DeadlineError):
                umbel.chsend(sender, "value", 0)
                got.append("sent")
            task.cancel()
            with suppress(umbel.DeadlineError, asyncio.CancelledError):
                got.remove("sent" if await task == "value" else "")
            if got:
                assert await aio.chrecv(receiver, 0) == "value"

    asyncio.run(main())
