"""Coroutines and channels against those of others, side by side in one run.

    pip install -e '.[bench]'
    python benchmarks/runtime.py

Each figure is the median of ratios of runs that stand next to each other.
"""

import asyncio
import statistics
import time
from collections.abc import Callable

import gevent
import gevent.queue
import trio
from greenlet import getcurrent, greenlet

import umbel

VALUES = 20_000
ROUNDS = 100
HUNDRED = 100
SWITCHES = 50_000
REPEATS = 11


def channel_umbel() -> None:
    left, right = umbel.chmake(int)

    def send() -> None:
        for value in range(VALUES):
            umbel.chsend(left, value)
        umbel.chdone(left)

    with left, right, umbel.go(send):
        assert sum(right) == VALUES * (VALUES - 1) // 2


def channel_gevent() -> None:
    channel = gevent.queue.Channel()

    def send() -> None:
        for value in range(VALUES):
            channel.put(value)
        channel.put(StopIteration)

    gevent.spawn(send)
    assert sum(channel) == VALUES * (VALUES - 1) // 2


def channel_trio() -> None:
    async def main() -> None:
        send_end, receive_end = trio.open_memory_channel[int](0)

        async def send() -> None:
            async with send_end:
                for value in range(VALUES):
                    await send_end.send(value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            total = 0
            async for value in receive_end:
                total += value
            assert total == VALUES * (VALUES - 1) // 2

    trio.run(main)


def channel_asyncio() -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def send() -> None:
            for value in range(VALUES):
                await queue.put(value)
            await queue.put(-1)

        sender = asyncio.create_task(send())
        total = 0
        while (value := await queue.get()) >= 0:
            total += value
        await sender
        assert total == VALUES * (VALUES - 1) // 2

    asyncio.run(main())


def _work() -> int:
    return 1 + 1


async def _async_work() -> int:
    return 1 + 1


def hundred_umbel() -> None:
    for _ in range(ROUNDS):
        with umbel.bundle() as bundle:
            for _ in range(HUNDRED):
                bundle.go(_work)


def hundred_asyncio() -> None:
    async def main() -> None:
        for _ in range(ROUNDS):
            tasks = [asyncio.create_task(_async_work()) for _ in range(HUNDRED)]
            await asyncio.gather(*tasks)

    asyncio.run(main())


def switch_umbel() -> None:
    def turn() -> None:
        for _ in range(SWITCHES // 2):
            umbel.yield_()

    with umbel.bundle() as bundle:
        bundle.go(turn)
        bundle.go(turn)


def switch_greenlet() -> None:
    def turn(other: Callable[[], greenlet]) -> None:
        for _ in range(SWITCHES // 2):
            other().switch()

    first = greenlet(lambda: turn(lambda: second), getcurrent())
    second = greenlet(lambda: turn(lambda: first), getcurrent())
    first.switch()


def time_of(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(title: str, ours: Callable[[], None], *others: Callable[[], None]) -> None:
    for run in (ours, *others):
        run()
    ratios: dict[str, list[float]] = {other.__name__: [] for other in others}
    for _ in range(REPEATS):
        mine = time_of(ours)
        for other in others:
            ratios[other.__name__].append(time_of(other) / mine)
    for name, found in ratios.items():
        peer = name.split("_")[1]
        print(
            f"{title}: umbel is {statistics.median(found):.2f} times as fast as {peer}"
        )


def main() -> None:
    compare(
        "values through a channel",
        channel_umbel,
        channel_gevent,
        channel_trio,
        channel_asyncio,
    )
    compare("a hundred coroutines", hundred_umbel, hundred_asyncio)
    compare("a switch", switch_umbel, switch_greenlet)


if __name__ == "__main__":
    main()
