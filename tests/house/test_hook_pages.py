"""docs/hooks.md says what is so: each hook, its context, and which calls run it."""

from __future__ import annotations

import gc
import inspect
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import umbel
from tests.pages import names_in, rows
from umbel import spi
from umbel.handle import open_handles
from umbel.plugins import add_plugin, hookspecs, remove_plugin
from umbel.spi import (
    AcceptContext,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DoneContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
)
from umbel.values.record import Record

HOOKS = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()

SECTION = r"^### `((\w+)\([^\n]*)`\n(.*?)(?=^##|\Z)"

SPECS = {
    name.removeprefix("umbel_"): found
    for name, found in vars(hookspecs).items()
    if name.startswith("umbel_")
}


class Section(NamedTuple):
    heading: str
    text: str


def sections() -> dict[str, Section]:
    found = re.findall(SECTION, HOOKS, re.MULTILINE | re.DOTALL)
    return {name: Section(heading, text) for heading, name, text in found}


def test_every_hook_has_a_section_and_no_other_has() -> None:
    assert sorted(sections()) == sorted(SPECS)


@pytest.mark.parametrize("hook", sorted(SPECS))
def test_a_section_begins_with_the_signature_and_purpose_of_the_hook(hook: str) -> None:
    signature = inspect.signature(SPECS[hook])
    # pluggy lets each hook give None, for "not mine"; a transport's must not.
    result = str(signature.return_annotation).removesuffix(" | None")
    parameters = ", ".join(
        f"{name}: {p.annotation}" for name, p in signature.parameters.items()
    )
    section = sections()[hook]

    assert section.heading == f"{hook}({parameters}) -> {result}"
    assert section.text.split("\n\n")[0].strip() == inspect.getdoc(SPECS[hook])


@pytest.mark.parametrize("hook", sorted(SPECS))
def test_a_section_lists_the_fields_of_the_context(hook: str) -> None:
    parameters = inspect.signature(SPECS[hook]).parameters
    listed = {
        names_in(cells[0])[0]: cells[1].strip("`").replace("\\|", "|")
        for cells in re.findall(
            r"^\| (`\w+`) \| (.+?) \| .+ \|$", sections()[hook].text, re.MULTILINE
        )
    }

    if not parameters:
        assert listed == {}
        return
    context = getattr(spi, parameters["context"].annotation)
    assert issubclass(context, Record)
    assert listed == context.__annotations__


@pytest.mark.parametrize("hook", sorted(SPECS))
def test_a_section_says_who_may_have_the_hook_and_what_comes_of_failure(
    hook: str,
) -> None:
    text = sections()[hook].text
    marker = getattr(hookimpl, hook)
    chapter = HOOKS[: HOOKS.index(f"### `{hook}(")].rsplit("\n## ", 1)[1]

    assert "**Called**" in text
    assert "**If it fails**" in text
    assert ("**Wrappers**: none" in text) == (not hasattr(marker, "wrapper"))
    is_cores = type(marker) is type(hookimpl.done)
    assert chapter.startswith("The hooks that core runs") == is_cores


def test_every_variable_that_chooses_plugins_is_in_the_table_with_its_call() -> None:
    core = Path(umbel.__file__).parent
    read = {
        name
        for module in (core / "plugins").glob("*.py")
        for name in re.findall(r'"(UMBEL_\w+)"', module.read_text())
    }
    table = rows(HOOKS, "## Which plugins a program may use")

    assert {re.findall(r"`(\w+)", row[0])[0] for row in table} == read
    for _, call, _ in table:
        verb = re.findall(r"`(?:umbel\.)?(\w+)", call)[0]
        assert verb in umbel.__all__


class Recorder:
    """Wraps all that can be wrapped, and notes what passes."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl.listen.wrapper
    def listen(self, context: ListenContext) -> Wrapped[Listener]:
        self.seen.append("listen")
        return (yield)

    @hookimpl.connect.wrapper
    def connect(self, context: ConnectContext) -> Wrapped[Stream]:
        self.seen.append("connect")
        return (yield)

    @hookimpl.pair.wrapper
    def pair(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        self.seen.append("pair")
        return (yield)

    @hookimpl.adopt.wrapper
    def adopt(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        self.seen.append("adopt")
        return (yield)

    @hookimpl.accept.wrapper
    def accept(self, context: AcceptContext) -> Wrapped[Stream]:
        self.seen.append("accept")
        return (yield)

    @hookimpl.done.wrapper
    def done(self, context: DoneContext) -> Wrapped[None]:
        self.seen.append("done")
        return (yield)

    @hookimpl.close.wrapper
    def close(self, context: CloseContext) -> Wrapped[CloseReport]:
        self.seen.append("close")
        return (yield)


class Stage:
    """Streams and listeners to call a verb on, and what hooks it ran.

    What is opened is closed by `hclose`, which the page says runs none.
    """

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.path = folder / "x.sock"
        self.opened: list[int] = []
        self.recorder = recorder

    def watch(self) -> None:
        """Forget what was seen: it was done to set the stage."""
        self.recorder.seen.clear()

    def keep(self, *handles: int) -> None:
        self.opened += handles

    def ipc(self) -> umbel.ListenerHandle:
        listener = umbel.ipc_listen(self.path)
        self.keep(listener)
        return listener

    def tcp(self) -> umbel.ListenerHandle:
        listener = umbel.tcp_listen(umbel.ipaddr_local("127.0.0.1", 0))
        self.keep(listener)
        return listener

    def ended(self, scheme: str = "ipc") -> umbel.StreamHandle:
        """Give a stream whose peer has ended its direction."""
        if scheme == "tcp":
            listener = self.tcp()
            stream = umbel.connect(listener.address, umbel.within(5))
            peer = umbel.accept(listener, umbel.within(5))
        else:
            stream, peer = umbel.ipc_pair()
        peer.done()
        self.keep(peer)
        return stream


def listen_ipc(stage: Stage) -> None:
    stage.ipc()


def listen_tcp(stage: Stage) -> None:
    stage.tcp()


def listen(stage: Stage) -> None:
    stage.keep(umbel.listen("mem://hooks"))


def connect(stage: Stage) -> None:
    address = stage.ipc().address
    stage.watch()
    stage.keep(umbel.connect(address))


def connect_ipc(stage: Stage) -> None:
    stage.ipc()
    stage.watch()
    stage.keep(umbel.ipc_connect(stage.path))


def connect_tcp(stage: Stage) -> None:
    address = umbel.tcp_address(stage.tcp())
    stage.watch()
    stage.keep(umbel.tcp_connect(address, umbel.within(5)))


def accept(stage: Stage) -> None:
    listener = stage.ipc()
    stage.keep(umbel.connect(listener.address))
    stage.watch()
    stage.keep(umbel.accept(listener))


def accept_ipc(stage: Stage) -> None:
    listener = stage.ipc()
    stage.keep(umbel.connect(listener.address))
    stage.watch()
    stage.keep(umbel.ipc_accept(listener))


def accept_tcp(stage: Stage) -> None:
    listener = stage.tcp()
    stage.keep(umbel.connect(listener.address, umbel.within(5)))
    stage.watch()
    stage.keep(umbel.tcp_accept(listener, umbel.within(5))[0])


def adopt_stream(stage: Stage) -> None:
    for sock in socket.socketpair():
        stage.keep(umbel.ipc_fromfd(sock.detach()))
    stage.recorder.seen.pop()  # of two


def adopt_listener(stage: Stage) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(stage.path))
    sock.listen()
    stage.keep(umbel.ipc_listener_fromfd(sock.detach()))


def adopt_tcp(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        stage.keep(umbel.tcp_fromfd(sock.detach()))


def adopt_tcp_listener(stage: Stage) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    stage.keep(umbel.tcp_listener_fromfd(server.detach()))


def receive_handle(stage: Stage) -> None:
    left, right = umbel.ipc_pair()
    moved, peer = umbel.ipc_pair()
    stage.keep(left, right, peer)
    umbel.send_handle(left, moved)
    stage.watch()
    stage.keep(umbel.receive_handle(right))


def done_of(scheme: str, verb: Callable[[umbel.StreamHandle], None]) -> Act:
    def act(stage: Stage) -> None:
        stream = stage.ended(scheme)
        stage.keep(stream)
        stage.watch()
        verb(stream)

    return act


def close_of(scheme: str, verb: Callable[[umbel.StreamHandle], object]) -> Act:
    def act(stage: Stage) -> None:
        stream = stage.ended(scheme)
        stage.watch()
        verb(stream)

    return act


def leave(stream: umbel.StreamHandle) -> None:
    with stream:
        pass


def leave_by_an_error(stream: umbel.StreamHandle) -> None:
    with pytest.raises(ZeroDivisionError), stream:
        raise ZeroDivisionError


def forget(stage: Stage) -> None:
    stream = stage.ended()
    handle = int(stream)
    stage.watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del stream
        gc.collect()
    assert handle not in open_handles


Act = Callable[[Stage], None]

ACTS: dict[str, Act] = {
    "listen": listen,
    "ipc_listen": listen_ipc,
    "tcp_listen": listen_tcp,
    "connect": connect,
    "ipc_connect": connect_ipc,
    "tcp_connect": connect_tcp,
    "pair": lambda stage: stage.keep(*umbel.pair()),
    "ipc_pair": lambda stage: stage.keep(*umbel.ipc_pair()),
    "ipc_fromfd": adopt_stream,
    "ipc_listener_fromfd": adopt_listener,
    "tcp_fromfd": adopt_tcp,
    "tcp_listener_fromfd": adopt_tcp_listener,
    "receive_handle": receive_handle,
    "accept": accept,
    "ipc_accept": accept_ipc,
    "tcp_accept": accept_tcp,
    "done": done_of("ipc", umbel.done),
    "ipc_done": done_of("ipc", umbel.ipc_done),
    "tcp_done": done_of("tcp", umbel.tcp_done),
    "close": close_of("ipc", umbel.close),
    "ipc_close": close_of("ipc", umbel.ipc_close),
    "tcp_close": close_of("tcp", umbel.tcp_close),
    "the end of a with block that went well": close_of("ipc", leave),
    "hclose": close_of("ipc", umbel.hclose),
    "abort": close_of("ipc", umbel.StreamHandle.abort),
    "the end of a with block by an error": close_of("ipc", leave_by_an_error),
    "a forgotten handle": forget,
}

PROMISED = {
    call.replace("`", ""): names_in(hooks)
    for calls, hooks in rows(HOOKS, "## Which call runs which hook")
    for call in calls.split(", ")
}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    recorder = Recorder()
    add_plugin(recorder, "recorder")
    found = Stage(tmp_path, recorder)
    yield found
    remove_plugin("recorder")
    for handle in found.opened:
        umbel.hclose(handle)


def test_every_call_of_the_table_is_tried() -> None:
    assert sorted(PROMISED) == sorted(ACTS)


@pytest.mark.parametrize("call", sorted(ACTS))
def test_a_call_runs_the_hooks_that_the_table_says(call: str, stage: Stage) -> None:
    ACTS[call](stage)

    assert stage.recorder.seen == PROMISED[call]
