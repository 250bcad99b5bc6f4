"""The kit's drivers of asyncio and trio: broken verbs are caught, by what is meant."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable

import pytest

import umbel
from tests.support import run_python
from umbel import aio
from umbel.testing.conformance import BEHAVIOURS, Subject, check, try_behaviour
from umbel.testing.conformance.behaviour import HOSTED
from umbel.testing.conformance.loops import AsyncioTrial, TrioTrial
from umbel.testing.conformance.runner import DRIVERS

trio = pytest.importorskip("trio")

#: As long as what never comes is waited for.
PATIENCE = 1.5

#: What an asyncio task, or one of trio's, is canceled by.
NATIVE = (asyncio.CancelledError, trio.Cancelled)

receive = aio.receive
accept = aio.accept


class UvloopTrial(AsyncioTrial):
    """The loop is uvloop's."""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def uvloop_is_ready() -> None:
    """Let it open what it keeps for good: its first loop makes a pipe for signals."""
    UvloopTrial(Subject("mem"), "").new_loop().close()


# Broken verbs.


async def swallows(
    handle: umbel.StreamHandle, size: int = 65536, deadline: int = -1
) -> bytes:
    """Turn the loop's cancellation into an error of the system's."""
    try:
        return await receive(handle, size, deadline)
    except NATIVE:
        raise umbel.BrokenStreamError from None


async def masks(
    handle: umbel.StreamHandle, size: int = 65536, deadline: int = -1
) -> bytes:
    """Turn it into umbel's own."""
    try:
        return await receive(handle, size, deadline)
    except NATIVE:
        raise umbel.Canceled from None


async def ignores(
    handle: umbel.StreamHandle, size: int = 65536, deadline: int = -1
) -> bytes:
    """Take what is there although the task is canceled."""
    try:
        return umbel.receive(handle, size, 0)
    except TimeoutError:
        return await receive(handle, size, deadline)


async def loses(
    handle: umbel.StreamHandle, size: int = 65536, deadline: int = -1
) -> bytes:
    """Let a cancellation come between the bytes and the caller."""
    data = await receive(handle, size, deadline)
    await pass_on()
    return data


async def delays(
    handle: umbel.StreamHandle, size: int = 65536, deadline: int = -1
) -> bytes:
    """Let a cancellation wait."""
    try:
        return await receive(handle, size, deadline)
    except NATIVE:
        if in_trio():
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
        else:
            await asyncio.sleep(0.1)
        raise


async def drops(
    listener: umbel.ListenerHandle, deadline: int = -1
) -> aio.AsyncStreamHandle:
    """Let a cancellation come between an accepted stream and the caller."""
    stream = await accept(listener, deadline)
    try:
        await pass_on()
    except BaseException:
        stream.abort()
        raise
    return stream


def in_trio() -> bool:
    is_running: bool = trio.lowlevel.in_trio_run()
    return is_running


async def pass_on() -> None:
    await (trio.lowlevel.checkpoint() if in_trio() else asyncio.sleep(0))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncioTrial, "patience", PATIENCE)
    monkeypatch.setattr(TrioTrial, "patience", PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "verb", "broken", "number", "says"),
    [
        ("asyncio", "receive", swallows, 53, "canceled receive raised: 'BrokenStream"),
        ("trio", "receive", swallows, 53, "canceled receive raised: 'BrokenStream"),
        ("asyncio", "receive", masks, 50, "not the loop's own cancellation"),
        ("trio", "receive", masks, 50, "not the loop's own cancellation"),
        ("trio", "receive", ignores, 53, "calls were canceled, of 100"),
        ("asyncio", "receive", loses, 53, "bytes were lost"),
        ("trio", "receive", loses, 53, "bytes were lost"),
        ("asyncio", "receive", delays, 54, "came .* late"),
        ("trio", "receive", delays, 54, "came .* late"),
        ("asyncio", "accept", drops, 53, "a peer was lost by a canceled accept"),
        ("trio", "accept", drops, 53, "a peer was lost by a canceled accept"),
    ],
)
def test_a_broken_awaitable_verb_is_caught_by_the_behaviour_meant_for_it(
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
    driver: str,
    verb: str,
    broken: Callable[..., Awaitable[object]],
    number: int,
    says: str,
) -> None:
    monkeypatch.setattr(aio, verb, broken)

    verdict = try_behaviour(BEHAVIOURS[number], Subject("mem"), driver)

    assert verdict.state == "failed"
    assert re.search(says, verdict.reason), verdict.reason


@pytest.mark.slow
def test_a_sound_transport_passes_all_behaviours_on_uvloop_too(
    uvloop_is_ready: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DRIVERS, "asyncio", UvloopTrial)

    report = check("mem", drivers=["asyncio"])

    assert [f"{v.number}: {v.reason}" for v in report.failed] == []
    assert sum(v.state == "passed" for v in report.verdicts) > 70


def test_without_trio_its_driver_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)

    asyncios, trios = check("mem", [1], HOSTED).verdicts

    assert asyncios.state == "passed"
    assert (trios.state, trios.reason) == ("skipped", "trio is not installed")


def test_the_kit_does_not_import_trio_until_it_is_tried() -> None:
    code = "import umbel.testing.conformance, sys; print('trio' in sys.modules)"

    assert run_python(code) == "False\n"
