"""What is done leaves nothing behind that only the garbage collector could find.

Whoever runs without it, or closes a thousand connections between two of its rounds,
would keep frames, handles and descriptors for as long.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import umbel
from tests.support import Ends
from umbel.bridges import as_asyncio_transport
from umbel.spi import WaitQueue


def block() -> None:
    with umbel.bundle() as bundle:
        bundle.go(umbel.yield_)


def failed_block() -> None:
    def fail() -> None:
        raise ValueError

    with suppress(BaseExceptionGroup), umbel.bundle() as bundle:
        bundle.go(fail)
        umbel.msleep(-1)


def server() -> None:
    listener = umbel.listen("mem://cycles")
    with umbel.go(umbel.serve, listener, umbel.hclose):
        umbel.hclose(listener)


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize("work", [block, failed_block, server])
def test_it_leaves_no_cycle(work: Callable[[], None]) -> None:
    work()  # what is made once
    gc.collect()
    work()

    assert gc.collect() == 0


class Thing:
    """Something to refer to weakly."""


class Holding(asyncio.Protocol):
    """What a transport holds, and more."""

    def __init__(self) -> None:
        self.thing = Thing()


@pytest.mark.usefixtures("collector_off")
def test_a_census_lets_go_of_its_callers_frame() -> None:
    def look() -> weakref.ref[Thing]:
        thing = Thing()
        umbel.census()
        return weakref.ref(thing)

    assert look()() is None


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_so_does_a_transport_of_asyncio(ends: Ends, end: str) -> None:
    left, right = ends

    async def main() -> weakref.ref[Thing]:
        protocol = Holding()
        transport = as_asyncio_transport(left, protocol)
        await asyncio.sleep(0.01)
        getattr(transport, end)()
        umbel.hclose(right)
        await transport.wait_lost()
        return weakref.ref(protocol.thing)

    async def run() -> bool:
        thing = await main()
        for _ in range(3):
            await asyncio.sleep(0)
        return thing() is None

    assert asyncio.run(run())


def test_a_close_that_was_late_wakes_its_caller_no_more() -> None:
    left, right = umbel.pair("ipc")
    is_receiving, may_leave = threading.Event(), threading.Event()

    def receive_late() -> None:
        def receive() -> None:
            with suppress(umbel.BadHandleError):
                umbel.receive(left)

        with umbel.bundle() as bundle:
            bundle.go(receive)
            is_receiving.set()
            may_leave.wait(20)  # it holds up its thread, and who receives there

    other = threading.Thread(target=receive_late)
    other.start()
    is_receiving.wait(20)
    with pytest.raises(umbel.DeadlineError):
        umbel.close(left, umbel.within(0.02))
    may_leave.set()
    queue = WaitQueue()
    with pytest.raises(umbel.DeadlineError):
        queue.wait(queue.ticket(), umbel.within(0.2))
    other.join(20)
    umbel.hclose(right)
