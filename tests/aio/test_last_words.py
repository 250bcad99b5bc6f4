"""KeyboardInterrupt and SystemExit of a coroutine, where trio runs the thread."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest
import trio

import umbel
from tests.support import python
from umbel import aio


def run_and_end(
    main: Callable[[], Awaitable[object]], error: BaseException | None = None
) -> BaseException:
    """Have a coroutine raise *error* soon, and give what trio then ends with."""

    def end() -> None:
        umbel.msleep(umbel.within(0.01))
        raise error or SystemExit(3)

    async def start() -> None:
        await aio.msleep(0)
        bundles.append(umbel.go(end))
        with trio.fail_after(20):
            await main()

    bundles: list[umbel.BundleHandle] = []
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the caller looks
        trio.run(start)
    umbel.hclose(bundles[0])
    return caught.value


def test_system_exit_is_raised_in_the_main_task() -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("cleaned up")

    error = run_and_end(main)

    assert isinstance(error, SystemExit)
    assert error.code == 3
    assert seen == ["cleaned up"]


def test_so_is_keyboard_interrupt() -> None:
    error = run_and_end(trio.sleep_forever, KeyboardInterrupt())

    assert isinstance(error, KeyboardInterrupt)


def test_also_in_a_main_task_that_awaits_umbel() -> None:
    left, right = umbel.pair("mem")

    error = run_and_end(lambda: aio.receive(left))

    assert isinstance(error, SystemExit)
    umbel.bsend(right, b"x")
    assert umbel.receive(left) == b"x", "nothing is broken, and nobody receives"
    umbel.hclose(left)
    umbel.hclose(right)


def test_children_of_the_main_task_are_canceled() -> None:
    seen: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("canceled")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    error = run_and_end(main)

    assert isinstance(error, BaseExceptionGroup)
    assert isinstance(error.exceptions[0], SystemExit)
    assert seen == ["canceled"]


def test_a_main_task_that_is_busy_hears_of_it() -> None:
    async def main() -> None:
        while True:
            await trio.sleep(0.001)

    assert isinstance(run_and_end(main), SystemExit)


def test_one_that_can_not_be_disturbed_hears_of_it_later() -> None:
    turns: list[int] = []
    others: list[umbel.BundleHandle] = []
    sleepers: list[trio.lowlevel.Task] = []

    def go_on() -> None:
        # Others take their turns meanwhile.
        for turn in range(5):
            umbel.msleep(umbel.within(0.01))
            turns.append(turn)
        trio.lowlevel.reschedule(sleepers[0])

    async def main() -> None:
        others.append(umbel.go(go_on))
        sleepers.append(trio.lowlevel.current_task())
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        turns.append(-1)
        await trio.sleep_forever()

    assert isinstance(run_and_end(main), SystemExit)
    assert turns == [0, 1, 2, 3, 4, -1]
    umbel.hclose(others[0])


def test_a_signal_ends_a_trio_program_in_good_order() -> None:
    code = """
import trio, umbel
from umbel import aio
async def main():
    umbel.exit_on_signal()  # before, trio would warn of another's wake-up descriptor
    await aio.msleep(0)
    print("ready", flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("cleaned up", flush=True)
trio.run(main)
"""
    with python(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err) == (128 + signal.SIGTERM, "cleaned up\n", "")
