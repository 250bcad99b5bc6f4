"""Wrappers that answer in the owner's place, that change what opens, and that fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import umbel
from tests.support import run_python
from umbel.plugins import add_plugin, remove_plugin
from umbel.spi import (
    AcceptContext,
    Answered,
    ConnectContext,
    ListenContext,
    Listener,
    Outcome,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
)

Pair = tuple[Stream, Stream]


@contextmanager
def plugins(*given: object) -> Iterator[None]:
    """Have the plugins loaded, the first one outermost."""
    names = [f"plugin {number}" for number, _ in enumerate(given)]
    for name, plugin in zip(names, given, strict=True):
        add_plugin(plugin, name)
    try:
        yield
    finally:
        for name in names:
            remove_plugin(name)


class Counting:
    def __init__(self) -> None:
        self.begun = 0

    @hookimpl.connect.wrapper
    def connecting(self, context: ConnectContext) -> Wrapped[Stream]:
        self.begun += 1
        yield
        return None


class Refusing:
    def __init__(self) -> None:
        self.is_sent: Outcome[Stream] | None = None

    @hookimpl.connect.wrapper
    def connecting(self, context: ConnectContext) -> Answered[Stream]:
        self.is_sent = yield Outcome(error=ConnectionRefusedError(111, "refused"))
        return None

    @hookimpl.accept.wrapper
    def accepting(self, context: AcceptContext) -> Answered[Stream]:
        yield Outcome(error=OSError(24, "no descriptor"))
        return None


def test_a_wrapper_can_answer_in_the_place_of_the_owner() -> None:
    outside, refusing, inside = Counting(), Refusing(), Counting()

    with plugins(outside, refusing, inside), pytest.raises(ConnectionRefusedError):
        umbel.connect("mem://nobody")

    assert (outside.begun, inside.begun) == (1, 0)
    assert refusing.is_sent is not None
    assert isinstance(refusing.is_sent.error, ConnectionRefusedError)


def test_a_peer_stays_in_the_queue_when_a_wrapper_answers_for_accept() -> None:
    with umbel.listen("mem://x") as listener:
        peer = umbel.connect(listener.address, 0)
        with plugins(Refusing()), pytest.raises(OSError, match="no descriptor"):
            umbel.accept(listener, 0)
        stream = umbel.accept(listener, 0)
    umbel.hclose(peer)

    assert umbel.receive(stream) == b""
    umbel.hclose(stream)


class Guarded:
    """A stream that tells whether it was aborted."""

    def __init__(self, inner: Stream) -> None:
        self.inner = inner
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True
        self.inner.abort()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


class Guarding:
    def __init__(self) -> None:
        self.given: list[Guarded] = []

    @hookimpl(wrapper=True)
    def umbel_pair(self, context: PairContext) -> Wrapped[object]:
        outcome = yield
        assert isinstance(outcome.value, tuple)
        self.given = [Guarded(stream) for stream in outcome.value]
        return Outcome(tuple(self.given))


class Failing:
    def __init__(self, end: Callable[[], Outcome[Pair]]) -> None:
        self.end = end

    @hookimpl.pair.wrapper
    def pairing(self, context: PairContext) -> Wrapped[Pair]:
        yield
        return self.end()


def interrupt() -> Outcome[Pair]:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda: Outcome(error=PermissionError(13, "no")), PermissionError),
        (interrupt, KeyboardInterrupt),
    ],
    ids=["an error", "Ctrl-C"],
)
def test_what_another_wrapper_put_in_the_place_of_a_stream_is_aborted(
    end: Callable[[], Outcome[Pair]], error: type[BaseException]
) -> None:
    guarding = Guarding()

    with plugins(Failing(end), guarding), pytest.raises(error):
        umbel.pair("mem")

    assert [stream.is_aborted for stream in guarding.given] == [True, True]


class Unreadable:
    """A listener that can't be looked at, let alone be used."""

    @property
    def address(self) -> umbel.Address:
        raise OSError(9, "closed")

    def accept(self, deadline: int) -> None: ...
    def abort(self) -> None: ...
    def query(self, kind: object) -> None: ...


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("answer", [Outcome(Unreadable()), Unprintable()])
def test_an_answer_that_fails_when_it_is_looked_at_changes_nothing(
    answer: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Answering:
        @hookimpl(wrapper=True)
        def umbel_listen(self, context: ListenContext) -> Wrapped[object]:
            yield
            return answer  # type: ignore[return-value]  # on purpose

    with plugins(Answering()):
        umbel.hclose(umbel.ipc_listen(tmp_path / "x.sock"))

    assert "can't be its outcome" in caplog.text
    assert not (tmp_path / "x.sock").exists()


def test_a_log_that_raises_leaves_nothing_open(tmp_path: Path) -> None:
    class Strict(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("strict")

    class Wrong:
        @hookimpl.listen.wrapper
        def listening(self, context: ListenContext) -> Wrapped[Listener]:
            yield
            raise ValueError("wrong")

    strict = Strict()
    logging.getLogger("umbel").addHandler(strict)
    try:
        with plugins(Wrong()), pytest.raises(RuntimeError, match="strict"):
            umbel.ipc_listen(tmp_path / "x.sock")
    finally:
        logging.getLogger("umbel").removeHandler(strict)

    assert not (tmp_path / "x.sock").exists()


def test_a_plugin_that_fails_to_start_is_not_loaded() -> None:
    class Unable(Counting):
        @hookimpl.start
        def start(self) -> None:
            raise PermissionError(13, "not here")

    unable = Unable()
    for _ in range(2):
        with pytest.raises(PermissionError):
            add_plugin(unable, "unable")

    with umbel.listen("mem://x") as listener:
        umbel.hclose(umbel.connect(listener.address))
    assert unable.begun == 0


def test_a_start_or_stop_that_is_no_plain_function_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Async:
        @hookimpl.start  # type: ignore[arg-type]  # on purpose
        async def start(self) -> None:
            raise AssertionError

    class Yielding:
        @hookimpl.stop  # type: ignore[arg-type]  # on purpose
        def stop(self) -> Iterator[None]:
            yield

    with pytest.raises(umbel.PluginError, match=r"start.*did not run.*async def"):
        add_plugin(Async(), "wrong")
    add_plugin(Yielding(), "wrong")
    remove_plugin("wrong")

    assert "did not run: it gave a generator" in caplog.text


@pytest.mark.parametrize("verb", ["ipc_fromfd", "ipc_listener_fromfd"])
def test_a_program_that_adopts_has_the_requested_plugins_too(verb: str) -> None:
    code = f"""
import contextlib, socket, umbel, umbel.plugins
end = socket.socketpair()[0]
with contextlib.suppress(OSError):
    umbel.{verb}(end.fileno())
print(*umbel.plugins.observers._loaded, flush=True)
import os; os._exit(0)
"""
    assert run_python(code, UMBEL_PLUGINS="census", UMBEL_CENSUS="ipc:@x") == "census\n"


def test_the_environment_keeps_the_order_of_its_plugins() -> None:
    code = """
import umbel, umbel.plugins
for end in umbel.pair():
    umbel.hclose(end)
print(*umbel.plugins.observers._loaded)
"""
    for names in ("trace,faults", "faults,trace", "faults,,trace,faults"):
        expected = " ".join(dict.fromkeys(filter(None, names.split(","))))
        assert run_python(code, UMBEL_PLUGINS=names) == f"{expected}\n"


@pytest.mark.slow
def test_a_start_that_never_ends_does_not_keep_the_program_from_ending() -> None:
    code = """
import threading
from umbel.plugins import add_plugin
from umbel.spi import hookimpl

has_begun = threading.Event()

class Endless:
    @hookimpl.start
    def start(self):
        has_begun.set()
        threading.Event().wait()

threading.Thread(target=add_plugin, args=(Endless(), "endless"), daemon=True).start()
has_begun.wait()
print("ends")
"""
    assert run_python(code) == "ends\n"
