"""What an owner's hook gives is looked at: nonsense is a PluginError that names it."""

from __future__ import annotations

import socket
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar, cast
from unittest.mock import create_autospec

import pytest

import umbel
from tests.support import open_descriptors
from umbel import aio
from umbel.adoption import adopt_listener, adopt_stream
from umbel.plugins import add_plugin, remove_plugin
from umbel.plugins.registry import add_transport, remove_transport
from umbel.plugins.results import flaw_of
from umbel.spi import (
    Address,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    ListenContext,
    Listener,
    ListenerAttempts,
    PairContext,
    Readiness,
    Stream,
    Wrapped,
    hookimpl,
)

T = TypeVar("T")


class End:
    """A stream that knows whether it was aborted."""

    is_aborted = False

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        pass

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        return 0

    def done(self, deadline: int) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True

    def query(self, kind: type[T]) -> T | None:
        return None


class Ear:
    """A listener that knows whether it was aborted, and accepts what it is told to."""

    is_aborted = False

    def __init__(self, accepted: Callable[[], object] = End, tries: bool = False):
        self.address = Address("giving", "x")
        self.accepted = accepted
        self.tries = tries

    def accept(self, deadline: int) -> Stream:
        return cast("Stream", self.accepted())

    def abort(self) -> None:
        self.is_aborted = True

    def query(self, kind: type[T]) -> T | None:
        if kind is not ListenerAttempts or not self.tries:
            return None
        attempts = ListenerAttempts(lambda: self.accept(0), Readiness(-1))
        return cast("T", attempts)


class Giving:
    """A transport whose hooks give what `given` makes, each time anew."""

    def __init__(self) -> None:
        self.given: Callable[[], object] = lambda: None

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        return cast("Listener", self.given())

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        return cast("Stream", self.given())

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        return cast("tuple[Stream, Stream]", self.given())

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> Stream | Listener:
        return cast("Stream", self.given())

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        return cast("CloseReport", self.given())


@pytest.fixture
def giving() -> Iterator[Giving]:
    made = Giving()
    add_transport(made, "giving", "giving-dist 1.0")
    yield made
    remove_transport("giving")


async def coroutine() -> Stream:
    return End()


def generator() -> Iterator[Stream]:
    yield End()


class Deaf(End):
    receive_into = None  # type: ignore[assignment]


class Dumb(End):
    query = None  # type: ignore[assignment]
    done = None  # type: ignore[assignment]


class Awaited(End):
    async def done(self, deadline: int) -> None:  # type: ignore[override]
        """Be no such function as core calls."""


class Generating(End):
    async def done(self, deadline: int) -> AsyncIterator[None]:  # type: ignore[override]
        """As `Awaited`; it runs even less of it."""
        yield


class Placeless(Ear):
    def __init__(self) -> None:
        super().__init__()
        self.address = cast("Address", "giving:x")


NONSENSE: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "an object of class int": lambda: 5,
    "a coroutine": coroutine,
    "a generator": generator,
}
NO_STREAM = {
    **NONSENSE,
    f"an object of class {__name__}.Deaf, which has no receive_into": Deaf,
    "has no done, query": Dumb,
    "Awaited, whose done only gives a coroutine": Awaited,
    "Generating, whose done only gives a coroutine or generator": Generating,
    f"class {__name__}.Ear, which has no send": Ear,
    f"the class {__name__}.End (make": lambda: End,
}
NO_LISTENER = {
    **NONSENSE,
    f"class {__name__}.End, which has no accept": End,
    "Placeless, which has no address of class Address": Placeless,
}
NO_PAIR = {
    **NONSENSE,
    f"class {__name__}.End": End,
    "a tuple of 1": lambda: (End(),),
    "a tuple of 3": lambda: (End(), End(), End()),
    "a stream and None": lambda: (End(), None),
    "None and a stream": lambda: (None, End()),
    "the same stream twice": lambda: (End(),) * 2,
}
NO_REPORT = {**NONSENSE, "a tuple of 2": lambda: (None, 0)}


def adopt_one(adopt: Callable[[int, str], int]) -> None:
    near, far = socket.socketpair()
    with near, far:
        adopt(near.fileno(), "giving")


def close_one(giving: Giving) -> None:
    wrong, giving.given = giving.given, End
    stream = umbel.connect("giving:x")
    giving.given = wrong
    umbel.close(stream)


def accept_one(giving: Giving, tries: bool) -> None:
    wrong = giving.given
    giving.given = lambda: Ear(wrong, tries)
    with umbel.listen("giving:x") as listener:
        giving.given = CloseReport
        umbel.accept(listener)


def await_one(giving: Giving) -> None:
    import asyncio

    async def main() -> None:
        listener = aio.listen("giving:x")
        try:
            await aio.accept(listener)
        finally:
            umbel.hclose(listener)

    wrong = giving.given
    giving.given = lambda: Ear(wrong, tries=True)
    asyncio.run(main())


Act = Callable[[Giving], object]

ACTS: dict[str, tuple[Act, dict[str, Callable[[], object]]]] = {
    "listen": (lambda _: umbel.listen("giving:x"), NO_LISTENER),
    "connect": (lambda _: umbel.connect("giving:x"), NO_STREAM),
    "pair": (lambda _: umbel.pair("giving"), NO_PAIR),
    "adopt": (lambda _: adopt_one(adopt_stream), NO_STREAM),
    "adopt, a listener": (lambda _: adopt_one(adopt_listener), NO_LISTENER),
    "close": (close_one, NO_REPORT),
    "accept": (lambda giving: accept_one(giving, tries=False), NO_STREAM),
    "accept, by attempts": (
        lambda giving: accept_one(giving, tries=True),
        {what: make for what, make in NO_STREAM.items() if what != "None"},
    ),
    "accept, awaited": (
        await_one,
        {what: make for what, make in NO_STREAM.items() if what != "None"},
    ),
}
CASES = [(hook, what) for hook, (_, kinds) in ACTS.items() for what in kinds]


class Recorder:
    """Wraps what opens, and notes what it is sent."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    @hookimpl.connect.wrapper
    def connect(self, context: ConnectContext) -> Wrapped[Stream]:
        self.errors.append((yield).error)
        return None

    @hookimpl.pair.wrapper
    def pair(self, context: PairContext) -> Wrapped[tuple[Stream, Stream]]:
        self.errors.append((yield).error)
        return None

    @hookimpl.close.wrapper
    def close(self, context: CloseContext) -> Wrapped[CloseReport]:
        self.errors.append((yield).error)
        return None

    @hookimpl.adopt.wrapper
    def adopt(self, context: AdoptContext) -> Wrapped[Stream | Listener]:
        self.errors.append((yield).error)
        return None


@pytest.mark.parametrize(("hook", "what"), CASES)
def test_nonsense_is_a_plugin_error_that_names_all_and_aborts_what_came(
    giving: Giving, hook: str, what: str
) -> None:
    act, kinds = ACTS[hook]
    came: list[object] = []

    def give() -> object:
        came.append(made := kinds[what]())
        return made

    giving.given = give
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as caught:
        message = refusal_of(act, giving)
        ends = [e for g in came for e in (g if isinstance(g, tuple) else (g,))]
        assert all(e.is_aborted for e in ends if isinstance(e, End | Ear))
        came.clear()

    for part in ("'giving'", "giving-dist 1.0", f"`{hook.partition(',')[0]}`", what):
        assert part in message
    assert caught == []  # no coroutine that was never awaited
    assert open_descriptors() == before


def refusal_of(act: Act, giving: Giving) -> str:
    """Give the message alone: a traceback would keep what came."""
    try:
        act(giving)
    except umbel.PluginError as error:
        return str(error)
    raise AssertionError("no error")


@pytest.mark.parametrize("hook", ["connect", "pair", "close", "adopt"])
def test_wrappers_are_sent_the_error_and_not_the_nonsense(
    giving: Giving, hook: str
) -> None:
    giving.given = lambda: None
    recorder = Recorder()
    add_plugin(recorder, "recorder")
    try:
        with pytest.raises(umbel.PluginError):
            ACTS[hook][0](giving)
    finally:
        remove_plugin("recorder")

    assert isinstance(recorder.errors[-1], umbel.PluginError)


def test_an_end_that_can_not_be_aborted_masks_nothing(giving: Giving) -> None:
    class Stuck(End):
        def abort(self) -> None:
            raise RuntimeError("bad abort")

    other = End()
    giving.given = lambda: (Stuck(), other, None)

    with pytest.raises(umbel.PluginError, match="a tuple of 3"):
        umbel.pair("giving")
    assert other.is_aborted


def test_an_adopted_descriptor_goes_with_an_end_of_the_wrong_kind(
    giving: Giving,
) -> None:
    taken: list[socket.socket] = []

    class Taking(Ear):
        def abort(self) -> None:
            taken.pop().close()

    class Adopting(Giving):
        @hookimpl.adopt
        def adopt(self, context: AdoptContext) -> Stream | Listener:
            taken.append(socket.socket(fileno=context.fd))
            return Taking()

    before = open_descriptors()
    left, right = umbel.ipc_pair()
    moved, peer = umbel.ipc_pair()
    add_transport(Adopting(), "adopting")
    try:
        umbel.send_with_fds(left, *_as_sent(moved))
        with pytest.raises(umbel.PluginError, match=r"`adopt` .* gave .*Taking"):
            umbel.receive_handle(right, umbel.within(5))
    finally:
        remove_transport("adopting")
        for handle in (left, right, moved, peer):
            umbel.hclose(handle)

    assert open_descriptors() == before


def _as_sent(moved: umbel.StreamHandle) -> tuple[bytes, list[int]]:
    text = b'{"address": "adopting:", "is_listener": false, "state": {}}'
    return len(text).to_bytes(4, "big") + text, [moved.fileno()]


# One of two that can't get a handle.


@pytest.mark.parametrize("is_first", [False, True])
def test_an_end_without_a_handle_closes_the_other_one(
    giving: Giving, is_first: bool
) -> None:
    class Broken(End):
        def query(self, kind: type[T]) -> T | None:
            raise RuntimeError("query broke")

    ends = (Broken(), End()) if is_first else (End(), Broken())
    giving.given = lambda: ends

    with pytest.raises(RuntimeError, match="query broke"):
        umbel.pair("giving")

    assert all(end.is_aborted for end in ends)
    assert not umbel.census().handles


def test_a_class_in_the_place_of_a_stream_is_not_aborted(
    giving: Giving, caplog: pytest.LogCaptureFixture
) -> None:
    giving.given = lambda: End

    with pytest.raises(umbel.PluginError, match="make an object of it"):
        umbel.connect("giving:x")

    assert not caplog.records


def test_streams_with_methods_of_their_own_are_streams(giving: Giving) -> None:
    class Loose:
        def __init__(self) -> None:
            inner = End()
            self.send, self.receive_into = inner.send, inner.receive_into
            self.done, self.abort, self.query = inner.done, inner.abort, inner.query

    giving.given = Loose
    umbel.hclose(umbel.connect("giving:x"))


def test_a_mock_of_a_stream_passes_for_one() -> None:
    assert flaw_of(create_autospec(End, instance=True), "a stream") == ""
