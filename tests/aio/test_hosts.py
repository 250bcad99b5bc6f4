"""In the thread of somebody else's event loop: what would stop it is refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

import umbel
from tests.support import PATIENCE, Ends, RunLoop, calls, run_python, wait_until_blocked
from umbel import aio, testing


def waiting_calls(ends: Ends) -> tuple[Callable[[], object], ...]:
    return calls(
        lambda: umbel.receive(ends[0]),
        lambda: umbel.receive(ends[0], 1, umbel.within(60)),
        lambda: umbel.msleep(umbel.within(60)),
        lambda: umbel.fdin(ends[1].fileno()),
    )


def refused(ends: Ends, name: str) -> None:
    for call in waiting_calls(ends):
        with pytest.raises(RuntimeError, match=f"stop the {name} loop"):
            call()
    left, right = umbel.ipc_pair()
    with pytest.raises(RuntimeError, match=f"stop the {name} loop"):
        umbel.close(left)  # which closes it all the same
    umbel.hclose(right)


def allowed(ends: Ends) -> None:
    """Make calls that need not wait."""
    umbel.bsend(ends[1], b"x")
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(ends[1], 1, 0)
    for end in umbel.pair("mem"):
        umbel.hclose(end)


def test_a_call_that_would_stop_asyncio_is_refused(ends: Ends) -> None:
    async def main() -> None:
        refused(ends, "asyncio")
        allowed(ends)

    asyncio.run(main())

    assert umbel.now() > 0
    with pytest.raises(umbel.DeadlineError):
        umbel.receive(ends[1], 1, umbel.within(0.001))  # and without a loop it waits


def test_a_call_that_would_stop_trio_is_refused(ends: Ends) -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        refused(ends, "trio")
        allowed(ends)

    trio.run(main)


def test_one_that_only_tries_is_not(ends: Ends) -> None:
    async def main() -> None:
        await aio.bsend(ends[0], b"x")

        assert umbel.receive(ends[1], 1, 0) == b"x"
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(ends[1], 1, 0)

    asyncio.run(main())


def test_what_waits_for_what_is_there_already_is_not_refused(ends: Ends) -> None:
    left, right = ends

    def come(data: bytes) -> None:
        """Have *data* come after a read that leaves the stream taken for empty."""
        umbel.bsend(left, b"ab")
        assert umbel.receive(right) == b"ab"
        umbel.bsend(left, data)

    async def main() -> None:
        come(b"data")
        assert umbel.brecv(right, 4) == b"data"
        come(b"more")
        assert umbel.receive(right, deadline=umbel.within(60)) == b"more"
        come(b"")
        umbel.done(left)
        umbel.done(right)
        assert umbel.close(right).discarded == 0

    asyncio.run(main())


def test_who_is_refused_before_a_byte_has_moved_can_go_on(ends: Ends) -> None:
    left, right = ends

    async def main() -> None:
        with pytest.raises(RuntimeError, match="would have to wait"):
            umbel.brecv(right, 4)
        with pytest.raises(TypeError, match="a deadline is an int"):
            await aio.brecv(right, 4, None)  # type: ignore[call-overload]  # refused

    with pytest.raises(TypeError, match="a deadline is an int"):
        umbel.brecv(right, 4, None)  # type: ignore[call-overload]  # refused
    asyncio.run(main())
    umbel.bsend(left, b"data")

    assert umbel.brecv(right, 4) == b"data"


def test_who_is_refused_amid_what_it_receives_can_not(ends: Ends) -> None:
    left, right = ends
    umbel.bsend(left, b"dat")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="would have to wait"):
            umbel.brecv(right, 4)

    asyncio.run(main())

    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(right)


def test_the_end_of_a_block_that_would_wait_is_refused_and_stops_what_runs() -> None:
    bundle = umbel.bundle()

    async def main() -> None:
        with bundle:
            bundle.go(umbel.msleep, umbel.FOREVER)

    with pytest.raises(RuntimeError, match=r"block would .* umbel\.aio\.bundle_wait"):
        asyncio.run(main())
    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(bundle)


def test_a_thread_beside_a_loop_may_wait(ends: Ends) -> None:
    async def main() -> bytes:
        waiting = asyncio.create_task(asyncio.to_thread(umbel.receive, ends[0]))
        await asyncio.sleep(0)  # until it is handed to a thread
        wait_until_blocked(ends[0])
        umbel.bsend(ends[1], b"through a thread")
        return await waiting

    assert asyncio.run(main()) == b"through a thread"


def test_the_first_deadline_after_a_loop_has_ended_is_kept(ends: Ends) -> None:
    async def main() -> None:
        with pytest.raises(umbel.DeadlineError):
            await aio.receive(ends[0], 1, umbel.within(0.001))

    asyncio.run(main())

    with pytest.raises(umbel.DeadlineError):
        umbel.receive(ends[0], 1, umbel.within(0.001))


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_host_is_complete_as_soon_as_the_hub_has_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trio = pytest.importorskip("trio")
    from umbel.aio.asyncio_host import AsyncioHost
    from umbel.aio.trio_host import TrioHost

    host = AsyncioHost if name == "asyncio" else TrioHost
    looks: list[bool] = []

    # Asked for once the hub has its host, as a signal's handler may look at it then.
    def look(self: AsyncioHost | TrioHost) -> bool:
        looks.append(self.is_running() and not self.is_over())
        return name == "trio"

    monkeypatch.setattr(host, "checks_each_call", property(look))

    async def main() -> None:
        await aio.msleep(0)

    asyncio.run(main()) if name == "asyncio" else trio.run(main)

    assert looks
    assert looks[0]


def test_where_gevent_has_patched_the_standard_library_each_call_is_refused() -> None:
    pytest.importorskip("gevent")  # it hung
    code = """
from gevent import monkey
monkey.patch_all()
import umbel
for call in (umbel.pair, umbel.bundle, umbel.now):
    try:
        call()
    except RuntimeError as error:
        assert "gevent" in str(error)
    else:
        raise AssertionError(call)
"""
    run_python(code)


def test_a_task_receives_from_a_channel_until_its_end(run: RunLoop) -> None:
    left, right = umbel.chmake(int)

    def produce() -> None:
        for number in range(3):
            right.send(number)
        right.done()

    async def main() -> None:
        producing = umbel.go(produce)
        seen.extend([value async for value in left])
        umbel.hclose(producing)

    seen: list[int] = []
    run(main)
    left.abort()
    right.abort()

    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("rate", "jumps_after"), [(0, math.inf), (1e-3, math.inf), (0, 0)]
)
def test_deadlines_are_real_whatever_trios_clock_says(
    rate: float, jumps_after: float
) -> None:
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")

    async def main() -> float:
        start: float = trio.current_time()
        for left in (0.2, 0.03, 0.03):
            deadline = umbel.within(left)
            await aio.msleep(deadline)
            assert deadline <= umbel.now() < deadline + 1000 * PATIENCE
        return float(trio.current_time()) - start

    clock = testing.MockClock(rate, autojump_threshold=jumps_after)
    assert trio.run(main, clock=clock) < 1


def test_the_clock_of_tests_does_not_drive_a_loop_and_says_so(run: RunLoop) -> None:
    async def main() -> None:
        await aio.msleep(umbel.within(0.01))

    with pytest.raises(RuntimeError, match="can't drive a loop"):
        testing.run(lambda: run(main))
    run(main)
