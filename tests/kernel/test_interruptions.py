"""A signal's handler, at each point of a call at which Python may run one.

Python runs handlers where a function begins, after a call, and where a loop goes round.
A tracer finds these points in umbel's code, and runs a handler at one of them: at the
first in the first try, at the second in the next, until the call waits before it comes
there. What the handler brings about must not be slept over.
"""

from __future__ import annotations

import asyncio
import dis
import signal
import sys
import threading
import time
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias, TypeVar

import pytest

import umbel
from tests.support import PATIENCE, Ends, run_python
from umbel import aio
from umbel._kernel.coroutine import Coroutine as KernelCoroutine
from umbel._kernel.current import current_hub
from umbel._kernel.hub import BUDGET
from umbel._kernel.timers import Timer
from umbel.aio.handle import as_stream
from umbel.aio.hosting import _Timers
from umbel.handle import open_handles

with suppress(ImportError):
    import uvloop

    uvloop.new_event_loop().close()  # the first one opens what stays open for good

#: After which instructions Python looks whether a handler is to run.
POINTS: Final = frozenset(
    dis.opmap[name]
    for name in ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")
    if name in dis.opmap
)
#: Seconds after which a call waits; if the machine is busy, fewer points are tried.
SETTLED: Final = 0.03

#: Looks in a row that find a thread asleep: it waits, and for nothing short.
SLEEPING_LOOKS: Final = 6

T = TypeVar("T")

Trace: TypeAlias = "Callable[[FrameType, str, object], Trace | None]"


class Interruption:
    """Does *act* in a handler at the point of a number, or else when the call waits."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._left = number
        self._act = act
        self._last: dict[FrameType, int] = {}
        #: Where it came, for messages.
        self.place = ""
        #: It came when the call waited.
        self.is_late = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Look for the point within this block."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            self._last.clear()

    def steps_of(self, awaited: Awaitable[T]) -> Generator[object, object, T]:
        """Look for the point in the steps of a task, but not in the loop's others."""
        steps = awaited.__await__()
        ask = partial(next, steps)
        while True:
            try:
                with self.armed():
                    asked = ask()
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                ask = partial(steps.send, (yield asked))
            except BaseException as error:
                ask = partial(steps.throw, error)

    def come_late(self) -> None:
        """Do it now, if the call has not come to the point."""
        if not self.place:
            self.is_late = True
            self.place = "while it waited"
            self._act()

    def _enter(self, frame: FrameType, event: str, _: object) -> Trace | None:
        if event != "call" or "/umbel/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, _: object) -> Trace | None:
        if event == "opcode" and not self.place:
            before = self._last.get(frame)
            self._last[frame] = frame.f_code.co_code[frame.f_lasti]
            if before in POINTS:
                self._left -= 1
                if self._left < 0:
                    self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    sys.settrace(None)
                    self._act()
        return self._step


class Steps(Awaitable[T]):
    """Awaits what a generator of its steps yields."""

    def __init__(self, steps: Generator[object, object, T]) -> None:
        self._steps = steps

    def __await__(self) -> Generator[object, object, T]:
        return self._steps


Attempt: TypeAlias = "Callable[[Interruption, Ends], object]"


def at_each_point(
    attempt: Attempt, scheme: str, act: Callable[[Ends], object], expected: object
) -> None:
    """Make *attempt* with streams that must wait, once for each point."""
    idle = umbel.chmake()
    is_late = False
    number = 0
    while not is_late:
        ends = umbel.pair(scheme)
        interruption = Interruption(number, partial(_handle, act, ends, idle[0]))
        try:
            found = attempt(interruption, ends)
        except BaseException as error:
            error.add_note(f"{number}: {interruption.place}")
            raise
        assert found == expected, (number, interruption.place)
        is_late = interruption.is_late
        number += 1
        _close_all(ends)
        while started:
            umbel.hclose(started.pop())
    _close_all(idle)


def _handle(
    act: Callable[[Ends], object], ends: Ends, idle: umbel.ChannelHandle[object]
) -> None:
    act(ends)
    with pytest.raises(umbel.DeadlineError):
        umbel.chrecv(idle, 0)  # which takes in whatever has come for anybody


def _close_all(handles: tuple[int, ...]) -> None:
    for handle in handles:
        if handle in open_handles:
            umbel.hclose(handle)


# What the handler does, and what comes of the call.


def send(ends: Ends) -> None:
    umbel.bsend(ends[1], b"x", 0)


def close(ends: Ends) -> None:
    umbel.hclose(ends[0])


def close_peer(ends: Ends) -> None:
    umbel.done(ends[1], 0)


def start(ends: Ends) -> None:
    started.append(umbel.go(int))  # which runs at once, or soon, and waits for nothing
    umbel.bsend(ends[1], b"x", 0)


def try_often(ends: Ends) -> None:
    for _ in range(3 * BUDGET):
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(ends[1], 1, 0)
    umbel.bsend(ends[1], b"x", 0)


started: list[umbel.BundleHandle] = []

acts = pytest.mark.parametrize(
    ("act", "expected"),
    [
        (send, b"x"),
        (close, umbel.BadHandleError),
        (close_peer, b""),
        (start, b"x"),
    ],
)

# In tasks.

Verb: TypeAlias = "Callable[[aio.AsyncStreamHandle], Awaitable[object]]"


async def receive_exactly(stream: aio.AsyncStreamHandle) -> bytes:
    try:
        return await aio.brecv(stream, 1)
    except umbel.EndOfStreamError:
        return b""


async def iterate(stream: aio.AsyncStreamHandle) -> bytes:
    async for data in stream:
        return data
    return b""


VERBS: Final[dict[str, Verb]] = {
    "receive": aio.receive,
    "receive in time": lambda s: aio.receive(s, 9, umbel.within(PATIENCE)),
    "receive exactly": receive_exactly,
    "iterate": iterate,
    "blocking": lambda s: aio.run_blocking(umbel.receive, as_stream(s)),
}

verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


async def call(
    verb: Verb, interruption: Interruption, ends: Ends, begin: Callable[[], object]
) -> object:
    """Let *verb* be interrupted; have *begin* called as it begins."""
    ours = aio.as_async(ends[0])
    umbel.bsend(ends[1], b"first")
    assert await aio.receive(ours) == b"first"
    with pytest.raises(umbel.DeadlineError):
        await aio.receive(
            ours, 9, umbel.within(0.001)
        )  # now it knows that it must wait
    begin()
    try:
        return await Steps(interruption.steps_of(verb(ours)))
    except umbel.BadHandleError as error:
        return type(error)
    finally:
        _close_all((ours,))


@acts
@verbs
def test_a_call_of_an_asyncio_task_misses_nothing(
    scheme: str, verb: Verb, act: Callable[[Ends], object], expected: object
) -> None:
    async def main(interruption: Interruption, ends: Ends) -> object:
        loop = asyncio.get_running_loop()
        begin = partial(loop.call_later, SETTLED, interruption.come_late)
        return await asyncio.wait_for(call(verb, interruption, ends, begin), PATIENCE)

    at_each_point(lambda i, ends: asyncio.run(main(i, ends)), scheme, act, expected)


@acts
@verbs
def test_a_call_of_a_trio_task_misses_nothing(
    scheme: str, verb: Verb, act: Callable[[Ends], object], expected: object
) -> None:
    trio = pytest.importorskip("trio")

    async def come_late(interruption: Interruption) -> None:
        await trio.sleep(SETTLED)
        interruption.come_late()

    async def main(interruption: Interruption, ends: Ends) -> object:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                begin = partial(nursery.start_soon, come_late, interruption)
                found = await call(verb, interruption, ends, begin)
                nursery.cancel_scope.cancel()
        return found

    at_each_point(lambda i, ends: trio.run(main, i, ends), scheme, act, expected)


async def sleep() -> bytes:
    await aio.msleep(umbel.within(0.001))
    return b"x"


async def sleep_in_an_errand() -> bytes:
    def sleep_twice() -> bytes:
        for _ in range(2):
            umbel.msleep(umbel.within(0.001))
        return b"x"

    return await aio.run_blocking(sleep_twice)


@pytest.mark.parametrize(
    ("act", "budget"), [(try_often, BUDGET), (start, BUDGET), (start, 0), (start, 1)]
)
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("verb", [sleep, sleep_in_an_errand])
def test_the_first_call_of_a_loop_makes_the_hub_its_guest_once(
    loop: str,
    verb: Callable[[], Coroutine[None, None, bytes]],
    act: Callable[[Ends], object],
    budget: int,
) -> None:
    trio = pytest.importorskip("trio")

    async def main(interruption: Interruption) -> bytes:
        found = await Steps(interruption.steps_of(verb()))
        interruption.come_late()
        await aio.msleep(umbel.within(0.001))
        return found

    def attempt(interruption: Interruption, _: Ends) -> object:
        current_hub().budget = budget
        if loop == "trio":
            return trio.run(main, interruption)
        limited = asyncio.wait_for(main(interruption), PATIENCE)
        return asyncio.run(limited)

    at_each_point(attempt, "mem", act, b"x")


# In coroutines.


def come_late(interruption: Interruption) -> None:
    umbel.msleep(umbel.within(SETTLED))
    interruption.come_late()


def attempt_in_coroutine(
    verb: Callable[[int], object], interruption: Interruption
) -> object:
    later = umbel.go(come_late, interruption)
    try:
        with interruption.armed():
            return verb(umbel.within(PATIENCE))
    except (umbel.BadHandleError, umbel.EndOfStreamError) as error:
        return type(error)
    finally:
        umbel.hclose(later)


@acts
def test_a_call_of_the_main_coroutine_misses_nothing(
    scheme: str, act: Callable[[Ends], object], expected: object
) -> None:
    def attempt(interruption: Interruption, ends: Ends) -> object:
        return attempt_in_coroutine(partial(umbel.receive, ends[0], 9), interruption)

    at_each_point(attempt, scheme, act, expected)


@pytest.mark.parametrize("verb", ["chsend", "chrecv", "choose"])
@pytest.mark.parametrize("act", ["chdone", "close the other", "close"])
def test_the_end_of_a_channel_is_not_slept_over(verb: str, act: str) -> None:
    def attempt(interruption: Interruption, _: Ends) -> object:
        ends[:] = umbel.chmake(int)
        try:
            return attempt_in_coroutine(wait, interruption)
        finally:
            _close_all(tuple(ends))

    def wait(deadline: int) -> object:
        ours = ends[0]
        if verb == "chsend":
            umbel.chsend(ours, 1, deadline)
        elif verb == "chrecv":
            return umbel.chrecv(ours, deadline)
        return umbel.choose([umbel.Recv(ours), umbel.Recv(ours)], deadline)

    def end(_: Ends) -> None:
        if act == "chdone":
            umbel.chdone(ends[0 if verb == "chsend" else 1])
        else:
            umbel.hclose(ends[0 if act == "close" else 1])

    ends: list[umbel.ChannelHandle[int]] = []
    expected = umbel.BadHandleError if act == "close" else umbel.EndOfStreamError
    at_each_point(attempt, "mem", end, expected)


def test_a_coroutine_that_is_woken_as_a_loop_takes_over_goes_on() -> None:
    def attempt(interruption: Interruption, ends: Ends) -> object:
        def wait() -> None:
            found.append(umbel.receive(ends[0], 9))

        async def main() -> None:
            asyncio.get_running_loop().call_later(SETTLED, interruption.come_late)
            waiting = Steps(interruption.steps_of(aio.bundle_wait(bundle)))
            await asyncio.wait_for(waiting, PATIENCE)

        found: list[bytes] = []
        bundle = umbel.go(wait)
        asyncio.run(main())
        _close_all((bundle,))
        return found

    at_each_point(attempt, "mem", send, [b"x"])


# In a loop that sleeps.


def is_asleep(thread: int) -> bool:
    """Tell whether a thread of ours sleeps; True where nobody can tell."""
    try:
        status = Path(f"/proc/self/task/{thread}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "S"


async def wait_for_receive(act: list[Callable[[], object]]) -> None:
    near, far = umbel.pair()
    ours = aio.as_async(near)
    act.append(partial(umbel.hclose, near))
    with far, pytest.raises(umbel.BadHandleError):
        await ours.receive()


async def wait_in_server(act: list[Callable[[], object]]) -> None:
    listener = aio.listen("mem://x")
    act.append(partial(umbel.hclose, listener))
    await aio.serve(listener, aio.AsyncStreamHandle.receive)


async def wait_for_coroutine(act: list[Callable[[], object]]) -> None:
    near, far = umbel.chmake(int)
    bundle = umbel.go(umbel.chrecv, near)
    act.append(partial(umbel.chsend, far, 1, 0))
    await aio.bundle_wait(bundle)
    _close_all((near, far, bundle))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("wait", [wait_for_receive, wait_in_server, wait_for_coroutine])
def test_a_handler_wakes_a_loop_that_sleeps(
    loop: str, wait: Callable[[list[Callable[[], object]]], Coroutine[None, None, None]]
) -> None:
    act: list[Callable[[], object]] = []
    took: list[float] = []
    main_thread, number = threading.get_ident(), threading.get_native_id()

    def interrupt() -> None:
        """Send the signal once the loop sleeps, as long as that may take."""
        looks = 0
        while looks < SLEEPING_LOOKS:
            time.sleep(SETTLED / SLEEPING_LOOKS)
            looks = looks + 1 if act and is_asleep(number) else 0
        signal.pthread_kill(main_thread, signal.SIGUSR1)

    async def main() -> None:
        began = time.monotonic()
        later = threading.Thread(target=interrupt)
        later.start()
        await wait(act)
        later.join()
        took.append(time.monotonic() - began)

    async def main_in_asyncio() -> None:
        await asyncio.wait_for(main(), PATIENCE)

    async def main_in_trio() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    before = signal.signal(signal.SIGUSR1, lambda *_: act[0]())
    try:
        if loop == "trio":
            trio = pytest.importorskip("trio")
            trio.run(main_in_trio)
        elif loop == "uvloop":
            pytest.importorskip("uvloop")
            uvloop.run(main_in_asyncio())
        else:
            asyncio.run(main_in_asyncio())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert took[0] < PATIENCE / 2


def test_a_handler_that_tries_in_vain_does_not_undo_what_it_did_before() -> None:
    sender, receiver = umbel.chmake(str)
    with sender, receiver:
        told: list[str] = []

        def act(*_: object) -> None:
            umbel.chsend(sender, "value", 0)  # to the call that it comes amid
            late = umbel.within(0.05)
            while umbel.now() <= late:  # whose deadline comes meanwhile
                time.sleep(0.01)
            try:
                umbel.chrecv(receiver, 0)
            except umbel.DeadlineError:
                told.append("in vain")

        async def main() -> str:
            await aio.run_blocking(umbel.now)
            add = _Timers.add

            def add_and_be_interrupted(
                self: _Timers, when: int, item: KernelCoroutine
            ) -> Timer[KernelCoroutine]:
                timer = add(self, when, item)
                if item.is_guest and not told:
                    signal.raise_signal(signal.SIGUSR1)
                return timer

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_Timers, "add", add_and_be_interrupted)
                call = aio.run_blocking(umbel.chrecv, receiver, umbel.within(0.03))
                return await asyncio.wait_for(call, PATIENCE)

        before = signal.signal(signal.SIGUSR1, act)
        try:
            assert asyncio.run(main()) == "value"
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert told == ["in vain"]


@pytest.mark.parametrize("act", ["umbel.go(int)", "umbel.flush(x, 0)"])
def test_a_handler_amid_a_yield_finds_everybody_in_a_place(act: str) -> None:
    code = f"""
import asyncio, collections, signal, sys, umbel
from umbel import aio
from umbel.aio import hosting
from umbel._kernel.current import current_hub
hub = current_hub()
x, y = umbel.ipc_pair()
told = []
def handle(*_):
    told.append(1)
    hub.budget = 0  # as after many calls
    for _ in range(3): {act}
signal.signal(signal.SIGUSR1, handle)
def popleft(self):
    found = collections.deque.popleft(self)
    caller = sys._getframe(1).f_code.co_name
    if not told and hub.current.is_guest and caller == "yield_":
        signal.raise_signal(signal.SIGUSR1)
    return found
hosting._Queue.popleft = popleft
def work():
    for _ in range(20): umbel.yield_()
async def main():
    other = asyncio.create_task(aio.msleep(umbel.within(0.1)))
    await asyncio.sleep(0)
    await aio.run_blocking(work)
    await other
asyncio.run(main())
print(told)
"""
    assert run_python(code) == "[1]\n"
