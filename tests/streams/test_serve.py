"""The blocking server: whom it serves, whom it keeps waiting, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

import umbel
from tests.mutants import opaque
from tests.support import PATIENCE, is_blocked, python, run_python, soon, wait_until
from umbel import aio, server_rules
from umbel._kernel.current import current_hub
from umbel.aio.listener import accept as aio_accept
from umbel.handle import open_handles
from umbel.spi import CloseContext, CloseReport, ListenContext, Stream, hookimpl
from umbel.testing.transports import transport_at_hand
from umbel_transports.mem import MemTransport

P = ParamSpec("P")
R = TypeVar("R")


@pytest.fixture(params=["ipc", "mem", "opaque"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[umbel.ListenerHandle]:
    """Give a listener of a built-in transport, or of one that can do the least."""
    scheme = request.param
    place = str(tmp_path / "x.sock") if scheme == "ipc" else tmp_path.name
    with ExitStack() as stack:
        if scheme == "opaque":
            stack.enter_context(transport_at_hand(opaque.transport, scheme))
        found = umbel.listen(umbel.Address(scheme, place))
        yield found
        if found in open_handles:
            umbel.hclose(found)


def echo(stream: umbel.StreamHandle) -> None:
    for chunk in stream:
        umbel.bsend(stream, chunk)


def hold(stream: umbel.StreamHandle) -> None:
    umbel.receive(stream)


def connect(listener: umbel.ListenerHandle) -> umbel.StreamHandle:
    return umbel.connect(listener.address, soon())


def run_until(condition: Callable[[], object]) -> None:
    """Let other coroutines run until *condition* holds."""
    while not condition():
        umbel.msleep(umbel.within(0.001))


@contextmanager
def serving(
    listener: umbel.ListenerHandle,
    handler: Callable[[umbel.StreamHandle], object],
    *,
    limit: int | None = None,
    grace: float = 10.0,
) -> Iterator[umbel.BundleHandle]:
    """Run a server in a coroutine; cancel it at the end."""
    server = umbel.go(partial(umbel.serve, limit=limit, grace=grace), listener, handler)
    try:
        yield server
    finally:
        umbel.hclose(server)


def test_each_client_is_served_in_a_coroutine_of_its_own(
    listener: umbel.ListenerHandle,
) -> None:
    with serving(listener, echo):
        clients = [connect(listener) for _ in range(5)]
        for number, client in enumerate(clients):
            umbel.bsend(client, b"%d" % number, soon())

        answers = [umbel.receive(client, 1, soon()) for client in clients]

        assert answers == [b"0", b"1", b"2", b"3", b"4"]
        for client in clients:
            umbel.close(client, soon())


def test_a_stream_whose_handler_returns_is_closed_in_good_order(
    listener: umbel.ListenerHandle,
) -> None:
    with serving(listener, lambda stream: umbel.bsend(stream, b"all of it")):
        client = connect(listener)
        umbel.bsend(client, b"what the handler never reads", soon())

        # A hard close would give ECONNRESET here, for the bytes that lie unread.
        assert umbel.brecv(client, 9, soon()) == b"all of it"
        assert umbel.receive(client, 1, soon()) == b""
        umbel.close(client, soon())


def test_a_handler_that_fails_is_logged_and_the_others_are_served_on(
    listener: umbel.ListenerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(stream: umbel.StreamHandle) -> None:
        if umbel.brecv(stream, 1) == b"x":
            raise ValueError("no x, please")
        echo(stream)

    with serving(listener, handler):
        bad, good = connect(listener), connect(listener)
        umbel.bsend(bad, b"xrest", soon())
        with pytest.raises(umbel.BrokenStreamError):
            umbel.receive(bad, 1, soon())
        umbel.bsend(good, b"-abc", soon())

        assert umbel.brecv(good, 3, soon()) == b"abc"
        umbel.hclose(bad)
        umbel.close(good, soon())

    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.name == "umbel"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no x, please"


class Odd(BaseException):
    """What is no Exception, and does not end the program either."""


def test_what_is_no_exception_is_raised_once_the_server_has_ended(
    listener: umbel.ListenerHandle,
) -> None:
    odd = Odd()

    def handler(stream: umbel.StreamHandle) -> None:
        if umbel.brecv(stream, 1) == b"x":
            raise odd
        echo(stream)

    server = umbel.go(umbel.serve, listener, handler)
    bad, good = connect(listener), connect(listener)
    umbel.bsend(bad, b"x", soon())
    assert umbel.receive(bad, 1, soon()) == b""
    umbel.bsend(good, b"-abc", soon())
    assert umbel.brecv(good, 3, soon()) == b"abc"
    umbel.hclose(bad)
    umbel.close(good, soon())

    umbel.hclose(listener)
    with pytest.raises(BaseExceptionGroup) as caught:
        umbel.bundle_wait(server, soon())

    (group,) = caught.value.exceptions  # of the server's bundle
    assert isinstance(group, BaseExceptionGroup)
    assert group.exceptions == (odd,)
    umbel.hclose(server)


def test_ctrl_c_ends_a_server_whatever_its_handlers_did(
    listener: umbel.ListenerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Odd()
    told: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))

    def handler(_: umbel.StreamHandle) -> None:
        raise odd

    def client() -> None:
        stream = connect(listener)
        assert umbel.receive(stream, 1, soon()) == b""
        umbel.hclose(stream)
        signal.raise_signal(signal.SIGINT)

    with umbel.go(client), pytest.raises(KeyboardInterrupt):
        umbel.serve(listener, handler)

    assert told == [odd]


def test_ctrl_c_is_not_held_up_by_the_grace_after_a_failure_in_the_servers_block(
    listener: umbel.ListenerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[str] = []
    told: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))

    def handler(_: umbel.StreamHandle) -> None:
        served.append("yes")
        umbel.msleep(-1)

    def fail() -> None:
        while not served:
            umbel.yield_()
        raise odd

    def interrupt() -> None:
        while listener in open_handles:
            umbel.yield_()
        raise KeyboardInterrupt

    odd = Odd()
    client = connect(listener)
    started = time.monotonic()
    with umbel.go(interrupt), pytest.raises(KeyboardInterrupt), umbel.go(fail):
        umbel.serve(listener, handler, grace=5)

    assert time.monotonic() - started < 3
    assert told == [odd]
    umbel.hclose(client)


def test_a_peer_that_goes_away_is_no_error_of_the_program(
    listener: umbel.ListenerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "umbel")
    with serving(listener, lambda stream: umbel.brecv(stream, 100)):
        client = connect(listener)
        umbel.bsend(client, b"too little", soon())
        umbel.close(client, soon())
        other = connect(listener)
        umbel.hclose(other)
        umbel.yield_()

    assert caplog.records
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_its_deadline_comes_though_peers_are_still_queued(
    listener: umbel.ListenerHandle,
) -> None:
    clients = [connect(listener) for _ in range(3)]
    served: list[umbel.StreamHandle] = []

    with pytest.raises(umbel.DeadlineError):
        umbel.serve(listener, served.append, 0)

    assert len(served) == 1  # as all that tries once
    for client in clients:
        umbel.hclose(client)


def test_a_handler_that_can_not_connect_elsewhere_has_failed(
    listener: umbel.ListenerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(_: umbel.StreamHandle) -> None:
        umbel.connect("mem://nobody-listens-here")

    with serving(listener, handler):
        client = connect(listener)
        assert umbel.receive(client, 1, soon()) == b""
        umbel.hclose(client)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ConnectionRefusedError)


def test_beyond_the_limit_peers_wait_in_the_backlog(
    listener: umbel.ListenerHandle,
) -> None:
    started: list[int] = []

    def handler(stream: umbel.StreamHandle) -> None:
        started.append(int(stream))
        umbel.bsend(stream, b"welcome")
        umbel.receive(stream)

    with serving(listener, handler, limit=2):
        clients = [connect(listener) for _ in range(3)]
        for client in clients[:2]:
            assert umbel.brecv(client, 7, soon()) == b"welcome"
        with pytest.raises(umbel.DeadlineError):
            umbel.receive(clients[2], 7, umbel.within(0.02))
        assert len(started) == 2

        umbel.close(clients[0], soon())

        assert umbel.brecv(clients[2], 7, soon()) == b"welcome"
        for client in clients[1:]:
            umbel.close(client, soon())


@pytest.mark.parametrize("budget", range(4))
def test_a_handler_that_ends_while_the_server_lets_others_run_makes_room(
    listener: umbel.ListenerHandle, budget: int
) -> None:
    served: list[int] = []

    def handler(stream: umbel.StreamHandle) -> None:
        served.append(int(stream))
        current_hub().budget = budget  # as after that many more calls
        umbel.hclose(umbel.go(lambda: None))
        umbel.hclose(stream)

    clients = [connect(listener) for _ in range(6)]
    with serving(listener, handler, limit=1):
        until = soon()
        while len(served) < len(clients):
            assert umbel.now() < until, f"only {len(served)} were served"
            umbel.msleep(umbel.within(0.001))
    for client in clients:
        umbel.hclose(client)


def test_any_negative_deadline_is_for_ever(listener: umbel.ListenerHandle) -> None:
    client = connect(listener)
    server = umbel.go(
        partial(umbel.serve, deadline=-2, grace=0.01),
        listener,
        lambda _: umbel.msleep(-2),
    )
    umbel.msleep(0)

    umbel.hclose(listener)

    umbel.bundle_wait(server, soon())  # the grace is over long before
    umbel.hclose(server)
    umbel.hclose(client)


def test_closing_the_listener_lets_those_who_are_served_come_to_an_end(
    listener: umbel.ListenerHandle,
) -> None:
    address = listener.address
    with serving(listener, echo) as server:
        client = connect(listener)
        umbel.bsend(client, b"a", soon())
        assert umbel.brecv(client, 1, soon()) == b"a"

        umbel.hclose(listener)

        umbel.bsend(client, b"b", soon())
        assert umbel.brecv(client, 1, soon()) == b"b"
        with pytest.raises(OSError, match=re.escape(str(address))):
            umbel.connect(address, soon())
        with pytest.raises(umbel.DeadlineError):
            umbel.bundle_wait(server, umbel.within(0.01))
        umbel.close(client, soon())
        umbel.bundle_wait(server, soon())


def test_a_full_server_learns_at_once_that_its_listener_is_closed(
    listener: umbel.ListenerHandle, threads: ThreadPoolExecutor
) -> None:
    with serving(listener, hold, limit=1, grace=0) as server:
        client = connect(listener)
        run_until(lambda: is_blocked(listener))

        threads.submit(umbel.hclose, listener).result()

        umbel.bundle_wait(server, soon())  # with no grace: its handler was canceled
        umbel.hclose(client)


def test_who_is_left_after_the_grace_is_canceled_and_closed_hard(
    listener: umbel.ListenerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    def handler(stream: umbel.StreamHandle) -> None:
        try:
            umbel.receive(stream)
        except umbel.Canceled:
            ended.append("canceled")
            raise

    with serving(listener, handler, grace=0.02) as server:
        client = connect(listener)
        umbel.yield_()
        began = umbel.now()

        umbel.hclose(listener)
        umbel.bundle_wait(server, soon())

        assert umbel.now() - began >= 20
        assert ended == ["canceled"]
        assert umbel.receive(client, 1, soon()) == b""
        umbel.hclose(client)
    assert "1 handlers are canceled" in caplog.text


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("budget", range(4))
def test_whom_a_server_accepts_just_as_it_is_canceled_is_not_forgotten(
    listener: umbel.ListenerHandle, budget: int, turns: int
) -> None:
    def handler(stream: umbel.StreamHandle) -> None:
        current_hub().budget = budget  # as after that many more calls
        umbel.hclose(stream)

    clients = [connect(listener) for _ in range(6)]
    server = umbel.go(partial(umbel.serve, grace=0), listener, handler)
    for _ in range(turns):  # in one of them it lets us run when it has just accepted
        umbel.yield_()

    umbel.hclose(server)

    for client in clients:  # a stream without an owner would be a ResourceWarning
        with suppress(umbel.BrokenStreamError):
            assert umbel.receive(client, 1, soon()) == b""
        umbel.hclose(client)


def test_a_canceled_server_gives_the_grace_before_it_ends(
    listener: umbel.ListenerHandle,
) -> None:
    answered: list[bytes] = []

    def client(stream: umbel.StreamHandle) -> None:
        run_until(lambda: listener not in open_handles)
        umbel.bsend(stream, b"late", soon())
        answered.append(umbel.brecv(stream, 4, soon()))
        umbel.close(stream, soon())

    with umbel.bundle() as clients:
        server = umbel.go(umbel.serve, listener, echo)
        stream = connect(listener)
        umbel.bsend(stream, b"x", soon())
        assert umbel.brecv(stream, 1, soon()) == b"x"
        clients.go(client, stream)

        umbel.hclose(server)

    assert answered == [b"late"]


def test_a_handler_cannot_close_what_its_server_runs_in(
    listener: umbel.ListenerHandle,
) -> None:
    outer = umbel.bundle()
    told: list[int | None] = []

    def handler(stream: umbel.StreamHandle) -> None:
        umbel.brecv(stream, 1)
        with pytest.raises(OSError, match="can't end before") as caught:
            umbel.hclose(outer)
        told.append(caught.value.errno)

    def server() -> None:
        try:
            umbel.serve(listener, handler, grace=0.1)
        finally:
            told.append(None)

    outer.go(server)
    with connect(listener) as client:
        umbel.bsend(client, b"x", soon())
        run_until(lambda: told)

    umbel.hclose(outer)  # the server goes on until somebody else does so

    assert told == [errno.EDEADLK, None]


class Lingering(MemTransport):
    """Takes as long for the close of a listener as it may."""

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        umbel.msleep(umbel.within(6) if context.deadline < 0 else context.deadline)
        context.endpoint.abort()
        return CloseReport()


def test_a_listener_that_is_slow_to_close_has_the_grace_and_no_more() -> None:
    with transport_at_hand(Lingering(), "lingering"):
        listener = umbel.listen("lingering://x")
        server = umbel.go(partial(umbel.serve, grace=0.02), listener, echo)
        began = umbel.now()

        umbel.hclose(server)

        assert 20 <= umbel.now() - began < 5000
        assert listener not in open_handles


def test_at_its_deadline_all_is_over(listener: umbel.ListenerHandle) -> None:
    client = connect(listener)

    with pytest.raises(umbel.DeadlineError):
        umbel.serve(listener, hold, umbel.within(0.02), grace=math.inf)

    assert listener not in open_handles
    assert umbel.receive(client, 1, soon()) == b""
    umbel.hclose(client)


def test_a_deadline_within_the_grace_is_an_error(
    listener: umbel.ListenerHandle,
) -> None:
    client = connect(listener)

    def handler(stream: umbel.StreamHandle) -> None:
        umbel.hclose(listener)
        umbel.receive(stream)

    with pytest.raises(umbel.DeadlineError):
        umbel.serve(listener, handler, umbel.within(0.02))

    umbel.hclose(client)


def test_a_listener_that_is_busy_or_none_at_all_is_refused_and_left_alone(
    listener: umbel.ListenerHandle,
) -> None:
    accepting = umbel.go(umbel.accept, listener)
    with pytest.raises(umbel.BusyError, match="let one task accept for all"):
        umbel.serve(listener, echo)
    umbel.hclose(accepting)

    assert listener in open_handles
    left, right = umbel.ipc_pair()
    with pytest.raises(umbel.NotSupportedError):
        umbel.serve(left, echo)  # type: ignore[arg-type]  # what it is about
    umbel.hclose(left)
    umbel.hclose(right)
    umbel.hclose(listener)
    with pytest.raises(umbel.BadHandleError):
        umbel.serve(listener, echo)


def test_wrong_arguments_are_refused_and_leave_the_listener_open(
    listener: umbel.ListenerHandle,
) -> None:
    with pytest.raises(OSError, match="limit is 0") as caught:
        umbel.serve(listener, echo, limit=0)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(ValueError, match="grace is -1"):
        umbel.serve(listener, echo, grace=-1)
    assert listener in open_handles


def test_who_is_canceled_already_has_the_listener_closed(
    listener: umbel.ListenerHandle,
) -> None:
    def serve_late() -> None:
        try:
            umbel.msleep(umbel.FOREVER)
        finally:
            umbel.serve(listener, echo)

    umbel.hclose(umbel.go(serve_late))

    assert listener not in open_handles


def test_a_handler_may_close_its_stream_or_hand_it_on(
    listener: umbel.ListenerHandle,
) -> None:
    kept: list[umbel.StreamHandle] = []

    def handler(stream: umbel.StreamHandle) -> None:
        if kept:
            umbel.hclose(stream)
        else:
            kept.append(umbel.hown(stream))

    with serving(listener, handler):
        clients = [connect(listener) for _ in range(2)]
        assert umbel.receive(clients[1], 1, soon()) == b""

    umbel.bsend(kept[0], b"from elsewhere", soon())
    assert umbel.brecv(clients[0], 14, soon()) == b"from elsewhere"
    for stream in (*kept, *clients):
        umbel.hclose(stream)


def test_what_another_thread_closes_in_that_moment_has_parted_well(
    listener: umbel.ListenerHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "umbel")

    def close_second(handle: int, deadline: int) -> None:
        umbel.hclose(handle)  # as a thread would that is a moment faster
        umbel.close(handle, deadline)

    monkeypatch.setattr("umbel.serving.close", close_second)
    with umbel.go(umbel.serve, listener, lambda _: None) as server:
        client = connect(listener)
        assert umbel.receive(client, 1, soon()) == b""
        umbel.hclose(client)
        umbel.hclose(server)  # which closes the listener

    assert not caplog.records


@pytest.mark.skipif(
    os.environ.get("UMBEL_POLLER") == "poll",
    reason="poll(2) refuses more descriptors than may be open (EINVAL)",
)
def test_without_descriptors_it_backs_off_and_goes_on_when_there_are_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = umbel.listen(f"ipc:{tmp_path}/x.sock")
    client = connect(listener)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spent = os.times().user
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        with serving(listener, echo):
            umbel.bsend(client, b"abc")
            with pytest.raises(umbel.DeadlineError):
                umbel.receive(client, 3, umbel.within(0.3))
            assert os.times().user - spent < 0.2  # it does not spin
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

            assert umbel.brecv(client, 3, soon()) == b"abc"
            umbel.close(client, soon())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("accepting failed") == 1


def failing_by_turns(accept: Callable[P, R]) -> Callable[P, R]:
    """Let every other call find no descriptor left, as near the limit."""
    turns = itertools.cycle([True, False])

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if next(turns):
            raise OSError(errno.EMFILE, "no descriptor is left")
        return accept(*args, **kwargs)

    return call


def test_failures_by_turns_fill_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.serving.accept", failing_by_turns(umbel.accept))
    monkeypatch.setattr("umbel.aio.serving.accept", failing_by_turns(aio_accept))
    listener = umbel.listen(f"ipc:{tmp_path}/x.sock")
    with serving(listener, echo):
        for _ in range(5):
            umbel.close(connect(listener), soon())
    assert caplog.text.count("accepting failed") == 1

    caplog.clear()

    async def main() -> None:
        listener = aio.listen(f"ipc:{tmp_path}/x.sock")
        task = asyncio.create_task(aio.serve(listener, chunks))
        for _ in range(5):
            await (await aio.connect(listener.address, soon())).close(soon())
        listener.abort()
        await task

    async def chunks(stream: aio.AsyncStreamHandle) -> None:
        async for chunk in stream:
            await stream.send(chunk)

    asyncio.run(main())
    assert caplog.text.count("accepting failed") == 1


SERVER = """
import sys
import umbel

def handler(stream):
    for chunk in stream:
        umbel.bsend(stream, chunk)
    print("ended in order", flush=True)

umbel.exit_on_signal()
with umbel.listen(sys.argv[1]) as listener:
    print("ready", flush=True)
    umbel.serve(listener, handler, grace=float(sys.argv[2]))
"""


def test_sigterm_ends_a_server_after_who_is_served(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/x.sock"
    with python(SERVER, address, "20") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = umbel.connect(address, soon())
        umbel.bsend(client, b"a", soon())
        assert umbel.brecv(client, 1, soon()) == b"a"

        server.send_signal(signal.SIGTERM)

        wait_until(lambda: not (tmp_path / "x.sock").exists())
        umbel.bsend(client, b"b", soon())
        assert umbel.brecv(client, 1, soon()) == b"b"
        umbel.close(client, soon())
        assert server.wait(PATIENCE) == 128 + signal.SIGTERM
        assert server.stdout.read() == "ended in order\n"


def test_a_second_signal_cuts_the_grace_short(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/x.sock"
    with python(SERVER, address, "inf") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = umbel.connect(address, soon())
        umbel.bsend(client, b"a", soon())
        assert umbel.brecv(client, 1, soon()) == b"a"
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: not (tmp_path / "x.sock").exists())

        server.send_signal(signal.SIGTERM)

        assert server.wait(PATIENCE) == 128 + signal.SIGTERM
        assert umbel.receive(client, 1, soon()) == b""
        umbel.hclose(client)


def test_an_accept_that_fails_for_good_ends_the_server(tmp_path: Path) -> None:
    class Broken:
        address = umbel.Address("broken", "x")

        def accept(self, deadline: int) -> Stream:
            raise OSError(errno.EINVAL, "broken for good")

        def abort(self) -> None:
            pass

        def query(self, kind: type[object]) -> None:
            return None

    class BrokenTransport:
        @hookimpl.listen
        def listen(self, context: ListenContext) -> Broken:
            return Broken()

    with transport_at_hand(BrokenTransport(), "broken"):
        listener = umbel.listen("broken:x")
        with pytest.raises(OSError, match="broken for good"):
            umbel.serve(listener, echo)
        assert listener not in open_handles


def test_logging_is_imported_when_something_is_served() -> None:
    code = "import sys, umbel; umbel.serve; print('logging' in sys.modules)"
    assert run_python(code) == "False\n"


def test_without_descriptors_there_is_one_left_to_log_it() -> None:
    # To import what logs takes one, too.
    code = """
import os, resource, umbel
from umbel import serve
def echo(stream):
    umbel.bsend(stream, umbel.brecv(stream, 3))
listener = umbel.listen(f"ipc:@umbel-test-{os.getpid()}")
clients = [umbel.connect(listener.address) for _ in range(9)]
enough = clients[-1].fileno() + 3
with umbel.bundle() as running:
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, enough))
    running.go(serve, listener, echo)
    for client in clients:
        umbel.bsend(client, b"abc")
        assert umbel.brecv(client, 3, umbel.within(20)) == b"abc"
        umbel.close(client, umbel.within(20))
    umbel.hclose(listener)
"""
    with python(code) as process:
        _, err = process.communicate(timeout=40)

    assert process.returncode == 0, err
    assert "accepting failed, and is tried again" in err


def test_a_handler_with_a_yield_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handle(stream: umbel.StreamHandle) -> Iterator[bytes]:
        yield umbel.receive(stream)

    listener = umbel.listen("mem://generators")
    with umbel.go(umbel.serve, listener, handle):
        client = umbel.connect("mem://generators")
        assert umbel.receive(client, deadline=umbel.within(10)) == b""
        umbel.hclose(client)
        umbel.hclose(listener)

    assert "handle is a generator function" in caplog.text


@pytest.mark.parametrize("limit", [None, 1])
def test_a_server_that_drains_serves_those_who_have_connected_already(
    listener: umbel.ListenerHandle, limit: int | None
) -> None:
    busy = connect(listener)
    serve = partial(umbel.serve, limit=limit, drain_backlog=True)
    server = umbel.go(serve, listener, echo)
    umbel.bsend(busy, b"x")
    assert umbel.brecv(busy, 1, soon()) == b"x"
    queued = [connect(listener) for _ in range(3)]

    stopping = umbel.go(umbel.hclose, server)
    for client in (busy, *queued):
        umbel.bsend(client, b"abc")
        assert umbel.brecv(client, 3, soon()) == b"abc"
        umbel.close(client, soon())
    umbel.bundle_wait(stopping, soon())
    umbel.hclose(stopping)
    assert listener not in open_handles


def test_those_whom_the_grace_leaves_no_time_are_closed(tmp_path: Path) -> None:
    listener = umbel.listen(f"ipc:{tmp_path}/x.sock")
    busy, queued = connect(listener), connect(listener)
    serve = partial(umbel.serve, limit=1, grace=0.05, drain_backlog=True)
    server = umbel.go(serve, listener, echo)
    umbel.bsend(busy, b"x")
    assert umbel.brecv(busy, 1, soon()) == b"x"
    umbel.hclose(server)

    assert umbel.receive(busy, 1, soon()) == b""
    with pytest.raises(umbel.BrokenStreamError):
        umbel.receive(queued, 1, soon())
    umbel.hclose(busy)
    umbel.hclose(queued)
    assert not set(open_handles) & {int(listener)}


@pytest.mark.parametrize("limit", [None, 2])
def test_a_server_is_replaced_under_load_and_nobody_is_cut_off(
    limit: int | None, tmp_path: Path
) -> None:
    address = f"ipc:{tmp_path}/x.sock"
    is_over = False
    answered = 0

    def talk() -> None:
        nonlocal answered
        while not is_over:
            with umbel.connect(address, soon()) as stream:
                umbel.bsend(stream, b"x", soon())
                assert umbel.brecv(stream, 1, soon()) == b"x"
                answered += 1

    def serve(listener: umbel.ListenerHandle) -> umbel.BundleHandle:
        drain = partial(umbel.serve, limit=limit, drain_backlog=True)
        return umbel.go(drain, listener, echo)

    with umbel.bundle() as clients:
        server = serve(umbel.listen(address))
        for _ in range(10):
            clients.go(talk)
        for _ in range(10):
            umbel.msleep(umbel.within(0.01))
            after = serve(umbel.listen(address, takeover=True))
            umbel.hclose(server)
            server = after
        is_over = True
        clients.wait(soon())
    umbel.hclose(server)
    assert answered > 50


def test_pauses_after_failed_accepts_grow_up_to_a_limit() -> None:
    retries = server_rules.Retries("ipc:x")
    full = OSError(errno.EMFILE, "no descriptor")

    pauses = [retries.after(full, umbel.FOREVER) - umbel.now() for _ in range(20)]

    longest = 1000 * server_rules.LONGEST_PAUSE
    assert pauses == sorted(pauses)
    assert longest <= pauses[-1] <= longest + 1
