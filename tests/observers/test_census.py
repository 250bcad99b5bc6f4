"""The census, its signal, its plugin and `umbel top`."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

import umbel
from tests.support import Ends, python, run_python, wait_until
from umbel import aio
from umbel.bridges import as_asyncio_transport
from umbel.cli.top import fetch_census
from umbel.coroutines import whereabouts
from umbel.coroutines.member import Member
from umbel.plugins import remove_plugin
from umbel.spi import WaitQueue
from umbel_plugins import faults
from umbel_plugins.census import PATIENCE

HERE = re.escape(__file__)


def test_a_stream_is_listed_with_its_state_and_bytes(ends: Ends, scheme: str) -> None:
    left, right = ends
    umbel.bsend(left, b"12345")
    umbel.done(left)
    umbel.brecv(right, 5)
    umbel.receive(right)

    lines = {line.number: line for line in umbel.census().handles}

    assert lines[left].kind == "byte stream"
    assert (lines[left].state, lines[left].bytes_out) == ("done", 5)
    assert (lines[right].state, lines[right].bytes_in) == ("ended", 5)
    assert lines[left].address.startswith(scheme)


def test_broken_directions_are_told(ends: Ends) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.brecv(ends[0], 1, 0)

    (line,) = (found for found in umbel.census().handles if found.number == ends[0])

    assert line.state == "in broken"


def test_every_kind_of_handle_is_listed_with_its_place() -> None:
    listener = umbel.listen("mem://x")
    channel = umbel.chmake()
    bundle = umbel.bundle()
    umbel.chdone(channel[0])

    lines = {line.number: line for line in umbel.census().handles}

    assert lines[listener].address == "mem://x"
    assert [lines[end].kind for end in channel] == ["channel", "channel"]
    assert [lines[end].state for end in channel] == ["done", "open"]
    assert lines[bundle].state == "0 running"
    assert re.fullmatch(rf"{HERE}:\d+", lines[listener].opened)
    for handle in (listener, bundle, *channel):
        umbel.hclose(handle)


def test_a_listener_that_is_accepting_is_told_from_one_that_is_not() -> None:
    def states() -> list[str]:
        return [line.state for line in umbel.census().handles if line.number == x]

    with umbel.listen("mem://x") as x:
        assert states() == ["open"]
        with umbel.go(umbel.accept, x) as accepting:
            assert states() == ["accepting"]
            umbel.hclose(accepting)


def test_a_coroutine_is_listed_with_what_it_waits_on_and_where(ends: Ends) -> None:
    def wait() -> None:
        umbel.receive(ends[0])

    b = umbel.go(wait)
    coroutines = umbel.census().coroutines
    umbel.hclose(b)

    (line,) = (found for found in coroutines if found.bundle == b)
    first = wait.__code__.co_firstlineno
    assert "wait" in line.name
    assert line.state == "waiting"
    assert line.waits_on == f"receive({int(ends[0])})"
    assert line.place == f"{__file__}:{first + 1}"
    assert line.started == f"{__file__}:{first + 3}"
    assert line.waiting_ms >= 0


def test_main_is_listed_as_running() -> None:
    mains = [line for line in umbel.census().coroutines if line.name == "main"]

    assert [(line.thread, line.state) for line in mains] == [("MainThread", "running")]


def test_what_is_ready_is_told_from_what_waits() -> None:
    b = umbel.go(umbel.yield_)
    states = [line.state for line in umbel.census().coroutines if line.bundle == b]
    umbel.hclose(b)

    assert states == ["ready"]


def test_the_coroutines_of_other_threads_are_listed() -> None:
    left, right = umbel.ipc_pair()
    thread = threading.Thread(target=umbel.receive, args=(left,), name="other thread")
    thread.start()

    def find() -> list[str]:
        lines = umbel.census().coroutines
        return [x.waits_on for x in lines if x.thread == "other thread"]

    wait_until(lambda: find() == [f"receive({int(left)})"])
    umbel.bsend(right, b"x")
    thread.join()
    umbel.hclose(left)
    umbel.hclose(right)


class Unfinished:
    """Can't be shown, as many an object that was not made completely."""

    def __call__(self) -> None:
        umbel.msleep(-1)

    def __repr__(self) -> str:
        raise AttributeError


def pause(_: object) -> None:
    umbel.msleep(-1)


@pytest.mark.parametrize("is_partial", [False, True])
def test_what_cannot_be_shown_disturbs_no_other_thread(*, is_partial: bool) -> None:
    errors: list[BaseException] = []
    is_over = threading.Event()

    def work() -> None:
        try:
            with umbel.bundle() as b:
                b.go(partial(pause, Unfinished()) if is_partial else Unfinished())
                while not is_over.is_set():
                    umbel.msleep(umbel.within(0.001))
                b.abort()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="works on")
    thread.start()
    try:
        shown = pause.__qualname__ if is_partial else f"{__name__}.Unfinished"
        wait_until(
            lambda: (
                shown
                in " ".join(
                    c.name for c in umbel.census().coroutines if c.thread == thread.name
                )
            )
        )
    finally:
        is_over.set()
        thread.join()
    assert errors == []


def test_all_coroutines_are_looked_through_once_however_many_threads_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    list_all = whereabouts._all_members

    def count() -> list[Member]:
        looks.append(threading.get_ident())
        return list_all()

    monkeypatch.setattr(whereabouts, "_all_members", count)
    queue = WaitQueue()
    ticket = queue.ticket()
    threads = [
        threading.Thread(target=queue.wait, args=(ticket, umbel.within(20)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(umbel.census().coroutines) > len(threads))
    looks.clear()

    umbel.census()
    queue.wake_all()
    for thread in threads:
        thread.join()

    assert looks == [threading.get_ident()]


class SlowToTell:
    """A function whose name takes longer than a thread has to begin to answer."""

    def __repr__(self) -> str:
        time.sleep(2 * whereabouts.PATIENCE)
        return "slow"

    def __call__(self) -> None:
        umbel.msleep(-1)


def test_a_thread_that_has_much_to_tell_is_waited_for() -> None:
    has_begun, is_over = threading.Event(), threading.Event()

    def work() -> None:
        with umbel.bundle() as b:
            b.go(SlowToTell())
            has_begun.set()
            umbel.to_thread(is_over.wait, umbel.within(20))
            b.abort()

    thread = threading.Thread(target=work)
    thread.start()
    has_begun.wait()
    lines = umbel.census().coroutines
    is_over.set()
    thread.join()

    assert [line.waits_on for line in lines if line.name == "slow"] == ["msleep()"]


def test_of_a_thread_that_does_not_answer_it_is_told_where_it_is() -> None:
    is_busy, may_go_on = threading.Event(), threading.Event()

    def compute() -> None:
        umbel.yield_()
        is_busy.set()
        may_go_on.wait()  # no call of umbel's

    def work() -> None:
        with umbel.bundle() as b:
            b.go(umbel.msleep, umbel.within(20))
            b.go(compute)
            umbel.msleep(umbel.within(0.01))
            b.abort()

    thread = threading.Thread(target=work, name="busy", daemon=True)
    thread.start()
    is_busy.wait()
    for _ in range(3):  # asked once, and not waited for again
        lines = {line.name: line for line in umbel.census().coroutines}
        busy = lines[f"{compute.__qualname__}"]
        assert (busy.thread, busy.state) == ("busy", "running")
        assert "threading.py" in busy.place
        assert lines["msleep"].state == "waiting"
        assert lines["msleep"].place == ""
    may_go_on.set()
    thread.join()
    assert "busy" not in {line.thread for line in umbel.census().coroutines}


def test_who_has_answered_late_is_asked_again() -> None:
    is_over, may_go_on, ends = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        umbel.now()
        may_go_on.wait()
        umbel.msleep(umbel.within(0.01))
        is_over.set()
        with umbel.bundle() as b:
            b.go(umbel.msleep, -1)
            while not ends.is_set():
                umbel.msleep(umbel.within(0.001))
            b.abort()

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: thread.name in {c.thread for c in umbel.census().coroutines})
    may_go_on.set()
    is_over.wait()
    try:
        (line,) = (c for c in umbel.census().coroutines if c.name == "msleep")
        assert line.waits_on == "msleep()"
    finally:
        ends.set()
        thread.join()


@pytest.mark.slow
def test_a_census_bears_with_threads_that_run_on_meanwhile() -> None:
    code = """
import sys, threading, time, umbel
end = time.monotonic() + 3
sys.setswitchinterval(1e-6)

def run():
    while time.monotonic() < end:
        with umbel.bundle() as b:
            for _ in range(30):
                b.go(umbel.yield_)
                b.go(umbel.msleep, umbel.within(0.0005))
            umbel.bundle_wait(b)

threads = [threading.Thread(target=run) for _ in range(3)]
for thread in threads:
    thread.start()
while time.monotonic() < end:
    umbel.census()
for thread in threads:
    thread.join()
print("fine")
"""
    assert run_python(code) == "fine\n"


def test_a_census_is_printed_as_tables(ends: Ends) -> None:
    text = str(umbel.census())

    assert "2 open handles" in text
    assert re.search(r"number +kind +address +state +bytes in", text)
    assert re.search(rf"{int(ends[0])} +byte stream", text)
    assert "1 coroutines" in text


def test_a_signal_prints_the_census() -> None:
    code = """
import umbel
umbel.census_on_signal()
with umbel.listen("mem://watched") as listener:
    b = umbel.go(umbel.accept, listener)
    print("ready", flush=True)
    umbel.fdin(0)
    umbel.hclose(b)
"""
    with python(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGQUIT)
        _, err = process.communicate("\n", timeout=30)

    assert process.returncode == 0
    assert "mem://watched" in err
    assert "accept(" in err


def test_a_signal_amid_the_programs_own_output_disturbs_nothing() -> None:
    code = """
import sys, umbel
umbel.census_on_signal()
for _ in range(2000):
    print("x" * 100, file=sys.stderr)
print("goes on")
"""
    with python(code, PYTHONUNBUFFERED="") as process:
        assert process.stderr is not None
        wait_until(lambda: is_stuck(process), "a write that waits")
        process.send_signal(signal.SIGQUIT)
        out, err = process.communicate(timeout=30)

    assert out == "goes on\n"
    assert err.count("open handles") == 1
    assert err.count("x" * 100) == 2000


def is_stuck(process: subprocess.Popen[str]) -> bool:
    """Tell whether a process sleeps, and its standard error is full."""
    assert process.stderr is not None
    answer = bytearray(4)
    fcntl.ioctl(process.stderr, termios.FIONREAD, answer)
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]
    return state == "S" and int.from_bytes(answer, sys.byteorder) > 60000


#: 120 is Python's own word for output that it could not flush at the end.
ANY_END = (0, 120)


@pytest.mark.parametrize("errors", ["2>&-", "2>/dev/full"])
def test_without_a_standard_error_the_signal_disturbs_nothing(errors: str) -> None:
    code = """
import os, signal, umbel
umbel.census_on_signal()
os.kill(os.getpid(), signal.SIGQUIT)
print("goes on")
"""
    command = ["sh", "-c", f'exec "$0" -c "$1" {errors}', sys.executable, code]

    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30)

    assert done.stdout == "goes on\n"
    assert done.returncode in ANY_END


@pytest.mark.parametrize("errors", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(
    "settings",
    [
        {"UMBEL_PLUGINS": "census", "UMBEL_CENSUS": "tcp://127.0.0.1:1"},
        {"UMBEL_PLUGINS": "census", "UMBEL_CENSUS": "ipc:///none/x.sock"},
        {"UMBEL_PLUGINS": "census", "UMBEL_CENSUS": "no-scheme"},
        {"UMBEL_PLUGINS": "metrics", "UMBEL_METRICS": "192.0.2.1:1"},
    ],
    ids=["another address", "no folder", "no address", "no metrics"],
)
def test_an_observer_that_can_tell_nobody_disturbs_nothing(
    errors: str, settings: dict[str, str]
) -> None:
    code = "import umbel; umbel.pair(); print('goes on')"
    command = ["sh", "-c", f'exec "$0" -c "$1" {errors}', sys.executable, code]

    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        env={**os.environ, **settings},
    )

    assert done.stdout == "goes on\n"
    assert done.returncode in ANY_END


WATCHED = """
import umbel
umbel.load_plugins("census")
with umbel.listen("mem://watched") as listener:
    b = umbel.go(umbel.accept, listener)
    print("ready", flush=True)
    umbel.fdin(0)
    umbel.hclose(b)
"""


def top(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "umbel", "top", address, *options],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_top_shows_the_census_of_another_process(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/c.sock"

    with python(WATCHED, UMBEL_CENSUS=address) as process:
        assert process.stdout is not None
        process.stdout.readline()
        mode = (tmp_path / "c.sock").stat().st_mode
        found = [top(address, "--once") for _ in range(2)]
        _, err = process.communicate("\n", timeout=30)

    assert stat.S_IMODE(mode) == 0o600
    for result in found:
        assert result.returncode == 0, result.stderr
        assert f"process {process.pid}" in result.stdout
        assert "mem://watched" in result.stdout
        assert "accept(" in result.stdout
    assert (process.returncode, err) == (0, "")
    assert os.listdir(tmp_path) == []


def test_the_census_may_be_at_an_abstract_name() -> None:
    address = f"ipc:@umbel-census-{os.getpid()}"

    with python(WATCHED, UMBEL_CENSUS=address) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = top(address, "--once")
        _, err = process.communicate("\n", timeout=30)

    assert (found.returncode, err) == (0, ""), found.stderr
    assert f"process {process.pid}" in found.stdout


def test_top_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/c.sock"

    with python(WATCHED, UMBEL_CENSUS=address) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with subprocess.Popen(
            [sys.executable, "-m", "umbel", "top", address, "--interval", "0.01"],
            stdout=subprocess.PIPE,
            text=True,
        ) as watcher:
            assert watcher.stdout is not None
            seen = 0
            while seen < 3:
                seen += watcher.stdout.readline().startswith("process ")
            watcher.send_signal(signal.SIGINT)
            watcher.communicate(timeout=30)
        process.communicate("\n", timeout=30)

    assert watcher.returncode == 128 + signal.SIGINT


def test_top_of_a_process_that_serves_none_says_so(tmp_path: Path) -> None:
    result = top(f"ipc:{tmp_path}/nothing.sock", "--once")

    assert result.returncode == 2
    assert "ENOENT" in result.stderr


@pytest.mark.parametrize(
    "answer",
    [b"", b"hello", b"\xff\xfe", b"[1, 2]", b'{"a": 1}', b"[1, [[2]], []]", b"7"],
    ids=repr,
)
def test_top_of_what_is_no_census_says_so(tmp_path: Path, answer: bytes) -> None:
    address = f"ipc:{tmp_path}/x.sock"

    def serve(stream: umbel.StreamHandle) -> None:
        assert umbel.receive(stream) == b""
        umbel.bsend(stream, answer)

    with umbel.listen(address) as listener, umbel.go(umbel.serve, listener, serve):
        result = umbel.to_thread(lambda: top(address, "--once"))
        umbel.hclose(listener)

    assert result.returncode == errno.EPROTO
    assert result.stderr.startswith("umbel top: EPROTO: ")
    assert "no census there" in result.stderr
    assert "UMBEL_PLUGINS=census" in result.stderr
    assert result.stderr.count("\n") == 1


def test_top_escapes_what_its_output_has_no_letters_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    address = f"ipc:{tmp_path}/x.sock"
    line = [5, "listener", "mem://grün", "open", 0, 0, ""]

    def serve(stream: umbel.StreamHandle) -> None:
        assert umbel.receive(stream) == b""
        umbel.bsend(stream, json.dumps([7, [line], []]).encode())

    with umbel.listen(address) as listener, umbel.go(umbel.serve, listener, serve):
        result = umbel.to_thread(lambda: top(address, "--once"))
        umbel.hclose(listener)

    assert result.returncode == 0, result.stderr
    assert "mem://gr\\xfcn" in result.stdout


def test_top_of_what_never_ends_says_that_it_is_no_census(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("umbel.cli.top.MOST", 100_000)

    def serve(stream: umbel.StreamHandle) -> None:
        while True:
            umbel.bsend(stream, bytes(10_000))

    listener = umbel.listen("mem://endless")
    with umbel.go(umbel.serve, listener, serve):
        with pytest.raises(OSError, match="no census there") as caught:
            fetch_census("mem://endless")
        umbel.hclose(listener)

    assert caught.value.errno == errno.EPROTO


def test_top_of_what_says_nothing_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.cli.top.PATIENCE", 0.05)

    with (
        umbel.listen("mem://silent"),
        pytest.raises(umbel.DeadlineError, match="no census"),
    ):
        fetch_census("mem://silent")


def test_a_place_that_is_taken_does_not_stop_the_program(tmp_path: Path) -> None:
    (tmp_path / "c.sock").write_text("taken")

    with python(WATCHED, UMBEL_CENSUS=f"ipc:{tmp_path}/c.sock") as process:
        _, err = process.communicate("\n", timeout=30)

    assert process.returncode == 0
    assert "no census" in err


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "mem://census"])
def test_a_place_that_keeps_nobody_out_does_not_stop_the_program(address: str) -> None:
    with python(WATCHED, UMBEL_CENSUS=address) as process:
        _, err = process.communicate("\n", timeout=30)

    assert process.returncode == 0
    assert err == f"umbel: no census at {address}: only ipc keeps other users out\n"


SHORT = """
import os, resource, umbel
umbel.load_plugins("census")
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
kept = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
try:
    while True:
        kept.append(os.dup(0))
except OSError:
    print("short", flush=True)
umbel.fdin(0)
os.read(0, 1)
for fd in kept:
    os.close(fd)
resource.setrlimit(resource.RLIMIT_NOFILE, limit)
print("enough", flush=True)
umbel.fdin(0)
"""


def test_the_census_outlives_a_lack_of_descriptors(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/c.sock"

    with python(SHORT, UMBEL_CENSUS=address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "short\n"
        with umbel.connect(address) as early:
            process.stdin.write("x")
            process.stdin.flush()
            assert process.stdout.readline() == "enough\n"
            umbel.done(early)
            assert umbel.receive(early, 1, umbel.within(20)) == b"["
            for _ in early:
                pass
        pid, _ = fetch_census(address)
        process.communicate("\n", timeout=30)

    assert pid == process.pid


def test_silent_clients_hold_up_neither_others_nor_the_end(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/c.sock"

    with python(WATCHED, UMBEL_CENSUS=address) as process:
        assert process.stdout is not None
        process.stdout.readline()
        silent = [umbel.connect(address) for _ in range(3)]
        began = umbel.now()
        pid, _ = fetch_census(address)
        process.communicate("\n", timeout=30)
        took = umbel.now() - began

    assert pid == process.pid
    assert took < 1000 * PATIENCE  # of one of them, and the machine may be busy
    for stream in silent:
        umbel.hclose(stream)


@pytest.mark.parametrize("plugin", ["metrics", "faults"])
def test_what_is_waited_on_is_the_programs_call_also_through_a_plugin(
    plugin: str,
) -> None:
    pytest.importorskip("prometheus_client")
    umbel.load_plugins(plugin)
    try:
        left, right = umbel.pair("ipc")

        def fill() -> None:
            umbel.brecv(left, bytearray(9))

        b = umbel.go(fill)
        coroutines = umbel.census().coroutines
        umbel.hclose(b)
        umbel.hclose(left)
        umbel.hclose(right)
    finally:
        remove_plugin(plugin)

    (line,) = (found for found in coroutines if found.bundle == b)
    assert line.waits_on == f"brecv({int(left)})"
    assert line.place == f"{__file__}:{fill.__code__.co_firstlineno + 1}"


def test_top_shows_names_that_the_terminal_cannot(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/c.sock"
    code = "def caf\u00e9(l): umbel.accept(l)\n" + WATCHED.replace(
        "umbel.go(umbel.accept,", "umbel.go(caf\u00e9,"
    )

    with python(code, UMBEL_CENSUS=address) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = subprocess.run(
            [sys.executable, "-m", "umbel", "top", address, "--once"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        )
        process.communicate("\n", timeout=30)

    assert result.returncode == 0, result.stderr
    assert r"caf\xe9" in result.stdout


def test_coroutines_of_bundles_without_a_handle_are_listed_too() -> None:
    channel, other = umbel.chmake()

    def names() -> list[str]:
        return [line.name.rpartition(".")[2] for line in umbel.census().coroutines]

    def wait() -> None:
        with pytest.raises(umbel.EndOfStreamError):
            umbel.chrecv(channel)

    def tell(seen: list[list[str]]) -> None:
        try:
            umbel.msleep(-1)
        finally:
            seen.append(names())

    with pytest.warns(ResourceWarning, match="bundle"):
        umbel.go(wait)
    forgotten = names()
    seen: list[list[str]] = []
    closing = umbel.go(tell, seen)
    umbel.hclose(closing)
    umbel.hclose(other)
    umbel.yield_()

    assert "wait" in forgotten
    assert "tell" in seen[0]
    assert "wait" not in names()
    umbel.hclose(channel)


def test_the_handle_of_a_method_is_told(ends: Ends) -> None:
    with umbel.go(ends[0].receive) as waiting:
        (line,) = [c for c in umbel.census().coroutines if c.bundle]

        assert line.waits_on == f"receive({int(ends[0])})"
        umbel.hclose(waiting)


def test_top_gives_a_terminal_nothing_to_obey(tmp_path: Path) -> None:
    address = f"ipc:{tmp_path}/x.sock"

    def serve(stream: umbel.StreamHandle) -> None:
        assert umbel.receive(stream) == b""
        umbel.bsend(stream, json.dumps(["\x1b]0;mine\x07\x9b1m\nx", [], []]).encode())

    with umbel.listen(address) as listener, umbel.go(umbel.serve, listener, serve):
        result = umbel.to_thread(lambda: top(address, "--once"))
        umbel.hclose(listener)

    assert result.returncode == 0
    assert r"\x1b]0;mine\x07\x9b1m" in result.stdout
    assert all(line.isprintable() for line in result.stdout.split("\n"))


def test_top_believes_no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with umbel.listen("mem://other") as listener:
        uid = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: uid + 1)
        with pytest.raises(OSError, match="another user's") as caught:
            fetch_census(str(listener.address))

    assert caught.value.errno == errno.EPERM


#: More than is joined, or copied, of a list.
MUCH = bytes(20_000)


@pytest.fixture(params=["plain", "without attempts"])
def counted(request: pytest.FixtureRequest, scheme: str) -> Iterator[Ends]:
    """Give a pair of streams; the second kind makes no attempts."""
    is_plain = request.param == "plain"
    with nullcontext() if is_plain else faults.plan():
        left, right = umbel.pair(scheme)
    yield left, right
    umbel.hclose(left)
    umbel.hclose(right)
    if not is_plain:
        remove_plugin(faults.NAME)


@pytest.mark.parametrize(
    "send",
    [
        lambda s: umbel.bsend(s, MUCH),
        lambda s: umbel.bsendl(s, [MUCH[:1], MUCH[1:]]),
        lambda s: asyncio.run(aio.bsend(s, MUCH)),
        lambda s: asyncio.run(aio.bsendl(s, [MUCH[:1], MUCH[1:]])),
        lambda s: umbel.send_with_fds(s, MUCH, [0]),
    ],
    ids=["bsend", "bsendl", "aio.bsend", "aio.bsendl", "send_with_fds"],
)
def test_whatever_sends_is_counted(
    counted: Ends, send: Callable[[umbel.StreamHandle], None]
) -> None:
    left, _ = counted

    send(left)

    (line,) = (found for found in umbel.census().handles if found.number == left)
    assert line.bytes_out == len(MUCH)


@pytest.mark.parametrize(
    "receive",
    [
        lambda s: umbel.brecv(s, len(MUCH)),
        lambda s: umbel.brecv(s, bytearray(len(MUCH))),
        lambda s: umbel.brecv(s, umbel.Skip(len(MUCH))),
        lambda s: asyncio.run(aio.brecv(s, len(MUCH))),
        lambda s: asyncio.run(aio.brecv(s, bytearray(len(MUCH)))),
        umbel.receive_with_fds,
    ],
    ids=["brecv", "fill", "skip", "aio.brecv", "aio.fill", "receive_with_fds"],
)
def test_whatever_is_received_is_counted(
    counted: Ends, receive: Callable[[umbel.StreamHandle], object]
) -> None:
    left, right = counted
    umbel.bsend(left, MUCH)

    receive(right)

    (line,) = (found for found in umbel.census().handles if found.number == right)
    assert line.bytes_in == len(MUCH)


@pytest.mark.parametrize(
    "receive",
    [umbel.brecv, lambda *args: asyncio.run(aio.brecv(*args))],
    ids=["blocking", "awaited"],
)
def test_what_a_brecv_has_lost_is_counted(
    ends: Ends, receive: Callable[[umbel.StreamHandle, int, int], object]
) -> None:
    left, right = ends
    umbel.bsend(left, b"12")

    with pytest.raises(umbel.DeadlineError):
        receive(right, 3, umbel.within(0.01))

    (line,) = (found for found in umbel.census().handles if found.number == right)
    assert (line.state, line.bytes_in) == ("in broken", 2)


def test_what_a_protocol_writes_is_counted(ends: Ends) -> None:
    left, _ = ends

    async def main() -> None:
        transport = as_asyncio_transport(left, asyncio.Protocol())
        transport.write(b"12345")
        (line,) = (h for h in umbel.census().handles if h.number == transport.handle)
        assert line.bytes_out == 5
        transport.abort()

    asyncio.run(main())
