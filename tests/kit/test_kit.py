"""The conformance kit: what is sound passes it, and each broken transport is caught."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

import pytest

import umbel
from tests.mutants import MUTANTS, minimal
from tests.mutants.making import ListenerProxy, Mutant, Proxy
from tests.support import wait_until
from umbel.errors import UnknownTransportError
from umbel.spi import (
    ConnectContext,
    ListenContext,
    Listener,
    PairContext,
    SocketListener,
    SocketStream,
    Stream,
    Traits,
    WaitQueue,
    add_bytes_done,
    hookimpl,
    take_options,
)
from umbel.testing import transport_at_hand
from umbel.testing.conformance import (
    BEHAVIOURS,
    DRIVERS,
    ELSEWHERE,
    Subject,
    Verdict,
    check,
    try_behaviour,
)
from umbel_transports import ipc, mem

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SCHEMES = ("opaque", "tcp", "ipc", "mem")
SOUND = [
    *(f"{scheme}-{driver}" for scheme in SCHEMES for driver in DRIVERS),
    "loop-threads",
    "loop-coroutines",
]

#: Behaviours that core shows, whatever the transport does.
OF_CORE = {
    5: "core checks sizes",
    6: "core receives as often as it must",
    13: "core knows kinds of handles",
    16: "core remembers that we ended",
    18: "core counts what a brecv got",
    20: "core knows who sends",
    30: "core remembers that a direction broke",
    34: "core's table closes once, and numbers handles",
    57: "core knows who sends",
    63: "core knows who accepts",
    77: "core's handles warn",
}
#: Those that no mutant is meant for, since several others break first.
SHARED = {
    11: "whatever loses, doubles or delays bytes is caught by 4, 9 or 10",
    53: "it is about the awaitable verbs, which are core's",
    58: "it is a search for what is not known yet",
    59: "it is about umbel.fd, which tests/kernel/test_fd.py tests",
    68: "it is about umbel.Address",
}


class Runs:
    """What `python -m tests.mutants` tells, one line after the other."""

    def __init__(self, names: list[str]) -> None:
        self.found: dict[str, tuple[str, str]] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants", *names],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def __getitem__(self, name: str) -> tuple[str, str]:
        assert self.process.stdout is not None
        while name not in self.found:
            line = self.process.stdout.readline()
            assert line, f"{name} ended without a verdict"
            told = json.loads(line)
            self.found[told["name"]] = told["state"], told["reason"]
        return self.found[name]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Try all transports whose tests are to run, several at once."""
    wanted = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and "runs" in item.fixturenames
    ]
    # What takes longest comes first, so that it does not end last.
    started = Runs(sorted(wanted, key=lambda name: name not in SOUND))
    yield started
    assert started.process.stdout is not None
    with started.process.stdout, started.process:
        started.process.kill()


@pytest.mark.slow
@pytest.mark.timeout(240)  # whoever is asked first waits for those before it
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_transport_passes_all_behaviours(runs: Runs, name: str) -> None:
    state, reason = runs[name]

    if why_not := DRIVERS[name.partition("-")[2]].why_not():
        pytest.skip(why_not)
    assert state == "passed", reason
    assert int(reason) >= 60  # behaviours that apply to it


@pytest.mark.slow
@pytest.mark.timeout(240)  # whoever is asked first waits for those before it
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_broken_transport_is_caught_by_the_behaviour_meant_for_it(
    runs: Runs, name: str
) -> None:
    state, reason = runs[name]

    assert state == "failed"
    assert re.search(MUTANTS[name].says, reason), reason


def test_each_behaviour_has_a_mutant_or_a_reason_to_have_none() -> None:
    meant = {entry.number for entry in MUTANTS.values()}
    excused = {*OF_CORE, *SHARED, *ELSEWHERE}

    assert set(BEHAVIOURS) - meant - excused == set()
    assert meant & excused == set()


def test_the_behaviours_are_those_of_the_list() -> None:
    assert {*BEHAVIOURS, *ELSEWHERE} == set(range(1, 82))
    assert not BEHAVIOURS.keys() & ELSEWHERE.keys()


def test_a_minimal_transport_has_less_than_80_lines_and_imports_only_the_spi() -> None:
    assert minimal.__file__ is not None
    text = Path(minimal.__file__).read_text()
    modules = {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
    }

    assert len(text.splitlines()) < 80
    assert {name for name in modules if str(name).startswith("umbel")} == {"umbel.spi"}


# The kit as plain functions.


class OnlyPairs:
    """A transport that can make pairs, and nothing else."""

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        return mem.transport.pair(context)

    @hookimpl.traits
    def traits(self) -> Traits:
        return Traits("", mem.transport.traits().capabilities)


class OnlyConnects:
    """A transport that can connect, and nothing else."""

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        return mem.transport.connect(context)


def test_each_verdict_is_told_as_it_comes_and_kept_in_the_report() -> None:
    told: list[Verdict] = []

    two = ["threads", "coroutines"]

    report = check("mem", [1, 35], two, told.append)

    assert report.verdicts == told
    assert [(v.number, v.driver, v.state) for v in told] == [
        *((1, driver, "passed") for driver in two),
        (35, "", "skipped"),
    ]


def test_what_a_transport_has_no_hook_for_is_skipped_with_the_reason() -> None:
    with transport_at_hand(OnlyPairs(), "pairs"):
        report = check("pairs", [1, 61], ["coroutines"])

    one, accepting = report.verdicts
    assert one.state == "passed"
    assert (accepting.state, accepting.reason) == (
        "skipped",
        "the transport has no listener",
    )


def test_a_behaviour_of_one_driver_is_skipped_in_others() -> None:
    (verdict,) = check("mem", [50], ["threads"]).verdicts

    assert (verdict.state, verdict.reason) == (
        "skipped",
        "it is about coroutines and asyncio and trio",
    )


def test_a_transport_that_does_not_say_where_it_can_be_tried_is_einval() -> None:
    class Silent(OnlyConnects):
        @hookimpl.listen
        def listen(self, context: ListenContext) -> Listener:
            return mem.transport.listen(context)

    with transport_at_hand(Silent(), "silent"):
        with pytest.raises(OSError, match=r"implement the hook `traits`, or give"):
            Subject("silent")
        assert str(Subject("silent://{name}").new_address("x")).startswith("silent:")


def test_a_transport_that_makes_no_two_ends_is_einval() -> None:
    with (
        transport_at_hand(OnlyConnects(), "half"),
        pytest.raises(OSError, match="neither the hook `pair`, nor"),
    ):
        Subject("half://{name}")


def test_what_there_is_no_time_for_is_not_tried() -> None:
    report = check("mem", [1, 35, 50], ["threads", "coroutines"], limit=1e-9)

    assert [(v.number, v.driver, v.state) for v in report.verdicts] == [
        *((1, driver, "not tried") for driver in ("threads", "coroutines")),
        (35, "", "skipped"),
        (50, "threads", "skipped"),
        (50, "coroutines", "not tried"),
    ]
    assert (report.failed, len(report.untried)) == ([], 3)
    assert report.as_json()["passed"] is False
    assert "no time was left" in report.verdicts[0].reason


class Scanty(Proxy):
    """Gives no more than it must: little room, single bytes, a late end."""

    ROOM = 512
    peer: Scanty

    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.unread = 0
        self.changed = WaitQueue()

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        moved = 0
        try:
            for view in buffers:
                at = 0
                while at < len(view):
                    ticket = self.changed.ticket()
                    piece = view[at : at + self.ROOM - self.unread]
                    if not piece:
                        self.changed.wait(ticket, deadline)
                        continue
                    self.unread += len(piece)
                    self.inner.send([piece], deadline)
                    at += len(piece)
                    moved += len(piece)
        except BaseException as error:
            add_bytes_done(error, moved)
            raise

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        few = buffer[:1] if len(buffer) < 100 else buffer
        count = self.inner.receive_into(few, deadline)
        self.peer.unread -= count
        self.peer.changed.wake_all()
        return count

    def done(self, deadline: int) -> None:
        def end() -> None:
            with suppress(OSError):  # aborted meanwhile
                self.inner.done(deadline)

        threading.Timer(0.02, end).start()

    def query(self, kind: type[T]) -> T | None:
        return None


class ScantyPairs:
    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        left, right = map(Scanty, mem.transport.pair(context))
        left.peer, right.peer = right, left
        return left, right

    @hookimpl.traits
    def traits(self) -> Traits:
        return Traits("")


@pytest.mark.slow
@pytest.mark.parametrize("number", [29, 32, 52, 55])
def test_what_gives_no_more_than_it_must_is_not_failed_for_it(number: int) -> None:
    with transport_at_hand(ScantyPairs(), "scanty"):
        (verdict,) = check("scanty", [number], ["coroutines"]).verdicts

    assert (verdict.state, verdict.reason) == ("passed", "")


class Zipping(Proxy):
    """Sends frames, each compressed."""

    def __init__(self, inner: Stream) -> None:
        super().__init__(inner)
        self.frame = bytearray()
        self.unzipped = b""

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        for view in buffers:
            for at in range(0, len(view), 1 << 16):
                packed = zlib.compress(view[at : at + (1 << 16)], 1)
                head = len(packed).to_bytes(4, "big")
                self.inner.send([memoryview(head + packed)], deadline)

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        while not self.unzipped:
            size = 4 + int.from_bytes(self.frame[:4], "big")
            if len(self.frame) >= 4 and len(self.frame) == size:
                self.unzipped = zlib.decompress(self.frame[4:])
                self.frame.clear()
                break
            missing = (size if len(self.frame) >= 4 else 4) - len(self.frame)
            piece = memoryview(bytearray(missing))
            count = self.inner.receive_into(piece, deadline)
            if not count:
                return 0
            self.frame += piece[:count]
        count = min(len(buffer), len(self.unzipped))
        buffer[:count] = self.unzipped[:count]
        self.unzipped = self.unzipped[count:]
        return count

    def query(self, kind: type[T]) -> T | None:
        return None


class ZippingPairs(ScantyPairs):
    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        left, right = mem.transport.pair(context)
        return Zipping(left), Zipping(right)


@pytest.mark.slow
@pytest.mark.parametrize("number", [20, 42, 43])
def test_what_compresses_has_no_more_room_than_others(number: int) -> None:
    with transport_at_hand(ZippingPairs(), "zipping"):
        (verdict,) = check("zipping", [number], ["coroutines"]).verdicts

    assert (verdict.state, verdict.reason) == ("passed", "")


class WithoutOptions:
    """Files as those of ipc, and no option that could change anything about them."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        take_options(context.options)
        return ipc.transport.listen(context)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        take_options(context.options)
        return ipc.transport.connect(context)

    @hookimpl.traits
    def traits(self) -> Traits:
        abilities = ipc.transport.traits().capabilities
        return Traits("plain:{folder}/x", abilities, is_filesystem=True)


class LeavesStaleFiles(WithoutOptions):
    """It can't be listened again where a process was killed."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        if os.path.lexists(context.address.location):
            raise OSError(errno.EADDRINUSE, "is there")
        return super().listen(context)


@pytest.mark.parametrize("driver", DRIVERS)
def test_files_are_tried_without_options_where_there_are_none(driver: str) -> None:
    if why_not := DRIVERS[driver].why_not():
        pytest.skip(why_not)
    with transport_at_hand(WithoutOptions(), "plain"):
        sound = check("plain", [71, 72, 75], [driver])
    with transport_at_hand(LeavesStaleFiles(), "plain"):
        (broken,) = check("plain", [71], [driver]).failed

    assert [(v.state, v.reason) for v in sound.verdicts] == [("passed", "")] * 3
    assert "is there" in broken.reason
    assert "again = t.listen_at(address)" in broken.reason


class RefusesToConnect(WithoutOptions):
    """Its connect fails, whoever listens."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> Listener:
        listener = ipc.transport.listen(context)
        cast(
            "SocketListener", listener
        ).address = context.address  # or its scheme would be that of ipc
        return listener

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> Stream:
        raise OSError(errno.EACCES, "no key file")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connect_that_fails_is_told_and_not_waited_for(driver: str) -> None:
    if why_not := DRIVERS[driver].why_not():
        pytest.skip(why_not)
    began = time.monotonic()
    with transport_at_hand(RefusesToConnect(), "plain"):
        (verdict,) = check("plain", [34], [driver]).failed

    assert "no key file" in verdict.reason
    assert time.monotonic() - began < 8  # it would wait for 10 s


class SlowlyPairs(OnlyPairs):
    """One that is sound, and takes its time."""

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        umbel.msleep(umbel.within(0.7))
        return super().pair(context)


@pytest.mark.slow
def test_what_the_limit_cuts_short_is_not_tried_and_has_not_failed() -> None:
    with transport_at_hand(SlowlyPairs(), "slow"):
        first, second = check("slow", [1, 2], ["threads"], limit=0.1).verdicts

        assert (first.state, second.state) == ("not tried", "not tried")
        assert first.reason == "no time was left to finish it"
        wait_until(lambda: threading.active_count() == 1, "the end of the first")


def test_a_behaviour_that_hangs_leaves_no_child_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = os.getpid()
    fork = os.fork
    children: list[int] = []

    class Stuck(SocketStream):
        def abort(self) -> None:
            if os.getpid() != parent:
                threading.Event().wait()
            super().abort()

    class Sticking:
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            left, right = socket.socketpair()
            return Stuck(left), Stuck(right)

    def note_fork() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", note_fork)
    with transport_at_hand(Sticking(), "sticking"):
        verdict = try_behaviour(BEHAVIOURS[73], Subject("sticking"), "threads", 1)

    assert verdict.reason.startswith("it hangs")
    (child,) = children
    try:
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    wait_until(lambda: threading.active_count() == 1, "the end of the behaviour")


def test_a_behaviour_that_hangs_without_descriptors_leaves_some_to_the_next() -> None:
    goes_on = threading.Event()

    class Waiting(ListenerProxy):
        def accept(self, deadline: int) -> Stream:
            while True:
                try:
                    return super().accept(deadline)
                except OSError as error:
                    if error.errno != errno.EMFILE or goes_on.wait(0.01):
                        raise

    class Patient(Mutant):
        listener = Waiting

        def do_traits(self) -> Traits:
            return Traits("patient:{folder}/x", is_filesystem=True)

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with transport_at_hand(Patient(ipc.transport), "patient"):
        subject = Subject("patient")
        try:
            hung = try_behaviour(BEHAVIOURS[69], subject, "threads", 1)
            after = resource.getrlimit(resource.RLIMIT_NOFILE)
            next_one = try_behaviour(BEHAVIOURS[70], subject, "threads")
        finally:
            goes_on.set()
            wait_until(lambda: threading.active_count() == 1, "the end of the first")

    assert hung.reason.startswith("it hangs")
    assert after == before
    assert (next_one.state, next_one.reason) == ("passed", "")


def test_what_a_transport_keeps_for_good_is_no_leak() -> None:
    kept: list[int] = []

    class Keeping(Mutant):
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            if not kept:
                kept.extend(os.pipe())
            return mem.transport.pair(context)

    with transport_at_hand(Keeping(mem.transport), "mem-keeping"):
        subject = Subject("mem-keeping://{name}")
        first = try_behaviour(BEHAVIOURS[1], subject, "asyncio")  # which pairs
    for fd in kept:
        os.close(fd)

    assert (first.state, first.reason) == ("passed", "")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_transport_by_way_of_another_does_not_wait(driver: str) -> None:
    class Layered(Mutant):
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            take_options(context.options)
            for end in umbel.pair("mem"):  # as a layer over a stream of umbel's own
                umbel.hclose(end)
            return mem.transport.pair(context)

        def do_listen(self, context: ListenContext) -> Listener:
            umbel.hclose(umbel.listen("mem://below"))
            return super().do_listen(context)

    with transport_at_hand(Layered(mem.transport), "layered"):
        verdict = try_behaviour(BEHAVIOURS[80], Subject("layered://{name}"), driver)

    assert (verdict.state, verdict.reason) == ("passed", "")


def test_a_limit_of_0_is_none() -> None:
    (verdict,) = check("mem", [1], ["threads"], limit=0).verdicts

    assert verdict.state == "passed"


def test_unknown_schemes_behaviours_and_drivers_are_refused() -> None:
    with pytest.raises(UnknownTransportError, match="nothing"):
        check("nothing")
    with pytest.raises(OSError, match="the number 82: they are 1 to 81"):
        check("mem", [1, 82], ["threads"])
    with pytest.raises(OSError, match="called smoke: there are threads, cor"):
        check("mem", [1], ["smoke", "trio"])
