"""The awaitable server, in asyncio, on uvloop and in trio."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pytest

import umbel
from tests.mutants import opaque
from tests.support import PATIENCE, is_blocked, python, soon
from umbel import aio
from umbel.aio import serving as aio_serving
from umbel.handle import open_handles
from umbel.testing.transports import transport_at_hand

anyio = pytest.importorskip("anyio")
trio = pytest.importorskip("trio")
HAS_UVLOOP = find_spec("uvloop") is not None
if HAS_UVLOOP:
    import uvloop

    uvloop.new_event_loop().close()  # the first one opens what stays open for good


class Loop(Protocol):
    """What the tests need of a loop."""

    def run(self, main: Callable[[], Awaitable[None]]) -> None: ...

    def sleep(self, seconds: float) -> Awaitable[None]: ...

    def beside(
        self,
        work: Callable[[], Awaitable[None]],
        main: Callable[[Stop], Awaitable[None]],
    ) -> Awaitable[None]:
        """Run *work* in a task beside *main*, which is given what cancels it."""


class Stop(Protocol):
    """Cancels a task; `ended` tells whether it has ended, and `outcome` how."""

    ended: bool
    outcome: BaseException | None

    def cancel(self) -> None: ...


class AsyncioTask:
    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self.ended = False
        self.outcome: BaseException | None = None
        self.task = asyncio.get_running_loop().create_task(self._run(work))

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BaseException as error:
            self.outcome = error
        finally:
            self.ended = True

    def cancel(self) -> None:
        self.task.cancel()


class Asyncio:
    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await main()

        asyncio.run(whole())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def beside(
        self,
        work: Callable[[], Awaitable[None]],
        main: Callable[[Stop], Awaitable[None]],
    ) -> None:
        task = AsyncioTask(work)
        try:
            await main(task)
        finally:
            task.cancel()
            await task.task


class Uvloop(Asyncio):
    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        if not HAS_UVLOOP:
            pytest.skip("uvloop is not installed")

        async def whole() -> None:
            await main()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(whole())


class TrioTask:
    def __init__(self) -> None:
        self.ended = False
        self.outcome: BaseException | None = None
        self.scope = trio.CancelScope()

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with self.scope:
                try:
                    await work()
                except BaseException as error:
                    self.outcome = error
                    if isinstance(error, trio.Cancelled):
                        raise
        finally:
            self.ended = True

    def cancel(self) -> None:
        self.scope.cancel()


class Trio:
    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        trio.run(main)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def beside(
        self,
        work: Callable[[], Awaitable[None]],
        main: Callable[[Stop], Awaitable[None]],
    ) -> None:
        task = TrioTask()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run, work)
            try:
                await main(task)
            finally:
                task.cancel()


@pytest.fixture(params=[Asyncio, Uvloop, Trio], ids=["asyncio", "uvloop", "trio"])
def loop(request: pytest.FixtureRequest) -> Loop:
    found: Loop = request.param()
    return found


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=["ipc", "mem", "opaque"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[umbel.Address]:
    """Give an address of a built-in transport, or of one that can do the least."""
    scheme = request.param
    place = str(tmp_path / "x.sock") if scheme == "ipc" else tmp_path.name
    with ExitStack() as stack:
        if scheme == "opaque":
            stack.enter_context(transport_at_hand(opaque.transport, scheme))
        yield umbel.Address(scheme, place)


async def echo(stream: aio.AsyncStreamHandle) -> None:
    async for chunk in stream:
        await aio.bsend(stream, chunk)


async def hold(stream: aio.AsyncStreamHandle) -> None:
    await aio.receive(stream)


async def ask(stream: aio.AsyncStreamHandle, data: bytes) -> None:
    """Have *data* come back."""
    await aio.bsend(stream, data, soon())
    assert await aio.brecv(stream, len(data), soon()) == data


async def until(loop: Loop, condition: Callable[[], object]) -> None:
    give_up = soon()
    while not condition():
        assert umbel.now() < give_up
        await loop.sleep(0.001)


def test_each_client_is_served_in_a_task_of_its_own(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)

        async def talk(_: Stop) -> None:
            clients = [await aio.connect(address, soon()) for _ in range(5)]
            for number, client in enumerate(clients):
                await aio.bsend(client, b"%d" % number, soon())
            answers = [await aio.receive(client, 1, soon()) for client in clients]
            assert answers == [b"0", b"1", b"2", b"3", b"4"]
            for client in clients:
                await aio.close(client, soon())

        await loop.beside(lambda: aio.serve(listener, echo), talk)
        assert listener not in open_handles

    loop.run(main)


def test_a_stream_whose_handler_returns_is_closed_in_good_order(
    loop: Loop, address: umbel.Address
) -> None:
    async def answer(stream: aio.AsyncStreamHandle) -> None:
        await stream.send(b"all of it")

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(_: Stop) -> None:
            client = await aio.connect(address, soon())
            await client.send(b"what the handler never reads", soon())
            assert await client.receive_exactly(9, soon()) == b"all of it"
            assert await client.receive(1, soon()) == b""
            await client.close(soon())

        await loop.beside(lambda: aio.serve(listener, answer), talk)

    loop.run(main)


def test_a_handler_that_fails_is_logged_and_the_others_are_served_on(
    loop: Loop, address: umbel.Address, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: aio.AsyncStreamHandle) -> None:
        if await stream.receive_exactly(1) == b"x":
            raise ExceptionGroup("several", [ValueError("no x, please")])
        await echo(stream)

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(_: Stop) -> None:
            bad = await aio.connect(address, soon())
            good = await aio.connect(address, soon())
            await bad.send(b"xrest", soon())
            with pytest.raises(umbel.BrokenStreamError):
                await bad.receive(1, soon())
            bad.abort()
            await good.send(b"-", soon())
            await ask(good, b"abc")
            await good.close(soon())

        await loop.beside(lambda: aio.serve(listener, handler), talk)

    loop.run(main)
    (record,) = [
        r for r in caplog.records if r.name == "umbel" and r.levelno > logging.INFO
    ]
    assert "the handler of a stream failed" in record.message


class Odd(BaseException):
    """What is no Exception, and not the loop's or the program's end either."""


@pytest.mark.parametrize(
    "make_odd",
    [Odd, umbel.Canceled, lambda: BaseExceptionGroup("several", [Odd(), Odd()])],
    ids=["plain", "Canceled", "group"],
)
def test_what_is_no_exception_is_raised_once_the_server_has_ended(
    loop: Loop, address: umbel.Address, make_odd: Callable[[], BaseException]
) -> None:
    odd = make_odd()

    async def handler(stream: aio.AsyncStreamHandle) -> None:
        if await stream.receive_exactly(1) == b"x":
            raise odd
        await echo(stream)

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(server: Stop) -> None:
            bad = await aio.connect(address, soon())
            good = await aio.connect(address, soon())
            await bad.send(b"x", soon())
            assert await bad.receive(1, soon()) == b""
            bad.abort()
            await good.send(b"-", soon())
            await ask(good, b"abc")
            await good.close(soon())
            listener.abort()
            await until(loop, lambda: server.ended)
            assert isinstance(server.outcome, BaseExceptionGroup)
            assert server.outcome.exceptions == (odd,)
            del server.outcome  # or its traceback would refer to itself

        await loop.beside(lambda: aio.serve(listener, handler), talk)

    loop.run(main)


def test_a_cancellation_gives_way_to_what_is_no_exception(
    loop: Loop, address: umbel.Address
) -> None:
    async def handler(_: aio.AsyncStreamHandle) -> None:
        raise Odd

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(server: Stop) -> None:
            client = await aio.connect(address, soon())
            assert await client.receive(1, soon()) == b""
            client.abort()
            server.cancel()
            await until(loop, lambda: server.ended)
            assert isinstance(server.outcome, BaseExceptionGroup)
            del server.outcome

        await loop.beside(lambda: aio.serve(listener, handler), talk)

    loop.run(main)


EXITING = """
import asyncio, sys
from umbel import aio

async def handler(stream):
    sys.exit(3)

async def main():
    listener = aio.listen("mem://exiting")
    client = await aio.connect("mem://exiting")
    try:
        await aio.serve(listener, handler)
    finally:
        client.abort()

asyncio.run(main())
"""


def test_a_handler_that_exits_ends_the_program_in_silence() -> None:
    with python(EXITING) as process:
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 3


def test_a_handler_that_exits_before_it_awaits_leaves_nothing_where_tasks_are_eager(
    address: umbel.Address,
) -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks are of Python 3.12")
    accepted: list[int] = []

    async def leave(stream: aio.AsyncStreamHandle) -> None:
        accepted.append(int(stream))
        raise SystemExit(3)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        loop.set_exception_handler(lambda *_: None)  # of the task that nobody has
        listener = aio.listen(address)
        with umbel.connect(address):
            try:
                # Nobody is left who would need the grace.
                await asyncio.wait_for(aio.serve(listener, leave, grace=60), PATIENCE)
            finally:
                assert accepted[0] not in open_handles

    with pytest.raises(SystemExit):
        asyncio.run(main())


def test_the_end_of_the_program_in_a_handlers_nursery_ends_the_server(
    address: umbel.Address,
) -> None:
    async def leave() -> None:
        raise SystemExit

    async def handler(_: aio.AsyncStreamHandle) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)

    async def main() -> None:
        listener = aio.listen(address)
        client = await aio.connect(address, soon())
        with pytest.raises(BaseExceptionGroup) as caught:
            await aio.serve(listener, handler)
        assert caught.value.subgroup(SystemExit)
        client.abort()

    trio.run(main)


def test_a_cancellation_while_handlers_end_gives_way_to_it_too(
    address: umbel.Address,
) -> None:
    may_end = asyncio.Event()

    async def handler(stream: aio.AsyncStreamHandle) -> None:
        try:
            await stream.receive()
        finally:
            await may_end.wait()
            raise Odd

    async def main() -> None:
        listener = aio.listen(address)
        server = asyncio.create_task(aio.serve(listener, handler, grace=0))
        client = await aio.connect(address, soon())
        await until(Asyncio(), lambda: len(open_handles) == 3)
        server.cancel()
        await until(Asyncio(), lambda: listener not in open_handles)
        for _ in range(3):
            await asyncio.sleep(0.001)
            server.cancel()
        may_end.set()
        with pytest.raises(BaseExceptionGroup):
            await server
        client.abort()

    asyncio.run(main())


def test_beyond_the_limit_peers_wait_in_the_backlog(
    loop: Loop, address: umbel.Address
) -> None:
    started: list[int] = []

    async def handler(stream: aio.AsyncStreamHandle) -> None:
        started.append(int(stream))
        await stream.send(b"welcome")
        await stream.receive()

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(_: Stop) -> None:
            clients = [await aio.connect(address, soon()) for _ in range(3)]
            for client in clients[:2]:
                assert await client.receive_exactly(7, soon()) == b"welcome"
            with pytest.raises(umbel.DeadlineError):
                await clients[2].receive(7, umbel.within(0.02))
            assert len(started) == 2

            await clients[0].close(soon())

            assert await clients[2].receive_exactly(7, soon()) == b"welcome"
            for client in clients[1:]:
                await client.close(soon())

        await loop.beside(lambda: aio.serve(listener, handler, limit=2), talk)

    loop.run(main)


def test_closing_the_listener_lets_those_who_are_served_come_to_an_end(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)

        async def talk(server: Stop) -> None:
            client = await aio.connect(address, soon())
            await ask(client, b"a")
            listener.abort()
            await ask(client, b"b")
            assert not server.ended
            await client.close(soon())
            await until(loop, lambda: server.ended)
            assert server.outcome is None

        await loop.beside(lambda: aio.serve(listener, echo), talk)

    loop.run(main)


def test_a_full_server_learns_at_once_that_its_listener_is_closed(
    loop: Loop, address: umbel.Address, threads: ThreadPoolExecutor
) -> None:
    async def main() -> None:
        listener = aio.listen(address)

        async def talk(server: Stop) -> None:
            client = await aio.connect(address, soon())
            await until(loop, lambda: len(open_handles) >= 3)  # it is being served
            await until(loop, lambda: is_blocked(listener))  # which waits for its end
            threads.submit(umbel.hclose, listener).result()
            await until(loop, lambda: server.ended)
            assert server.outcome is None
            client.abort()

        await loop.beside(lambda: aio.serve(listener, hold, limit=1, grace=0), talk)

    loop.run(main)


def test_a_canceled_server_gives_the_grace_before_it_ends(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)

        async def talk(server: Stop) -> None:
            client = await aio.connect(address, soon())
            await ask(client, b"a")
            server.cancel()
            await until(loop, lambda: listener not in open_handles)
            await ask(client, b"b")
            await loop.sleep(0.01)
            await ask(client, b"c")
            assert not server.ended
            await client.close(soon())
            await until(loop, lambda: server.ended)
            assert isinstance(server.outcome, (asyncio.CancelledError, trio.Cancelled))

        await loop.beside(lambda: aio.serve(listener, echo), talk)

    loop.run(main)


def test_who_is_left_after_the_grace_is_canceled_and_closed_hard(
    loop: Loop, address: umbel.Address, caplog: pytest.LogCaptureFixture
) -> None:
    served: list[aio.AsyncStreamHandle] = []
    ended: list[type[BaseException]] = []

    async def handler(stream: aio.AsyncStreamHandle) -> None:
        served.append(stream)
        try:
            await stream.receive()
        except BaseException as error:
            ended.append(type(error))
            raise

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(server: Stop) -> None:
            client = await aio.connect(address, soon())
            await until(loop, lambda: served and is_blocked(served[0]))
            began = umbel.now()
            server.cancel()
            assert await client.receive(1, soon()) == b""
            assert umbel.now() - began >= 20
            await until(loop, lambda: server.ended)
            client.abort()

        await loop.beside(lambda: aio.serve(listener, handler, grace=0.02), talk)

    loop.run(main)
    assert ended in ([asyncio.CancelledError], [trio.Cancelled])
    assert "1 handlers are canceled" in caplog.text


@pytest.mark.parametrize("is_scoped", [False, True], ids=["task", "scope of anyio's"])
def test_a_second_cancellation_in_asyncio_cuts_the_grace_short(
    address: umbel.Address, is_scoped: bool
) -> None:
    async def main() -> None:
        listener = aio.listen(address)
        scope = anyio.CancelScope()

        async def serve() -> None:
            with scope if is_scoped else nullcontext():
                await aio.serve(listener, echo, grace=PATIENCE)

        server = asyncio.create_task(serve())
        client = await aio.connect(address, soon())
        await ask(client, b"a")
        if is_scoped:
            scope.cancel()
        else:
            server.cancel()
        await until(Asyncio(), lambda: listener not in open_handles)

        server.cancel()

        with pytest.raises(asyncio.CancelledError):
            await server
        assert await client.receive(1, umbel.within(PATIENCE / 2)) == b""
        client.abort()

    asyncio.run(main())


def test_a_canceled_scope_of_anyios_gives_the_grace(
    address: umbel.Address, backend: str
) -> None:
    async def main() -> None:
        listener = aio.listen(address)
        scope = anyio.CancelScope()

        async def serve() -> None:
            with scope:
                await aio.serve(listener, echo, grace=PATIENCE)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            client = await aio.connect(address, soon())
            await ask(client, b"a")
            scope.cancel()
            while listener in open_handles:
                await anyio.sleep(0.001)
            await ask(client, b"b")
            spent = time.process_time()
            await anyio.sleep(0.1)
            assert time.process_time() - spent < 0.05  # it does not spin
            await ask(client, b"c")
            await client.close(soon())
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)


def test_a_handler_that_is_canceled_before_it_began_leaves_no_stream_open(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)
        client = await aio.connect(address, soon())

        with pytest.raises(umbel.DeadlineError):
            await aio.serve(listener, hold, 0)

        client.abort()
        assert not open_handles

    loop.run(main)


def test_its_deadline_comes_though_peers_are_still_queued(
    loop: Loop, address: umbel.Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[aio.AsyncStreamHandle] = []

    async def accept(
        listener: aio.AsyncListenerHandle, deadline: int
    ) -> aio.AsyncStreamHandle:
        accepted.append(await aio.accept(listener, deadline))
        return accepted[-1]

    async def main() -> None:
        listener = aio.listen(address)
        clients = [await aio.connect(address, soon()) for _ in range(3)]

        with pytest.raises(umbel.DeadlineError):
            await aio.serve(listener, hold, 0)

        for client in clients:
            client.abort()

    monkeypatch.setattr(aio_serving, "accept", accept)
    loop.run(main)

    assert len(accepted) == 1


def test_at_its_deadline_all_is_over(loop: Loop, address: umbel.Address) -> None:
    async def main() -> None:
        listener = aio.listen(address)
        client = await aio.connect(address, soon())

        with pytest.raises(umbel.DeadlineError):
            await aio.serve(listener, hold, umbel.within(0.02), grace=PATIENCE)

        assert listener not in open_handles
        assert await client.receive(1, soon()) == b""
        client.abort()

    loop.run(main)


def test_a_deadline_within_the_grace_is_an_error(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)
        client = await aio.connect(address, soon())

        async def handler(stream: aio.AsyncStreamHandle) -> None:
            listener.abort()
            await stream.receive()

        with pytest.raises(umbel.DeadlineError):
            await aio.serve(listener, handler, umbel.within(0.02))

        client.abort()

    loop.run(main)


def test_the_loops_own_timeout_ends_it(address: umbel.Address) -> None:
    async def in_asyncio() -> None:
        listener = aio.listen(address)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aio.serve(listener, echo)

    async def in_trio() -> None:
        listener = aio.listen(address)
        with trio.move_on_after(0.01) as scope:
            await aio.serve(listener, echo)
        assert scope.cancelled_caught

    asyncio.run(in_asyncio())
    trio.run(in_trio)


def test_a_listener_that_is_busy_is_refused_and_left_alone(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)

        async def again(first: Stop) -> None:
            await until(loop, lambda: is_blocked(listener))
            with pytest.raises(umbel.BusyError, match="let one task accept for all"):
                await aio.serve(listener, echo)
            assert listener in open_handles
            assert not first.ended

        await loop.beside(lambda: aio.serve(listener, echo), again)
        with pytest.raises(umbel.BadHandleError):
            await aio.serve(listener, echo)

    loop.run(main)


def test_what_another_thread_closes_in_that_moment_has_parted_well(
    loop: Loop,
    address: umbel.Address,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "umbel")

    async def close_second(handle: int, deadline: int) -> None:
        umbel.hclose(handle)  # as a thread would that is a moment faster
        await aio.close(handle, deadline)

    async def handler(_: aio.AsyncStreamHandle) -> None:
        pass

    async def main() -> None:
        listener = aio.listen(address)

        async def talk(_: Stop) -> None:
            client = await aio.connect(address, soon())
            assert await client.receive(1, soon()) == b""
            client.abort()

        await loop.beside(lambda: aio.serve(listener, handler), talk)

    monkeypatch.setattr(aio_serving, "close", close_second)
    loop.run(main)
    assert not [record for record in caplog.records if record.name == "umbel"]


def test_wrong_arguments_are_refused_and_leave_the_listener_open(
    loop: Loop, address: umbel.Address
) -> None:
    async def main() -> None:
        listener = aio.listen(address)
        with pytest.raises(OSError, match="limit is 0") as caught:
            await aio.serve(listener, echo, limit=0)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(ValueError, match="grace is -1"):
            await aio.serve(listener, echo, grace=-1)
        assert listener in open_handles
        listener.abort()

    loop.run(main)


@pytest.mark.skipif(
    os.environ.get("UMBEL_POLLER") == "poll",
    reason="poll(2) refuses more descriptors than may be open (EINVAL)",
)
def test_without_descriptors_it_backs_off_and_goes_on_when_there_are_some(
    loop: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = umbel.Address("ipc", str(tmp_path / "x.sock"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        listener = aio.listen(address)
        queued = socket.socket(socket.AF_UNIX)

        async def talk(server: Stop) -> None:
            await (await aio.connect(address, soon())).close(soon())  # it has begun
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            queued.connect(address.location)
            queued.sendall(b"abc")
            await loop.sleep(0.1)
            with pytest.raises(BlockingIOError):
                queued.recv(3, socket.MSG_DONTWAIT)
            assert not server.ended
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client = aio.ipc_fromfd(queued.detach())
            assert await client.receive(3, soon()) == b"abc"
            await client.close(soon())

        await loop.beside(lambda: aio.serve(listener, echo), talk)

    try:
        loop.run(main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("accepting failed") == 1


@pytest.mark.parametrize("verb", [aio.close, aio.ipc_close])
def test_a_close_that_is_canceled_before_it_began_closes_all_the_same(
    verb: Callable[[aio.AsyncStreamHandle], Awaitable[object]],
) -> None:
    async def main() -> None:
        left, right = aio.ipc_pair()
        with trio.CancelScope() as scope:
            scope.cancel()
            await verb(left)
        assert scope.cancelled_caught
        assert left not in open_handles
        assert await right.receive(1, soon()) == b""
        right.abort()

    trio.run(main)


def test_a_crew_of_trio_forgets_the_scopes_of_those_that_have_ended() -> None:
    from umbel.aio.trio_crew import TrioCrew

    async def main() -> int:
        async with TrioCrew() as crew:
            with crew.scope():
                pass
            return len(crew._scopes)

    assert trio.run(main) == 0


@pytest.mark.parametrize("limit", [None, 1])
def test_a_server_that_drains_serves_those_who_have_connected_already(
    loop: Loop, limit: int | None, tmp_path: Path
) -> None:
    async def main() -> None:
        listener = aio.listen(f"ipc:{tmp_path}/x.sock")

        async def talk(server: Stop) -> None:
            clients = [await aio.connect(listener.address, soon()) for _ in range(4)]
            await clients[0].send(b"x")
            assert await clients[0].receive_exactly(1, soon()) == b"x"
            server.cancel()
            for client in clients:
                await client.send(b"abc")
                assert await client.receive_exactly(3, soon()) == b"abc"
                await client.close(soon())

        serve = partial(aio.serve, listener, echo, limit=limit, drain_backlog=True)
        await loop.beside(serve, talk)
        assert listener not in open_handles

    loop.run(main)


def test_those_whom_the_grace_leaves_no_time_are_closed(
    loop: Loop, tmp_path: Path
) -> None:
    async def main() -> None:
        listener = aio.listen(f"ipc:{tmp_path}/x.sock")
        clients = [await aio.connect(listener.address, soon()) for _ in range(2)]

        async def talk(server: Stop) -> None:
            await clients[0].send(b"x")
            assert await clients[0].receive_exactly(1, soon()) == b"x"
            server.cancel()
            assert await clients[0].receive(1, soon()) == b""
            with pytest.raises(umbel.BrokenStreamError):
                await clients[1].receive(1, soon())
            for client in clients:
                client.abort()

        await loop.beside(lambda: aio.serve(listener, echo, limit=1, grace=0.05), talk)

    loop.run(main)
