"""Threads that come and go, for as long as asked: UMBEL_TORTURE=120 python -m pytest …

Some end in the middle of what their coroutines do, some run asyncio and cancel its
tasks, and all of them use, close and take over the same few handles. Whatever comes of
a call, it ends, and nothing stays open.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

import umbel
from tests.support import open_descriptors, wait_until
from umbel import aio
from umbel._kernel.current import all_hubs
from umbel.handle import open_handles

SECONDS = float(os.environ.get("UMBEL_TORTURE", "1.5"))
SEED = int(os.environ.get("UMBEL_TORTURE_SEED", "1"))
THREADS = 6

H = TypeVar("H", umbel.StreamHandle, umbel.ListenerHandle, umbel.BundleHandle)


class Play:
    """What the threads of one run share, and what one thread does to it."""

    def __init__(self, seed: float, shared: Play | None = None) -> None:
        self.chooser = random.Random(seed)
        self.streams: list[umbel.StreamHandle] = shared.streams if shared else []
        self.listeners: list[umbel.ListenerHandle] = shared.listeners if shared else []
        self.bundles: list[umbel.BundleHandle] = shared.bundles if shared else []
        self.errors: list[BaseException] = shared.errors if shared else []

    def soon(self) -> int:
        return umbel.now() + self.chooser.randrange(8)

    def data(self) -> bytes:
        return bytes(self.chooser.randrange(1, 1000))

    def pick(self, handles: list[H]) -> H:
        """Give one that others use as well; LookupError if there is none."""
        return handles[self.chooser.randrange(len(handles) or 1)]

    def take(self, handles: list[H]) -> H:
        """Give one that nobody else will close."""
        return handles.pop(self.chooser.randrange(len(handles) or 1))

    def make_pair(self) -> None:
        self.streams.extend(umbel.pair(self.chooser.choice(["ipc", "mem"])))

    def make_listener(self) -> None:
        name = self.chooser.randrange(1 << 40)
        self.listeners.append(umbel.ipc_listen(f"@umbel-play-{os.getpid()}-{name}"))

    def leave_one_waiting(self) -> None:
        deadline = self.chooser.choice([-1, self.soon()])
        if self.chooser.random() < 0.5:
            waiting = umbel.go(umbel.receive, self.pick(self.streams), 100, deadline)
        else:
            waiting = umbel.go(umbel.accept, self.pick(self.listeners), deadline)
        self.bundles.append(waiting)

    def act(self) -> None:
        """Do one thing, whatever comes of it."""
        choices: list[tuple[int, Callable[[], object]]] = [
            (1, self.make_pair),
            (1, self.make_listener),
            (3, self.leave_one_waiting),
            (4, lambda: umbel.receive(self.pick(self.streams), 100, self.soon())),
            (2, lambda: umbel.bsend(self.pick(self.streams), self.data(), self.soon())),
            (1, lambda: umbel.close(self.take(self.streams), self.soon())),
            (1, lambda: umbel.hclose(self.take(self.streams))),
            (1, lambda: umbel.hclose(self.take(self.listeners))),
            (1, lambda: umbel.hclose(self.take(self.bundles))),
            (1, lambda: umbel.bundle_wait(self.pick(self.bundles), self.soon())),
            (
                1,
                lambda: umbel.bundle_go_threadsafe(
                    self.pick(self.bundles), umbel.msleep, self.soon()
                ),
            ),
        ]
        weights = [weight for weight, _ in choices]
        _, action = self.chooser.choices(choices, weights)[0]
        try:
            action()
        except (OSError, LookupError, ExceptionGroup):
            pass  # closed by another, late, nothing there: what the game is about

    async def act_in_task(self) -> None:
        """As `act`, by the awaitable verbs."""
        choices: list[Callable[[], Awaitable[object]]] = [
            lambda: aio.receive(self.pick(self.streams), 100, self.soon()),
            lambda: aio.bsend(self.pick(self.streams), self.data(), self.soon()),
            lambda: aio.accept(self.pick(self.listeners), self.soon()),
            lambda: aio.close(self.take(self.streams), self.soon()),
        ]
        try:
            await self.chooser.choice(choices)()
        except (OSError, LookupError):
            pass

    async def run_tasks(self) -> None:
        tasks = []
        for _ in range(self.chooser.randrange(1, 40)):
            tasks.append(asyncio.ensure_future(self.act_in_task()))
            if self.chooser.random() < 0.3:
                self.chooser.choice(tasks).cancel()
            await asyncio.sleep(self.chooser.choice([0, 0, 0.001]))
        if self.chooser.random() < 0.5:  # else the loop cancels them
            await asyncio.gather(*tasks, return_exceptions=True)

    def run(self) -> None:
        """Be one of the threads."""
        try:
            if self.chooser.random() < 0.5:
                asyncio.run(self.run_tasks())
            else:
                for _ in range(self.chooser.randrange(1, 60)):
                    self.act()
        except BaseException as error:
            self.errors.append(error)

    def clear_up(self) -> None:
        for handles in (self.bundles, self.streams, self.listeners):
            while handles:
                try:
                    umbel.hclose(handles.pop())
                except (OSError, ExceptionGroup):
                    pass


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what was accepted for nobody
def test_nothing_stays_open_whatever_threads_end_in() -> None:
    umbel.now()
    descriptors, handles, hubs = open_descriptors(), set(open_handles), len(all_hubs())
    play = Play(SEED)
    threads: list[threading.Thread] = []
    give_up = time.monotonic() + SECONDS

    while time.monotonic() < give_up:
        threads = [thread for thread in threads if thread.is_alive()]
        while len(threads) < THREADS:
            mate = Play(play.chooser.random(), play)
            threads.append(threading.Thread(target=mate.run))
            threads[-1].start()
        play.act()
    for thread in threads:
        # Others wait for coroutines of this thread, which must hear of it meanwhile.
        umbel.to_thread(thread.join, umbel.within(30))
    play.clear_up()

    assert play.errors == []
    gc.collect()  # accepted streams whose coroutine was canceled before it had them
    wait_until(lambda: set(open_handles) <= handles, "the close of all handles")
    wait_until(lambda: len(all_hubs()) == hubs, "the end of all hubs")
    wait_until(lambda: open_descriptors() <= descriptors, "the close of what was open")
