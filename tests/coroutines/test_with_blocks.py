"""The `with` block of a bundle, which the failure of a coroutine interrupts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial

import pytest
import trio

import umbel
from tests.support import PATIENCE, Ends, run_python, soon
from umbel import aio
from umbel.aio.entry import enter
from umbel.coroutines.with_block import WithBlock


def fail(reason: str = "mine") -> None:
    raise ValueError(reason)


def fail_soon(reason: str = "mine") -> None:
    umbel.yield_()
    raise ValueError(reason)


def wait_in_vain() -> None:
    umbel.msleep(soon())
    pytest.fail("nobody has interrupted it")


def wait_to_be_canceled(noted: list[str]) -> None:
    try:
        wait_in_vain()
    except umbel.Canceled:
        noted.append("canceled")
        raise


def failures_of(block: Callable[[], object]) -> list[str]:
    """Run *block*, and give what failed in it; it ends by itself, or interrupted."""
    with pytest.raises(ExceptionGroup) as caught:
        block()
    ended_by = caught.value.__context__
    assert ended_by is None or isinstance(ended_by, umbel.Canceled)
    return reasons(caught.value)


def reasons(group: BaseExceptionGroup[BaseException]) -> list[str]:
    return [str(error) for error in group.exceptions]


def test_a_failure_interrupts_the_block_where_it_waits(ends: Ends) -> None:
    def block() -> None:
        with umbel.go(fail_soon):
            umbel.receive(ends[0], 1, soon())
            pytest.fail("it waited for what never comes")

    assert failures_of(block) == ["mine"]


def test_and_the_interruption_does_not_clutter_the_traceback() -> None:
    def block() -> None:
        with umbel.go(fail):
            wait_in_vain()

    with pytest.raises(ExceptionGroup) as caught:
        block()

    assert caught.value.__suppress_context__


def test_a_failure_before_the_block_waits_interrupts_its_next_wait() -> None:
    reached: list[str] = []

    def block() -> None:
        with umbel.go(fail):
            reached.append("here")
            wait_in_vain()
            reached.append("there")

    failed = failures_of(block)

    assert reached == ["here"]
    assert failed == ["mine"]


def fail_when_canceled() -> None:
    try:
        umbel.msleep(-1)
    except umbel.Canceled:
        raise ValueError("child") from None


def test_what_fails_as_a_failed_block_cancels_it_is_raised_with_the_blocks_error() -> (
    None
):
    def fail() -> None:
        with umbel.bundle() as bundle:
            bundle.go(fail_when_canceled)
            raise KeyError("block")

    with pytest.raises(ExceptionGroup) as caught:
        fail()

    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


def test_what_ends_a_block_and_is_no_exception_is_the_context_of_what_fails() -> None:
    def fail() -> None:
        with umbel.bundle() as bundle:
            bundle.go(fail_when_canceled)
            raise GeneratorExit

    with pytest.raises(ExceptionGroup) as caught:
        fail()

    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert isinstance(caught.value.__context__, GeneratorExit)


def test_a_block_that_never_waits_is_not_interrupted() -> None:
    reached: list[str] = []

    def block() -> None:
        with umbel.go(fail):
            reached.append("the end")

    assert failures_of(block) == ["mine"]
    assert reached == ["the end"]


def test_siblings_are_canceled_at_once_not_at_the_end_of_the_block() -> None:
    noted: list[str] = []

    def block() -> None:
        with umbel.bundle() as b:
            b.go(wait_to_be_canceled, noted)
            b.go(fail_soon)
            try:
                wait_in_vain()
            finally:
                assert noted == ["canceled"]

    assert failures_of(block) == ["mine"]


def test_what_starts_after_a_failure_runs_and_is_canceled_at_its_first_wait() -> None:
    went: list[str] = []

    def late() -> None:
        went.append("began")
        wait_in_vain()
        went.append("slept")

    def block() -> None:
        with umbel.bundle() as b:
            b.go(fail, "first")
            b.go(late)
            umbel.bundle_go(b, fail, "second")

    failed = failures_of(block)

    assert went == ["began"]
    assert failed == ["first", "second"]


def test_after_the_block_all_is_as_before() -> None:
    def block() -> None:
        with umbel.go(fail):
            wait_in_vain()

    assert failures_of(block) == ["mine"]

    umbel.yield_()  # which would be Canceled, were something pending


def test_two_blocks_of_one_bundle_leave_nothing_pending() -> None:
    def block() -> None:
        with umbel.bundle() as b:
            b.go(fail)
            with b:
                wait_in_vain()

    assert failures_of(block) == ["mine"]

    umbel.yield_()  # as above


def test_a_failure_in_the_inner_of_two_blocks_ends_that_one_only() -> None:
    reached: list[str] = []

    def block() -> None:
        with umbel.go(fail_soon):
            wait_in_vain()

    with umbel.bundle() as outer:
        outer.go(umbel.yield_)
        assert failures_of(block) == ["mine"]
        umbel.yield_()
        reached.append("the outer one's end")

    assert reached == ["the outer one's end"]


def test_a_failure_in_the_outer_of_two_blocks_ends_both() -> None:
    noted: list[str] = []

    def block() -> None:
        with umbel.go(fail_soon, "outer"), umbel.go(wait_to_be_canceled, noted):
            wait_in_vain()

    failed = failures_of(block)

    assert noted == ["canceled"]  # in the inner one
    assert failed == ["outer"]


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_if_both_have_failed_both_are_ended(first: str) -> None:
    second = "outer" if first == "inner" else "inner"
    reached: list[str] = []

    def inner_block(outer: umbel.BundleHandle) -> None:
        with umbel.bundle() as inner:
            bundles = {"inner": inner, "outer": outer}
            bundles[first].go(fail, first)
            bundles[second].go(fail, second)
            wait_in_vain()

    def block() -> None:
        with umbel.bundle() as outer:
            assert failures_of(partial(inner_block, outer)) == ["inner"]
            reached.append("between")
            wait_in_vain()
            reached.append("after")

    failed = failures_of(block)

    assert reached == ["between"]
    assert failed == ["outer"]


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_if_the_outer_one_is_told_meanwhile_the_inner_one_is_ended_yet(
    first: str,
) -> None:
    second = "outer" if first == "inner" else "inner"
    reached: list[str] = []

    def inner_block(outer: umbel.BundleHandle) -> None:
        with umbel.bundle() as inner:
            bundles = {"inner": inner, "outer": outer}
            bundles[first].go(fail, first)
            bundles[second].go(fail, second)
            assert failures_of(outer.wait) == ["outer"]
            wait_in_vain()
            reached.append("the end of the inner one")

    with umbel.bundle() as outer:
        assert failures_of(partial(inner_block, outer)) == ["inner"]
        umbel.yield_()
        reached.append("the end of the outer one")

    assert reached == ["the end of the outer one"]


def test_a_block_that_swallows_the_interruption_fails_all_the_same() -> None:
    def block() -> None:
        with umbel.go(fail_soon):
            try:
                wait_in_vain()
            except BaseException:  # noqa: S110 - a mistake that is often made
                pass

    assert failures_of(block) == ["mine"]


def test_a_cancellation_outlasts_the_interruption() -> None:
    seen: list[str] = []
    resting = umbel.go(umbel.msleep, -1)

    def work() -> None:
        try:
            with umbel.go(fail):
                umbel.hclose(resting)  # which lets main run, who cancels us
        except ExceptionGroup:
            seen.append("told")
        try:
            umbel.yield_()
        except umbel.Canceled:
            seen.append("canceled")
            raise

    umbel.go(work).close()

    assert seen == ["told", "canceled"]


def test_who_waits_for_the_bundle_in_its_block_is_told_there() -> None:
    ended: list[str] = []

    def end() -> None:
        umbel.yield_()
        umbel.yield_()
        ended.append("by itself")

    with umbel.bundle() as b:
        b.go(end)
        b.go(fail_soon)
        with pytest.raises(ExceptionGroup) as caught:
            b.wait(soon())
        umbel.yield_()
        b.go(end)

    assert reasons(caught.value) == ["mine"]
    assert ended == ["by itself"] * 2


def test_who_waits_for_it_after_a_failure_is_told_too_and_it_can_be_used_on() -> None:
    ended: list[str] = []

    def end() -> None:
        umbel.yield_()
        ended.append("by itself")

    with umbel.bundle() as b:
        b.go(fail)
        with pytest.raises(ExceptionGroup):
            umbel.bundle_wait(b, soon())
        b.go(end)
        umbel.yield_()

    assert ended == ["by itself"]


def test_who_waits_for_it_too_briefly_is_interrupted_later() -> None:
    def never_end() -> None:
        umbel.msleep(-1)

    def block() -> None:
        with umbel.bundle() as b:
            b.go(never_end)
            b.go(fail_soon)
            with pytest.raises(umbel.DeadlineError):
                b.wait(umbel.within(0.02))
            wait_in_vain()

    assert failures_of(block) == ["mine"]


def test_who_closes_the_bundle_in_its_block_is_told_there() -> None:
    with umbel.bundle() as b:
        b.go(fail)
        with pytest.raises(ExceptionGroup) as caught:
            umbel.hclose(b)
        umbel.yield_()  # which would be Canceled, were the block still to be ended

    assert reasons(caught.value) == ["mine"]


@pytest.mark.parametrize("end", [bool, umbel.bundle_wait, umbel.hclose])
def test_a_block_is_told_what_another_waiter_was_told_already(
    end: Callable[[umbel.BundleHandle], object],
) -> None:
    told: list[str] = []

    def listen(b: umbel.BundleHandle) -> None:
        try:
            umbel.bundle_wait(b)
        except ExceptionGroup as group:
            told.extend(reasons(group))

    listening, resting = umbel.bundle(), umbel.go(umbel.msleep, -1)

    def block() -> None:
        with umbel.bundle() as b:
            b.go(fail_soon)
            listening.go(listen, b)
            try:
                wait_in_vain()
            finally:
                umbel.hclose(resting)  # which lets others run
                end(b)  # bool: it ends by itself

    failed = failures_of(block)

    listening.close()
    assert told == failed == ["mine"]


def test_so_is_a_block_whose_bundle_was_closed_by_another() -> None:
    told: list[str] = []

    def close(b: umbel.BundleHandle) -> None:
        umbel.yield_()
        umbel.yield_()
        try:
            umbel.hclose(b)
        except ExceptionGroup as group:
            told.extend(reasons(group))

    def fail_later() -> None:
        umbel.yield_()
        fail_soon()

    closing = umbel.bundle()

    def block() -> None:
        with umbel.bundle() as b:
            b.go(fail_later)
            closing.go(close, b)
            wait_in_vain()

    failed = failures_of(block)

    closing.close()
    assert told == failed == ["mine"]


def test_a_bundle_that_is_moved_and_left_interrupts_nobody() -> None:
    with umbel.bundle() as b:
        moved = umbel.hown(b)
    moved.go(fail)
    umbel.yield_()

    with pytest.raises(ExceptionGroup):
        moved.close()


def test_one_that_is_moved_out_of_an_interrupted_block_can_be_used_on() -> None:
    moved: list[umbel.BundleHandle] = []
    ended: list[str] = []

    def end() -> None:
        umbel.yield_()
        ended.append("by itself")

    def block() -> None:
        with umbel.bundle() as b:
            b.go(fail)
            moved.append(umbel.hown(b))
            wait_in_vain()

    assert failures_of(block) == ["mine"]
    moved[0].go(end)
    assert failures_of(lambda: moved[0].wait(soon())) == ["mine"]
    assert ended == ["by itself"]
    moved[0].close()


def test_what_runs_in_a_bundle_moved_out_of_a_block_may_wait_for_the_blocks_owner() -> (
    None
):
    moved: list[umbel.BundleHandle] = []

    def wait_for_owner() -> None:
        umbel.yield_()
        umbel.bundle_wait(outer, soon())

    def own() -> None:
        with umbel.bundle() as b:
            b.go(wait_for_owner)
            moved.append(umbel.hown(b))
            umbel.msleep(umbel.within(0.02))

    with umbel.bundle() as outer:
        outer.go(own)
        umbel.bundle_wait(outer, soon())
        umbel.bundle_wait(moved[0], soon())
    umbel.hclose(moved[0])


def test_a_block_in_a_thread_is_interrupted_by_what_runs_in_another() -> None:
    caught: list[BaseException] = []
    is_open = threading.Event()
    bundles: list[umbel.BundleHandle] = []

    def block() -> None:
        try:
            with umbel.bundle() as b:
                bundles.append(b)
                is_open.set()
                wait_in_vain()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    is_open.wait(PATIENCE)
    bundles[0].go(fail)
    thread.join(PATIENCE)

    assert isinstance(caught[0], ExceptionGroup)
    assert reasons(caught[0]) == ["mine"]


def test_who_waits_is_told_though_the_failure_was_about_to_interrupt_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupt = WithBlock.interrupt
    is_about_to, may_go_on = threading.Event(), threading.Event()

    def interrupt_late(block: WithBlock, failure: BaseException) -> None:
        is_about_to.set()
        may_go_on.wait(PATIENCE)
        interrupt(block, failure)

    def let_go_on() -> None:
        umbel.yield_()
        may_go_on.set()

    monkeypatch.setattr(WithBlock, "interrupt", interrupt_late)
    with umbel.bundle() as b:
        thread = threading.Thread(target=b.go, args=(fail,))
        thread.start()
        is_about_to.wait(PATIENCE)
        with umbel.go(let_go_on), pytest.raises(ExceptionGroup) as caught:
            b.wait(soon())
        umbel.yield_()  # which would be Canceled

    thread.join(PATIENCE)
    assert reasons(caught.value) == ["mine"]


def test_ctrl_c_in_a_coroutine_stays_ctrl_c() -> None:
    code = """
import umbel
def interrupt():
    umbel.yield_()
    raise KeyboardInterrupt
def fail():
    umbel.yield_()
    raise ValueError
try:
    with umbel.bundle() as b:
        b.go(interrupt)
        b.go(fail)
        umbel.msleep(-1)
except KeyboardInterrupt:
    print("stopped")
"""
    assert "stopped\n" in run_python(code)


def test_ctrl_c_is_not_lost_if_a_value_and_a_failure_come_with_it() -> None:
    code = """
import umbel
left, right = umbel.chmake()
at = umbel.within(0.02)
def interrupt():
    umbel.msleep(at)
    raise KeyboardInterrupt
def fail():
    umbel.msleep(at)
    raise ValueError
def send():
    umbel.msleep(at)
    left.send("a value")
with left, right, umbel.bundle() as others:
    try:
        with umbel.bundle() as b:
            others.go(interrupt)
            b.go(fail)
            others.go(send)
            print(right.receive())
            umbel.yield_()
    except KeyboardInterrupt:
        print("stopped")
"""
    assert "a value\nstopped\n" in run_python(code)


def test_a_block_in_a_task_is_interrupted_and_the_task_is_not_canceled() -> None:
    def block() -> None:
        with umbel.go(fail_soon):
            wait_in_vain()

    async def main() -> None:
        try:
            await aio.run_blocking(block)
        finally:
            await asyncio.sleep(0)

    assert failures_of(lambda: asyncio.run(main())) == ["mine"]


def test_a_loop_that_runs_in_the_block_is_not_interrupted() -> None:
    async def main() -> str:
        await aio.msleep(umbel.within(0.02))
        return "ran to its end"

    ran: list[str] = []

    def block() -> None:
        with umbel.go(fail_soon):
            ran.append(asyncio.run(main()))

    failed = failures_of(block)

    assert ran == ["ran to its end"]
    assert failed == ["mine"]


def run_asyncio(main: Callable[[], Coroutine[object, None, str]]) -> str:
    return asyncio.run(main())


def run_stopped_loop(main: Callable[[], Coroutine[object, None, str]]) -> str:
    loop = asyncio.new_event_loop()
    LOOPS.append(loop)
    return loop.run_until_complete(main())


#: Which have stopped, and might run again.
LOOPS: list[asyncio.AbstractEventLoop] = []

in_each_loop = pytest.mark.parametrize(
    "run", [run_asyncio, run_stopped_loop, trio.run], ids=["asyncio", "stopped", "trio"]
)


@pytest.fixture(autouse=True)
def close_loops() -> Iterator[None]:
    yield
    while LOOPS:
        LOOPS.pop().close()


async def rest() -> str:
    await aio.msleep(umbel.within(0.02))
    umbel.yield_()  # a verb that is not awaited
    return "ran to its end"


@in_each_loop
@pytest.mark.parametrize("failing", [fail, fail_soon])
def test_what_waits_after_a_loop_is_interrupted(
    run: Callable[[object], str], failing: Callable[[], None]
) -> None:
    ran: list[str] = []

    def block() -> None:
        with umbel.go(failing):
            ran.append(run(rest))
            wait_in_vain()
            ran.append("and slept on")

    failed = failures_of(block)

    assert ran == ["ran to its end"]
    assert failed == ["mine"]
    umbel.yield_()  # which would be Canceled, were something pending


@pytest.mark.parametrize(
    "run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"]
)
def test_a_verb_that_a_task_of_the_loop_does_not_await_is_not_interrupted(
    run: Callable[[Coroutine[object, None, None]], None],
) -> None:
    ran: list[str] = []

    async def main() -> None:
        enter()
        umbel.yield_()
        ran.append("to its end")

    def block() -> None:
        with umbel.go(fail):
            run(main())

    assert failures_of(block) == ["mine"]
    assert ran == ["to its end"]


def test_a_loop_that_has_stopped_but_is_not_closed_is_none_that_runs() -> None:
    reached: list[str] = []

    def block() -> None:
        with umbel.go(fail_soon):
            wait_in_vain()
            reached.append("the end")

    with asyncio.Runner() as runner:
        runner.run(rest())
        assert failures_of(block) == ["mine"]
        assert runner.run(rest()) == "ran to its end"

    assert not reached


def test_a_block_that_ends_with_its_loop_leaves_nothing_pending() -> None:
    def block(runner: asyncio.Runner) -> None:
        with umbel.go(fail_soon):
            runner.run(rest())

    with asyncio.Runner() as runner:
        assert failures_of(lambda: block(runner)) == ["mine"]
        umbel.msleep(umbel.within(0.01))


def test_a_block_in_a_task_interrupts_nothing_else_of_the_main_program() -> None:
    told: list[str] = []

    async def use_a_block(failing: Callable[[], None]) -> None:
        try:
            with umbel.bundle() as b:
                await aio.msleep(umbel.within(0.01))
                b.go(failing)
                await asyncio.sleep(0.05)
        except ExceptionGroup as group:
            told.extend(reasons(group))

    async def start(failing: Callable[[], None]) -> asyncio.Task[None]:
        using = asyncio.create_task(use_a_block(failing))
        await asyncio.sleep(0.02)
        return using

    async def wait_for(using: asyncio.Task[None]) -> None:
        await using

    with asyncio.Runner() as runner:
        using = runner.run(start(fail_soon))
        umbel.msleep(umbel.within(0.01))  # which would be Canceled
        runner.run(wait_for(using))

    assert told == ["mine"]
