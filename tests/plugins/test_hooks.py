"""Hooks when things go wrong: wrappers of every hook, failing owners, Ctrl-C."""

from __future__ import annotations

import gc
import logging
import os
import socket
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TypeAlias

import pytest

import umbel
from tests.support import drain, open_descriptors, run_python
from umbel.adoption import adopt_listener, adopt_stream
from umbel.plugins import add_plugin, remove_plugin
from umbel.plugins.registry import add_transport, remove_transport
from umbel.spi import (
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DoneContext,
    ListenContext,
    Outcome,
    PairContext,
    SocketListener,
    SocketStream,
    Stream,
    StreamProxy,
    adopt_socket,
    hookimpl,
    shut_down,
)

Around: TypeAlias = Generator[
    Outcome[object] | None, Outcome[object], Outcome[object] | None
]

#: Every hook, in the order in which `session` comes to them.
HOOKS = ("listen", "connect", "accept", "pair", "adopt", "done", "close")


class Wrapping:
    """Wraps every hook by `around`."""

    def around(self, hook: str, context: object) -> Around:
        yield None
        return None

    @hookimpl(wrapper=True)
    def umbel_listen(self, context: object) -> Around:
        return (yield from self.around("listen", context))

    @hookimpl(wrapper=True)
    def umbel_connect(self, context: object) -> Around:
        return (yield from self.around("connect", context))

    @hookimpl(wrapper=True)
    def umbel_accept(self, context: object) -> Around:
        return (yield from self.around("accept", context))

    @hookimpl(wrapper=True)
    def umbel_pair(self, context: object) -> Around:
        return (yield from self.around("pair", context))

    @hookimpl(wrapper=True)
    def umbel_adopt(self, context: object) -> Around:
        return (yield from self.around("adopt", context))

    @hookimpl(wrapper=True)
    def umbel_done(self, context: object) -> Around:
        return (yield from self.around("done", context))

    @hookimpl(wrapper=True)
    def umbel_close(self, context: object) -> Around:
        return (yield from self.around("close", context))


class OwnTransport:
    """A transport over local sockets that fails in one hook, if told to."""

    def __init__(self) -> None:
        self.closed: list[CloseContext] = []
        self.failure: Callable[[], BaseException] | None = None
        self.failing = ""

    def run(self, hook: str) -> None:
        if self.failure is not None and hook == self.failing:
            raise self.failure()

    @hookimpl.listen
    def listen(self, context: ListenContext) -> SocketListener:
        self.run("listen")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("\0" + context.address.location)
        sock.listen()
        return OwnListener(self, sock, context)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> SocketStream:
        self.run("connect")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect("\0" + context.address.location)
        return OwnStream(self, sock)

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[SocketStream, SocketStream]:
        self.run("pair")
        left, right = socket.socketpair()
        return OwnStream(self, left), OwnStream(self, right)

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> SocketStream | SocketListener:
        self.run("adopt")
        sock = adopt_socket(context.fd, is_listening=context.is_listener)
        if not context.is_listener:
            return OwnStream(self, sock)
        return SocketListener(sock, context.address)

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        self.closed.append(context)
        self.run("close")
        return shut_down(context)


class OwnStream(SocketStream):
    def __init__(self, transport: OwnTransport, sock: socket.socket) -> None:
        super().__init__(sock)
        self.transport = transport

    def done(self, deadline: int) -> None:
        self.transport.run("done")
        super().done(deadline)


class OwnListener(SocketListener):
    def __init__(
        self, transport: OwnTransport, sock: socket.socket, context: ListenContext
    ) -> None:
        super().__init__(sock, context.address)
        self.transport = transport

    def accept(self, deadline: int) -> SocketStream:
        stream = super().accept(deadline)
        assert isinstance(stream, SocketStream)
        try:
            self.transport.run("accept")
        except BaseException:
            stream.abort()
            raise
        return stream


@pytest.fixture
def own() -> Iterator[OwnTransport]:
    made = OwnTransport()
    add_transport(made, "own")
    yield made
    remove_transport("own")


@contextmanager
def plugins(*given: object) -> Iterator[None]:
    """Have the plugins loaded, the first one outermost."""
    for number, plugin in enumerate(given):
        add_plugin(plugin, f"plugin-{number}")
    try:
        yield None
    finally:
        for number, _ in enumerate(given):
            remove_plugin(f"plugin-{number}")


def address() -> str:
    return f"own://umbel-hooks-{os.getpid()}"


def session(*, until: str = "close") -> umbel.CloseReport:
    """Come to every hook, in the order of HOOKS; leave nothing open."""
    opened: list[umbel.Handle] = []
    try:
        opened.append(listener := umbel.listen(address()))
        opened.append(client := umbel.connect(listener.address, umbel.within(20)))
        opened.append(server := umbel.accept(listener, umbel.within(20)))
        opened += umbel.pair("own")
        opened.append(adopted := adopt_one())
        umbel.bsend(client, b"whole")
        umbel.done(server)
        umbel.done(client)
        assert drain(server) == b"whole"
        opened.remove(client)
        report = umbel.close(client, umbel.within(20))
        assert adopted.fileno() >= 0
        return report
    finally:
        for handle in opened:
            umbel.hclose(handle)


def adopt_one() -> umbel.StreamHandle:
    """Adopt one end of a new pair; the descriptor stays ours if that fails."""
    near, far = socket.socketpair()
    far.close()
    try:
        handle = adopt_stream(near.fileno(), "own")
    except BaseException:
        near.close()  # EBADF if it is ours no more
        raise
    near.detach()
    return handle


# Order, and what each sees.


class Noting(Wrapping):
    def __init__(self, name: str, log: list[tuple[str, str, str]]) -> None:
        self.name = name
        self.log = log
        self.outcomes: dict[str, Outcome[object]] = {}

    def around(self, hook: str, context: object) -> Around:
        self.log.append((hook, self.name, "before"))
        self.outcomes[hook] = yield None
        self.log.append((hook, self.name, "after"))
        return None


@pytest.mark.usefixtures("own")
def test_wrappers_of_every_hook_run_from_the_outside_in_and_back() -> None:
    log: list[tuple[str, str, str]] = []

    with plugins(Noting("outer", log), Noting("inner", log)):
        session()

    in_order = [
        ("outer", "before"),
        ("inner", "before"),
        ("inner", "after"),
        ("outer", "after"),
    ]
    seen = [(hook, name, when) for hook, name, when in log if hook in HOOKS]
    # `done` is for both ends.
    hooks = [hook for hook in HOOKS for _ in range(2 if hook == "done" else 1)]
    assert seen == [(hook, *step) for hook in hooks for step in in_order]


class Adding(Wrapping):
    """Adds one to what a close discarded, and notes what it was sent."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def around(self, hook: str, context: object) -> Around:
        outcome = yield None
        if hook != "close":
            return None
        assert isinstance(outcome.value, CloseReport)
        self.seen.append(outcome.value.discarded)
        return Outcome(outcome.value._replace(discarded=outcome.value.discarded + 1))


@pytest.mark.usefixtures("own")
def test_each_wrapper_is_sent_what_the_one_inside_it_made() -> None:
    outer, inner = Adding(), Adding()

    with plugins(outer, inner):
        report = session()

    assert (inner.seen, outer.seen, report.discarded) == ([0], [1], 2)


# Wrappers that fail.


class Failing(Wrapping):
    """Does one thing wrong, in every hook."""

    def __init__(self, how: str) -> None:
        self.how = how

    def around(self, hook: str, context: object) -> Around:
        if self.how == "fails before its yield":
            raise RuntimeError
        if self.how == "never yields":
            return None
        if self.how == "yields nonsense":
            yield 5  # type: ignore[misc]
            return None
        outcome = yield None
        if self.how == "fails after its yield":
            raise RuntimeError
        if self.how == "raises what it was sent" and outcome.error is not None:
            raise outcome.error
        if self.how.startswith("yields twice"):
            try:
                yield None
            finally:
                if self.how == "yields twice, and will not end":
                    yield None
        return self.answer(outcome)

    def answer(self, outcome: Outcome[object]) -> Outcome[object] | None:
        answers: dict[str, object] = {
            "returns a number": 5,
            "returns the value bare": outcome.value or 5,
            "returns an outcome of a number": Outcome(5),
            "returns an outcome of a tuple": Outcome((5, 6)),
            "returns an error that is none": Outcome(None, "text"),  # type: ignore[arg-type]
        }
        return answers.get(self.how)  # type: ignore[return-value]


WRONG = (
    "fails before its yield",
    "never yields",
    "yields nonsense",
    "fails after its yield",
    "yields twice",
    "yields twice, and will not end",
    "returns a number",
    "returns the value bare",
    "returns an outcome of a number",
    "returns an outcome of a tuple",
    "returns an error that is none",
)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("how", WRONG)
def test_what_a_wrapper_does_wrong_is_logged_by_name_and_changes_nothing(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[tuple[str, str, str]] = []
    outer, inner = Noting("outer", log), Noting("inner", log)

    with plugins(outer, Failing(how), inner):
        report = session()

    assert report == CloseReport(True, 0)
    for hook in HOOKS:
        assert f"'plugin-1': its wrapper of umbel_{hook} " in caplog.text
        assert outer.outcomes[hook] == inner.outcomes[hook]
    assert "plugin-0" not in caplog.text


@pytest.mark.usefixtures("own")
def test_an_outcome_of_nothing_is_no_listener_stream_or_report(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Empty(Wrapping):
        def around(self, hook: str, context: object) -> Around:
            yield None
            return Outcome()

    with plugins(Empty()):
        assert session() == CloseReport(True, 0)

    assert caplog.text.count("can't be its outcome") == len(HOOKS) - 1  # done: None


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("how", [*WRONG, "raises what it was sent"])
def test_the_owners_error_is_not_hidden_by_a_wrapper_that_fails(
    own: OwnTransport, hook: str, how: str
) -> None:
    error = PermissionError("the owner's")
    own.failing, own.failure = hook, lambda: error

    with plugins(Failing(how)), pytest.raises(PermissionError) as caught:
        session()

    assert caught.value is error or caught.value.__cause__ is error


# Wrappers that change the outcome.


class Refusing(Wrapping):
    """Turns the success of one hook into an error, made anew each time."""

    def __init__(self, hook: str, error: Callable[[], BaseException]) -> None:
        self.hook = hook
        self.error = error

    def around(self, hook: str, context: object) -> Around:
        outcome = yield None
        if hook == self.hook and outcome.error is None:
            return Outcome(error=self.error())
        return None


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_wrapper_refuses_leaves_no_descriptor(hook: str) -> None:
    before = open_descriptors()
    gc.disable()
    try:
        with (
            plugins(Wrapping(), Refusing(hook, lambda: PermissionError("not here"))),
            pytest.raises(PermissionError, match="not here"),
        ):
            session()
        assert open_descriptors() == before
    finally:
        gc.enable()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("is_listener", [False, True], ids=["stream", "listener"])
def test_a_descriptor_whose_adoption_is_refused_is_still_the_callers(
    is_listener: bool,
) -> None:
    near, far = socket.socketpair()
    adopt = adopt_listener if is_listener else adopt_stream
    sock = socket.socket(socket.AF_UNIX) if is_listener else near
    if is_listener:
        sock.bind(f"\0umbel-hooks-{os.getpid()}")
        sock.listen()

    with (
        plugins(Refusing("adopt", PermissionError)),
        pytest.raises(PermissionError),
    ):
        adopt(sock.fileno(), "own")

    far.send(b"still there")
    assert near.recv(11) == b"still there"
    for each in (near, far, sock):
        each.close()


@pytest.mark.usefixtures("own")
def test_an_adopted_descriptor_is_umbels_when_a_wrapper_looks_on() -> None:
    near, far = socket.socketpair()
    with plugins(Wrapping()):
        stream = adopt_stream(near.detach(), "own")

    far.send(b"hello")
    assert umbel.brecv(stream, 5) == b"hello"
    umbel.hclose(stream)
    assert far.recv(1) == b""
    far.close()


@pytest.mark.usefixtures("own")
def test_what_is_no_socket_is_einval_under_wrappers_too() -> None:
    reader, writer = os.pipe()
    with plugins(Wrapping()):
        for fd, number in ((reader, "22"), (-1, "22"), (1 << 20, "9")):
            with pytest.raises(OSError, match=f"Errno {number}"):
                adopt_stream(fd, "own")

    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("hook", ["connect", "accept", "pair", "close"])
def test_a_wrapper_can_turn_an_error_into_a_value(own: OwnTransport, hook: str) -> None:
    held: list[socket.socket] = []

    def stream() -> SocketStream:
        near, far = socket.socketpair()
        held.append(far)
        return SocketStream(near)

    values: dict[str, Callable[[], object]] = {
        "connect": stream,
        "accept": stream,
        "pair": lambda: (stream(), stream()),
        "close": lambda: CloseReport(None, 7),
    }

    class Healing(Wrapping):
        def around(self, name: str, context: object) -> Around:
            outcome = yield None
            return None if outcome.error is None else Outcome(values[name]())

    own.failing, own.failure = hook, PermissionError
    with plugins(Healing()), umbel.listen(address()) as listener:
        client = umbel.connect(listener.address, umbel.within(20))
        try:
            if hook == "accept":
                umbel.hclose(umbel.accept(listener, umbel.within(20)))
            elif hook == "pair":
                for end in umbel.pair("own"):
                    umbel.hclose(end)
        finally:
            report = umbel.close(client, 0) if hook == "close" else None
            if hook != "close":
                umbel.hclose(client)
    for sock in held:
        sock.close()

    assert len(held) == {"connect": 1, "accept": 1, "pair": 2, "close": 0}[hook]
    assert report == (CloseReport(None, 7) if hook == "close" else None)


class Shouting(Wrapping):
    """Wraps every stream that opens, to see its bytes."""

    def around(self, hook: str, context: object) -> Around:
        outcome = yield None
        if isinstance(outcome.value, tuple) and hook == "pair":
            return Outcome(tuple(map(Loud, outcome.value)))
        if isinstance(outcome.value, SocketStream):
            return Outcome(Loud(outcome.value))
        return None


class Loud:
    def __init__(self, inner: object) -> None:
        assert isinstance(inner, SocketStream)
        self.inner = inner
        self.done = inner.done
        self.abort = inner.abort
        self.receive_into = inner.receive_into

    def send(self, buffers: list[memoryview], deadline: int) -> None:
        self.inner.send([memoryview(bytes(b).upper()) for b in buffers], deadline)

    def query(self, kind: type[object]) -> None:
        return None


@pytest.mark.usefixtures("own")
def test_a_wrapper_sees_the_bytes_of_the_streams_that_it_wraps() -> None:
    with plugins(Shouting()), umbel.listen(address()) as listener:
        client = umbel.connect(listener.address, umbel.within(20))
        server = umbel.accept(listener, umbel.within(20))
        left, right = umbel.pair("own")

    for sender, receiver in ((client, server), (server, client), (left, right)):
        umbel.bsend(sender, b"hello")
        assert umbel.brecv(receiver, 5) == b"HELLO"
        umbel.bsendl(sender, [b"a", b"b"])
        assert umbel.brecv(receiver, 2) == b"AB"
    for one, other in ((client, server), (left, right)):
        with umbel.go(umbel.close, one):
            umbel.close(other, umbel.within(20))


# The owner's shutdown.


def test_the_owners_shutdown_is_reached_by_close_alone(own: OwnTransport) -> None:
    for end in umbel.pair("own"):
        umbel.hclose(end)
    with pytest.raises(ZeroDivisionError), umbel.listen(address()):
        raise ZeroDivisionError  # aborts
    assert own.closed == []

    left, right = umbel.pair("own")
    umbel.done(right)
    number = int(left)
    umbel.close(left, 0)
    umbel.hclose(right)

    (context,) = own.closed
    assert (context.handle, context.deadline) == (number, 0)
    with pytest.raises(umbel.BadHandleError):
        umbel.close(left)
    assert len(own.closed) == 1


def test_an_owner_whose_shutdown_fails_leaves_no_descriptor(own: OwnTransport) -> None:
    own.failing, own.failure = "close", ZeroDivisionError
    before = open_descriptors()

    left, right = umbel.pair("own")
    listener = umbel.listen(address())
    for handle in (left, right, listener):
        with pytest.raises(ZeroDivisionError):
            umbel.close(handle, umbel.within(20))

    assert open_descriptors() == before


# Ctrl-C and cancellation.


@pytest.mark.usefixtures("own")
def test_being_canceled_crosses_wrappers_which_are_told() -> None:
    log: list[tuple[str, str, str]] = []
    outer, inner = Noting("outer", log), Noting("inner", log)

    with plugins(outer, inner), umbel.listen(address()) as listener:
        waiting = umbel.go(umbel.accept, listener)
        umbel.yield_()
        umbel.hclose(waiting)

    assert isinstance(inner.outcomes["accept"].error, umbel.Canceled)
    assert outer.outcomes["accept"] == inner.outcomes["accept"]


@pytest.mark.usefixtures("own")
def test_a_close_that_is_canceled_in_a_wrapper_frees_the_descriptor() -> None:
    class Waiting(Wrapping):
        def around(self, hook: str, context: object) -> Around:
            if hook == "close":
                umbel.msleep(umbel.FOREVER)
            yield None
            return None

    left, right = umbel.pair("own")
    with plugins(Waiting()):
        closing = umbel.go(umbel.close, left)
        umbel.yield_()
        umbel.hclose(closing)

    assert umbel.receive(right, 1, umbel.within(20)) == b""
    umbel.hclose(right)


@pytest.mark.parametrize("hook", HOOKS)
def test_ctrl_c_in_the_owner_crosses_wrappers_which_are_told(
    own: OwnTransport, hook: str
) -> None:
    own.failing, own.failure = hook, KeyboardInterrupt
    outer, inner = Noting("outer", []), Noting("inner", [])

    with plugins(outer, inner), pytest.raises(KeyboardInterrupt):
        session()

    assert isinstance(inner.outcomes[hook].error, KeyboardInterrupt)
    assert outer.outcomes[hook] == inner.outcomes[hook]


class Interrupted(Wrapping):
    """Ctrl-C comes while this wrapper of one hook runs."""

    def __init__(self, hook: str, when: str) -> None:
        self.hook = hook
        self.when = when

    def around(self, hook: str, context: object) -> Around:
        if (hook, self.when) == (self.hook, "before"):
            raise KeyboardInterrupt
        yield None
        if (hook, self.when) == (self.hook, "after"):
            raise KeyboardInterrupt
        return None


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("hook", HOOKS)
def test_ctrl_c_in_a_wrapper_leaves_no_descriptor_and_others_are_told(
    hook: str, when: str
) -> None:
    before = open_descriptors()
    outer, inner = Noting("outer", []), Noting("inner", [])

    with (
        plugins(outer, Interrupted(hook, when), inner),
        pytest.raises(KeyboardInterrupt),
    ):
        session()

    assert isinstance(outer.outcomes[hook].error, KeyboardInterrupt)
    assert (hook in inner.outcomes) is (when == "after")
    assert open_descriptors() == before


def test_what_had_failed_before_ctrl_c_in_a_wrapper_is_told_with_it(
    own: OwnTransport,
) -> None:
    own.failing, own.failure = "connect", lambda: PermissionError("not here")

    with (
        plugins(Interrupted("connect", "after")),
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        session()

    assert isinstance(caught.value.__context__, PermissionError)


class Layer(StreamProxy):
    """A stream that tells when it is aborted."""

    def __init__(self, inner: Stream, name: str, log: list[str]) -> None:
        super().__init__(inner)
        self.name = name
        self.log = log

    def abort(self) -> None:
        self.log.append(self.name)
        super().abort()


class Layering(Wrapping):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def around(self, hook: str, context: object) -> Around:
        outcome = yield None
        if hook != "connect":
            return None
        assert isinstance(outcome.value, (SocketStream, Layer))
        return Outcome(Layer(outcome.value, self.name, self.log))


@pytest.mark.usefixtures("own")
def test_of_what_wrappers_have_made_the_outermost_is_freed_first() -> None:
    log: list[str] = []

    with (
        plugins(
            Refusing("connect", lambda: PermissionError("not here")),
            Layering("outer", log),
            Layering("inner", log),
        ),
        pytest.raises(PermissionError),
    ):
        session()

    assert log[:2] == ["outer", "inner"]


# No reference cycles.


class Refusal(OSError):
    """An error that can be watched."""


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("who", ["the owner", "a wrapper"])
def test_an_error_that_crossed_wrappers_is_freed_at_once(
    own: OwnTransport, hook: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("umbel"), "disabled", True)
    made: list[weakref.ref[Refusal]] = []

    def fail() -> Refusal:
        error = Refusal(1, "refused")
        made.append(weakref.ref(error))
        return error

    given: list[Wrapping] = [Wrapping(), Failing("raises what it was sent")]
    if who == "the owner":
        own.failing, own.failure = hook, fail
    else:
        given.append(Refusing(hook, fail))
    gc.disable()
    try:
        with plugins(*given):
            assert _fails()
        assert [error() for error in made] == [None] * len(made)
        assert made
    finally:
        gc.enable()


def _fails() -> bool:
    try:
        session()
    except Refusal:
        return True
    return False


# Loading and removing.


@pytest.mark.usefixtures("own")
def test_a_plugin_that_is_removed_leaves_the_others() -> None:
    kept, gone = Noting("kept", []), Noting("gone", [])
    add_plugin(gone, "gone")
    add_plugin(kept, "kept")
    remove_plugin("gone")
    try:
        session()
    finally:
        remove_plugin("kept")

    assert gone.outcomes == {}
    assert set(kept.outcomes) == set(HOOKS)


@pytest.mark.usefixtures("own")
def test_a_second_plugin_of_a_name_is_refused_and_the_first_goes_on() -> None:
    first, second = Noting("first", []), Noting("second", [])
    add_plugin(first, "same")
    with pytest.raises(umbel.PluginError, match="v1:same'"):
        add_plugin(second, "same")
    session()
    remove_plugin("same")
    session()

    assert set(first.outcomes) == set(HOOKS)
    assert len(first.log) == 2 * (len(HOOKS) + 1)  # one session; done is for both ends
    assert second.log == []


def test_an_observer_that_is_added_as_a_transport_goes_on_as_an_observer() -> None:
    noting = Noting("noting", [])
    add_plugin(noting, "noting")
    with pytest.raises(umbel.PluginError, match="that is for observers"):
        add_transport(noting, "noting")

    remove_plugin("noting")

    with pytest.raises(umbel.PluginError, match="no plugin 'noting'"):
        remove_plugin("noting")


def test_a_plugin_is_started_and_stopped_once() -> None:
    calls: list[str] = []

    class Started:
        @hookimpl.start
        def start(self) -> None:
            calls.append("start")

        @hookimpl.stop
        def stop(self) -> None:
            calls.append("stop")

    add_plugin(Started(), "started")
    assert calls == ["start"]
    remove_plugin("started")
    assert calls == ["start", "stop"]
    with pytest.raises(umbel.PluginError, match="no plugin 'started'"):
        remove_plugin("started")
    assert calls == ["start", "stop"]


def test_a_plugin_whose_stop_fails_is_out_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Noting):
        @hookimpl.stop
        def stop(self) -> None:
            raise ZeroDivisionError

    stuck = Stuck("stuck", [])
    add_plugin(stuck, "stuck")
    remove_plugin("stuck")
    for end in umbel.pair("mem"):
        umbel.hclose(end)

    assert "'stuck': its stop failed" in caplog.text
    assert stuck.log == []


def test_all_plugins_are_stopped_at_exit_even_if_the_stop_of_one_fails() -> None:
    code = """
from umbel.plugins import add_plugin
from umbel.spi import hookimpl
class Stopped:
    @hookimpl.stop
    def stop(self):
        print("stopped", flush=True)
        raise ZeroDivisionError
for name in ("first", "second"):
    add_plugin(Stopped(), name)
"""
    assert run_python(code) == "stopped\nstopped\n"


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "remove_plugin('second')"])
def test_all_plugins_are_stopped_at_exit_whatever_the_stop_of_one_does(
    end: str,
) -> None:
    code = f"""
from umbel.plugins import add_plugin, remove_plugin
from umbel.spi import hookimpl
class Stopped:
    def __init__(self, name):
        self.name = name
    @hookimpl.stop
    def stop(self):
        print(self.name, flush=True)
        if self.name == "first":
            {end}
for name in ("first", "second", "third"):
    add_plugin(Stopped(name), name)
"""
    assert run_python(code) == "first\nsecond\nthird\n"


def test_removing_a_transport_that_is_not_loaded_is_an_error() -> None:
    with pytest.raises(umbel.UnknownTransportError, match="'nothing'"):
        remove_transport("nothing")


def test_a_hook_that_core_runs_itself_says_that_it_can_be_wrapped_only() -> None:
    def done(context: DoneContext) -> None:
        """End a direction."""

    with pytest.raises(TypeError, match=r"wrap it, by @hookimpl\.done\.wrapper"):
        hookimpl.done(done)  # type: ignore[arg-type]  # what it is about


def test_an_unknown_hook_is_told_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match="no hook 'pear': listen, connect, pair"):
        hookimpl.pear  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("mark", [hookimpl, hookimpl.pair, hookimpl.start])
@pytest.mark.parametrize("found", [3, partial(print), cache(str), "a name".upper])
def test_what_pluggy_would_pass_over_is_no_hook(
    found: object, mark: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="a hook is a function"):
        mark(found)
