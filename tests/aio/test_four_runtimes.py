"""One address, four runtimes: equal results, and equal errors in every misfortune."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar

import pytest

import umbel
from tests.support import PATIENCE, wait_until_blocked
from umbel import aio
from umbel._kernel.current import current_hub
from umbel.errors import UmbelError

trio = pytest.importorskip("trio")

R = TypeVar("R")

# Each call below is written once, with `await`. In threads and coroutines it awaits
# blocking verbs, which are never suspended.


class Blocking(ModuleType):
    """umbel's blocking verbs, as `umbel.aio` has its own."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        verb = getattr(umbel, name)

        async def call(*args: object, **named: object) -> object:
            return verb(*args, **named)

        return call


BLOCKING: Final = Blocking("umbel")


def finish(work: Coroutine[object, object, R]) -> R:
    try:
        work.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    raise AssertionError("a blocking verb was suspended")


Work = Callable[[ModuleType], Coroutine[object, object, R]]


def in_thread(work: Work[R]) -> R:
    return finish(work(BLOCKING))


def in_coroutine(work: Work[R]) -> R:
    found: list[R] = []
    with umbel.go(lambda: found.append(finish(work(BLOCKING)))) as running:
        running.wait(umbel.within(PATIENCE))
    return found[0]


def in_asyncio(work: Work[R]) -> R:
    return asyncio.run(work(aio))


def in_trio(work: Work[R]) -> R:
    result: R = trio.run(work, aio)
    return result


RUNTIMES: Final = {
    "threads": in_thread,
    "coroutines": in_coroutine,
    "asyncio": in_asyncio,
    "trio": in_trio,
}


@pytest.fixture(params=["ipc", "mem", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give where to listen, of each transport."""
    return {
        "ipc": f"ipc:{tmp_path}/x.sock",
        "mem": f"mem://{tmp_path.name}",
        "tcp": "tcp://127.0.0.1:0",
    }[request.param]


@contextmanager
def linked(address: str) -> Iterator[tuple[umbel.StreamHandle, umbel.StreamHandle]]:
    """Give two streams that are each other's peers; close what is open of them."""

    def link(listener: umbel.ListenerHandle) -> None:
        ends.append(umbel.connect(listener.address, umbel.within(PATIENCE)))
        ends.append(umbel.accept(listener, umbel.within(PATIENCE)))

    # In a thread, since a loop may run in this one.
    ends: list[umbel.StreamHandle] = []
    with umbel.listen(address) as listener, beside(partial(link, listener)):
        pass
    left, right = ends
    try:
        yield left, right
    finally:
        for end in (left, right):
            close_hard(end)


def close_hard(handle: int) -> None:
    try:
        umbel.hclose(handle)
    except umbel.BadHandleError:
        pass


@contextmanager
def beside(call: Callable[[], object]) -> Iterator[None]:
    """Run *call* in a thread of its own, whatever becomes of it."""

    def run() -> None:
        try:
            call()
        except OSError:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


# At once, at one address.

QUESTIONS: Final = [b"%d, asked" % number * 1000 for number in range(20)]


async def ask(address: umbel.Address, verbs: ModuleType) -> list[object]:
    """Ask a server that answers in capitals, until it has closed."""
    until = umbel.within(PATIENCE)
    stream = await verbs.connect(address, until)
    answers: list[object] = []
    try:
        for question in QUESTIONS:
            await verbs.bsend(stream, question, until)
            answers.append(await verbs.brecv(stream, len(question), until))
        await verbs.done(stream, until)
        answers.append(await verbs.receive(stream, 10, until))
    finally:
        answers.append(await verbs.close(stream, until))
    return answers


async def answer(verbs: ModuleType, stream: int) -> None:
    until = umbel.within(PATIENCE)
    while data := await verbs.receive(stream, 65536, until):
        await verbs.bsend(stream, data.upper(), until)


def answer_blocking(stream: umbel.StreamHandle) -> None:
    finish(answer(BLOCKING, stream))


def serve_in_threads(listener: umbel.ListenerHandle) -> None:
    def serve_one(stream: umbel.StreamHandle) -> None:
        with stream:
            answer_blocking(stream)

    threads = []
    try:
        while True:
            stream = umbel.accept(listener, umbel.within(PATIENCE))
            threads.append(threading.Thread(target=serve_one, args=(stream,)))
            threads[-1].start()
    except umbel.BadHandleError:
        pass  # closed: that is the end
    for thread in threads:
        thread.join()


SERVERS: Final[dict[str, Callable[[umbel.ListenerHandle], None]]] = {
    "threads": serve_in_threads,
    "coroutines": lambda listener: umbel.serve(listener, answer_blocking),
    "asyncio": lambda listener: asyncio.run(
        aio.serve(aio.as_async(listener), partial(answer, aio))
    ),
    "trio": lambda listener: trio.run(
        aio.serve, aio.as_async(listener), partial(answer, aio)
    ),
}


@pytest.mark.parametrize("server", SERVERS)
def test_clients_of_all_four_are_served_at_once_with_equal_results(
    server: str, address: str
) -> None:
    listener = umbel.listen(address)
    where = listener.address
    serving = threading.Thread(target=SERVERS[server], args=(listener,))
    serving.start()
    told: dict[str, list[list[object]]] = {name: [] for name in RUNTIMES}

    def run(name: str) -> None:
        told[name].append(RUNTIMES[name](partial(ask, where)))

    clients = [threading.Thread(target=run, args=(name,)) for name in [*RUNTIMES] * 2]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    umbel.hclose(int(listener))
    serving.join()

    wanted = [*(question.upper() for question in QUESTIONS), b""]
    for name, answers in told.items():
        assert len(answers) == 2, f"a client in {name} failed"
        for found in answers:
            *words, report = found
            assert words == wanted, name
            assert isinstance(report, umbel.CloseReport)
            assert report.discarded == 0


# Misfortunes, one by one. Each ends in an error.

Misfortune = Callable[[str, ModuleType], Coroutine[object, object, object]]


async def refused(address: str, verbs: ModuleType) -> None:
    # A file that is left behind, or there would be nothing to refuse it.
    options = {"unlink": False} if address.startswith("ipc") else {}
    with umbel.listen(address, **options) as listener:
        where = listener.address
    await verbs.connect(where, umbel.within(PATIENCE))


async def connect_late(address: str, verbs: ModuleType) -> None:
    clients = []
    with umbel.listen(address, 1) as listener:
        try:
            while True:
                where = listener.address
                clients.append(await verbs.connect(where, umbel.within(0.05)))
        finally:
            for client in clients:
                umbel.hclose(client)


async def accept_late(address: str, verbs: ModuleType) -> None:
    with umbel.listen(address) as listener:
        await verbs.accept(listener, umbel.within(0.02))


async def receive_late(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.receive(left, 10, umbel.within(0.02))


async def receive_at_once(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.receive(left, 10, 0)


async def brecv_halfway(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, right):
        umbel.bsend(right, b"four")
        await verbs.brecv(left, 10, umbel.within(0.1))


async def close_late(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.close(left, umbel.within(0.02))


async def reset(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, right):
        umbel.bsend(left, b"never read")
        umbel.hclose(right)
        await verbs.brecv(left, 1, umbel.within(PATIENCE))


async def send_to_nobody(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, right):
        umbel.hclose(right)
        for _ in range(1000):
            await verbs.bsend(left, bytes(1000), umbel.within(PATIENCE))


async def broken(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, right):
        with pytest.raises(umbel.DeadlineError):
            await verbs.brecv(left, 1, 0)
        umbel.bsend(right, b"x")
        await verbs.brecv(left, 1, umbel.within(PATIENCE))


async def peer_ended(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, right):
        umbel.bsend(right, b"four")
        umbel.done(right)
        await verbs.brecv(left, 10, umbel.within(PATIENCE))


async def ended_ourselves(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.done(left, umbel.within(PATIENCE))
        await verbs.bsend(left, b"x", umbel.within(PATIENCE))


async def done_twice(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.done(left, umbel.within(PATIENCE))
        await verbs.done(left, umbel.within(PATIENCE))


async def busy_receiver(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, right), beside(partial(umbel.receive, left)):
        try:
            wait_until_blocked(left)
            await verbs.receive(left, 1, umbel.within(PATIENCE))
        finally:
            umbel.bsend(right, b"for the first")


async def busy_sender(address: str, verbs: ModuleType) -> None:
    with (
        linked(address) as (left, right),
        beside(partial(umbel.bsend, left, bytes(64 << 20))),
    ):
        try:
            wait_until_blocked(left)
            await verbs.bsend(left, b"x", umbel.within(PATIENCE))
        finally:
            umbel.hclose(right)


async def busy_accepter(address: str, verbs: ModuleType) -> None:
    listener = umbel.listen(address)
    with beside(partial(umbel.accept, listener)):
        try:
            wait_until_blocked(listener)
            await verbs.accept(listener, umbel.within(PATIENCE))
        finally:
            umbel.hclose(listener)


async def closed_before(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        umbel.hclose(left)
        await verbs.bsend(left, b"x", umbel.within(PATIENCE))


async def closed_meanwhile(address: str, verbs: ModuleType) -> None:
    def close() -> None:
        wait_until_blocked(left)
        umbel.hclose(left)

    with linked(address) as (left, _), beside(close):
        await verbs.receive(left, 1, umbel.within(PATIENCE))


async def closed_twice(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        umbel.hclose(left)
        await verbs.close(left, umbel.within(PATIENCE))


async def wrong_kind(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.accept(left, umbel.within(PATIENCE))


async def no_handle(address: str, verbs: ModuleType) -> None:
    await verbs.receive(-1, 1, umbel.within(PATIENCE))


async def bad_size(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.receive(left, 0, umbel.within(PATIENCE))


async def negative_count(address: str, verbs: ModuleType) -> None:
    with linked(address) as (left, _):
        await verbs.brecv(left, -1, umbel.within(PATIENCE))


async def no_transport(address: str, verbs: ModuleType) -> None:
    await verbs.connect("smoke://signals", umbel.within(PATIENCE))


#: What each gives: the errno, and how many bytes were done where that is known.
MISFORTUNES: Final[list[tuple[Misfortune, int, int]]] = [
    (refused, errno.ECONNREFUSED, 0),
    (connect_late, errno.ETIMEDOUT, 0),
    (accept_late, errno.ETIMEDOUT, 0),
    (receive_late, errno.ETIMEDOUT, 0),
    (receive_at_once, errno.ETIMEDOUT, 0),
    (brecv_halfway, errno.ETIMEDOUT, 4),
    (close_late, errno.ETIMEDOUT, 0),
    (reset, errno.ECONNRESET, 0),
    (send_to_nobody, errno.ECONNRESET, 0),
    (broken, errno.ECONNRESET, 0),
    (peer_ended, errno.EPIPE, 4),
    (ended_ourselves, errno.EPIPE, 0),
    (done_twice, errno.EPIPE, 0),
    (busy_receiver, errno.EBUSY, 0),
    (busy_sender, errno.EBUSY, 0),
    (busy_accepter, errno.EBUSY, 0),
    (closed_before, errno.EBADF, 0),
    (closed_meanwhile, errno.EBADF, 0),
    (closed_twice, errno.EBADF, 0),
    (wrong_kind, errno.ENOTSUP, 0),
    (no_handle, errno.EBADF, 0),
    (bad_size, errno.EINVAL, 0),
    (negative_count, errno.EINVAL, 0),
    (no_transport, errno.EPROTONOSUPPORT, 0),
]


async def suffer(
    misfortune: Misfortune, address: str, verbs: ModuleType
) -> tuple[str, int | None, int, str]:
    """Give all that the error tells, but for the numbers of handles and ports."""
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its errno is looked at
        await misfortune(address, verbs)
    error = raised.value
    done = error.bytes_done if isinstance(error, UmbelError) else 0
    return type(error).__name__, error.errno, done, re.sub(r"\d+", "N", str(error))


@pytest.mark.parametrize(
    ("misfortune", "number", "bytes_done"),
    MISFORTUNES,
    ids=[entry[0].__name__ for entry in MISFORTUNES],
)
def test_a_misfortune_is_the_same_error_in_all_four(
    misfortune: Misfortune, number: int, bytes_done: int, address: str
) -> None:
    found = {
        name: run(partial(suffer, misfortune, address))
        for name, run in RUNTIMES.items()
    }

    assert set(found.values()) == {found["threads"]}, found
    assert found["threads"][1:3] == (number, bytes_done)


# Room.


async def fill(scheme: str, verbs: ModuleType) -> int:
    """Tell how much a peer that does not read leaves room for."""
    left, right = umbel.pair(scheme)
    try:
        with pytest.raises(umbel.DeadlineError) as raised:
            await verbs.bsend(left, bytes(64 << 20), 0)
        return raised.value.bytes_done
    finally:
        close_hard(left)
        close_hard(right)


@pytest.mark.parametrize("scheme", ["ipc", "mem"])
def test_a_send_finds_as_much_room_in_all_four(scheme: str) -> None:
    found = {name: run(partial(fill, scheme)) for name, run in RUNTIMES.items()}

    assert set(found.values()) == {found["threads"]}, found


# What would stop a loop.


@contextmanager
def busy_port() -> Iterator[int]:
    """Give a port that takes no more connections, and refuses none."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as kept:
        port: int = full.getsockname()[1]
        for _ in range(4):
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.parametrize("verb", ["connect", "accept", "receive", "brecv", "close"])
def test_a_refused_blocking_verb_names_its_twin_whoever_waits_in_it(
    verb: str,
) -> None:
    listener = umbel.listen("tcp://127.0.0.1:0")

    async def main() -> None:
        current_hub().main.must_look = True  # whatever came just before
        if verb == "connect":
            with busy_port() as port:
                umbel.connect(f"tcp://127.0.0.1:{port}")
        elif verb == "accept":
            umbel.accept(listener)
        else:
            stream = await aio.connect(listener.address, umbel.within(PATIENCE))
            blocking = aio.as_blocking(stream)
            try:
                getattr(umbel, verb)(blocking, *[1] * (verb != "close"))
            finally:
                close_hard(blocking)

    with listener, pytest.raises(RuntimeError, match=rf"await umbel\.aio\.{verb},"):
        asyncio.run(main())


def test_a_refused_connect_by_name_names_its_twin_though_a_look_up_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    was_refused = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        was_refused.wait(PATIENCE)
        return []

    async def main() -> None:
        umbel.connect("tcp://localhost:9", umbel.within(PATIENCE))

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    with pytest.raises(RuntimeError, match=r"await umbel\.aio\.connect,"):
        asyncio.run(main())
    was_refused.set()
