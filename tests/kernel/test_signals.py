"""Signals that end a program in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import umbel
from tests.support import Ends, python, run_python
from umbel.streams.connection import find_connection

ROOT = Path(__file__).parents[2]

SERVING = """
import sys
import umbel
umbel.exit_on_signal()
def serve(listener):
    for s in listener:
        umbel.hclose(s)
try:
    with umbel.ipc_listen(sys.argv[1]) as listener:
        with umbel.bundle() as b:
            b.go(serve, listener)
            print("ready", flush=True)
            if sys.argv[2] == "waits":
                umbel.msleep(-1)
            while True:
                umbel.yield_()
finally:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("how", ["waits", "works"])
def test_a_signal_runs_all_that_cleans_up(
    tmp_path: Path, number: int, how: str
) -> None:
    path = tmp_path / "x.sock"

    with python(SERVING, str(path), how) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 128 + number
    assert (out, err) == ("cleaned up\n", "")
    assert not path.exists()


def test_who_asks_for_it_twice_can_still_fork_and_be_ended() -> None:
    code = """
import os, signal
import umbel
umbel.exit_on_signal()
umbel.exit_on_signal(signal.SIGUSR1)
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
os.kill(os.getpid(), signal.SIGTERM)
umbel.msleep(umbel.within(20))
"""
    with python(code) as process:
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err) == (128 + signal.SIGTERM, "", "")


def test_a_forked_child_is_ended_at_once_whichever_thread_forked_it() -> None:
    code = """
import os, signal, threading, warnings
import umbel
umbel.exit_on_signal()
warnings.simplefilter("ignore", DeprecationWarning)  # of threads in what forks
def fork():
    pid = os.fork()
    if not pid:
        if signal.set_wakeup_fd(-1) == -1:  # not the parent's doorbell
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    ended.append(pid)
ended = []
fork()
forking = threading.Thread(target=fork)
forking.start()
forking.join()
assert len(ended) == 2
"""
    run_python(code)


def test_a_forked_child_keeps_what_was_installed_since() -> None:
    code = """
import os, signal
import umbel
umbel.exit_on_signal()
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
"""
    run_python(code)


@pytest.mark.parametrize("pause", [0, 0.2], ids=["at once", "later"])
@pytest.mark.parametrize("place", ["main", "coroutine"])
def test_a_worker_of_multiprocessing_is_ended_where_it_waits(
    place: str, pause: float
) -> None:
    code = """
import multiprocessing, signal, sys, time
import umbel
fork = multiprocessing.get_context("fork")
def work():
    queue = fork.SimpleQueue()
    worker = fork.Process(target=queue.get)
    worker.start()
    time.sleep(float(sys.argv[2]))
    worker.terminate()
    worker.join(10)
    status = worker.exitcode
    worker.kill()
    assert status == -signal.SIGTERM, status
umbel.exit_on_signal()
if sys.argv[1] == "main":
    work()
else:
    with umbel.go(work) as working:
        working.wait()
"""
    run_python(code, place, str(pause))


def test_a_forked_child_that_asks_for_it_is_interrupted_in_calls_only() -> None:
    code = """
import os, signal
import umbel
umbel.exit_on_signal()
pid = os.fork()
if not pid:
    umbel.exit_on_signal()
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        umbel.yield_()
    except SystemExit:
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    run_python(code)


def test_it_is_for_the_main_thread() -> None:
    caught: list[Exception] = []

    def call() -> None:
        try:
            umbel.exit_on_signal(signal.SIGUSR1)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

    assert len(caught) == 1


BEGIN = """
import os, signal, threading
import umbel
def kill(number):
    os.kill(os.getpid(), number)
"""

#: Main is told of something else in the same moment; what ends the program comes first.
MOMENTS = {
    "the other end of main's channel closes": """
umbel.exit_on_signal()
near, far = umbel.chmake()
def send_signal():
    umbel.yield_()
    kill(signal.SIGTERM)
    umbel.msleep(0)
def close():
    umbel.yield_()
    umbel.hclose(far)
def work():
    with umbel.bundle() as both:
        both.go(send_signal)
        both.go(close)
umbel.go(work)
for value in near:
    pass
""",
    "main's stream closes": """
umbel.exit_on_signal()
near, far = umbel.ipc_pair()
other, _ = umbel.ipc_pair()
def look():
    try:
        umbel.receive(other, deadline=0)
    except umbel.DeadlineError:
        pass
def work():
    umbel.msleep(umbel.within(0.02))
    umbel.bsend(far, b"x")
    look()
    umbel.hclose(near)
    kill(signal.SIGTERM)
    look()
umbel.go(work)
try:
    umbel.receive(near)
except OSError:
    pass
""",
    "a coroutine fails as it is canceled": """
umbel.exit_on_signal()
def work():
    try:
        umbel.msleep(-1)
    finally:
        raise ValueError("cleanup failed")
def send_signal():
    umbel.msleep(umbel.within(0.02))
    kill(signal.SIGTERM)
try:
    with umbel.bundle() as both:
        both.go(work)
        both.go(send_signal)
        umbel.msleep(-1)
except Exception as error:
    print("swallowed by", error)
""",
}


@pytest.mark.parametrize("code", MOMENTS.values(), ids=list(MOMENTS))
def test_what_ends_the_program_is_never_lost(code: str) -> None:
    code = BEGIN + code + "\numbel.msleep(umbel.within(0.5))\nprint('still alive')\n"
    with python(code) as program:
        out, err = program.communicate(timeout=20)

    assert (program.returncode, out) == (143, ""), err


@pytest.mark.parametrize("wanted", ["accept", "chrecv", "bundle_wait"])
def test_a_handler_that_closes_or_starts_something_wakes_who_waits(wanted: str) -> None:
    code = (
        BEGIN
        + """
import sys
near, far = umbel.chmake()
listener = umbel.listen("mem://x")
bundle = umbel.bundle()
bundle.go(near.receive)
ended = umbel.go(lambda: None)
def handle(*_):
    if sys.argv[1] == "accept":
        umbel.hclose(listener)
    elif sys.argv[1] == "chrecv":
        far.close()
    else:
        bundle.go(far.close)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    if sys.argv[1] == "accept":
        umbel.accept(listener, umbel.within(20))
    elif sys.argv[1] == "chrecv":
        near.receive(umbel.within(20))
    else:
        umbel.bundle_wait(bundle, umbel.within(20))
except (umbel.BadHandleError, umbel.EndOfStreamError, umbel.BusyError) as error:
    print(type(error).__name__, flush=True)
except ExceptionGroup as group:
    print(type(group.exceptions[0]).__name__, flush=True)
os._exit(0)
"""
    )
    with python(code, wanted) as program:
        out, err = program.communicate(timeout=10)

    expected = {"accept": "BadHandleError"}.get(wanted, "EndOfStreamError")
    assert out.strip() == expected, err


def test_ctrl_c_while_a_block_ends_leaves_nothing_running() -> None:
    code = (
        BEGIN
        + """
def work():
    try:
        umbel.msleep(-1)
    finally:
        time.sleep(0.4)
        print("cleaned up", flush=True)
def other(b):
    b.go(work)
    try:
        umbel.bundle_wait(b)
    except umbel.BadHandleError:
        pass
    left.wait()
import time
left = threading.Event()
try:
    with umbel.bundle() as b:
        thread = threading.Thread(target=other, args=(b,))
        thread.start()
        umbel.msleep(umbel.within(0.1))
        threading.Timer(0.1, kill, [signal.SIGINT]).start()
        raise ValueError
except KeyboardInterrupt:
    print("left", flush=True)
finally:
    left.set()
thread.join()
"""
    )
    with python(code) as program:
        out, err = program.communicate(timeout=20)

    assert out.split("\n")[-3:] == ["cleaned up", "left", ""], err


def test_a_handler_that_wakes_and_raises_ends_that_wait_only() -> None:
    code = """
import signal, umbel
listener = umbel.listen("mem://x")
def interrupt(*_):
    umbel.hclose(listener)
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    umbel.accept(listener)
except KeyboardInterrupt:
    pass
start = umbel.now()
umbel.msleep(start + 50)
assert umbel.now() >= start + 50
"""
    run_python(code)


def test_a_handler_that_closes_and_raises_fails_no_later_call() -> None:
    code = """
import signal, umbel
left, _right = umbel.ipc_pair()
other, peer = umbel.ipc_pair()
def interrupt(*_):
    umbel.hclose(left)
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    umbel.receive(left)
except KeyboardInterrupt:
    pass
answering = umbel.go(lambda: (umbel.yield_(), umbel.bsend(peer, b"x")))
assert umbel.brecv(other, 1) == b"x"
for handle in (answering, other, peer, _right):
    umbel.hclose(handle)
"""
    run_python(code)


def test_a_handler_that_closes_as_a_receive_ends_fails_no_other_call(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = ends
    connection = find_connection(left)
    receive = connection.try_receive
    assert receive is not None

    def receive_and_close(max_bytes: int) -> bytes | None:
        data = receive(max_bytes)
        umbel.hclose(left)  # as a handler would, just then
        return data

    monkeypatch.setattr(connection, "try_receive", receive_and_close)
    umbel.bsend(right, b"x")

    assert umbel.receive(left) == b"x"
    umbel.msleep(0)


def test_after_a_handler_has_raised_in_a_wait_coroutines_start_at_once() -> None:
    code = """
import signal, umbel
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    umbel.msleep(-1)
except KeyboardInterrupt:
    pass
ran = []
started = umbel.go(ran.append, 1)
assert ran == [1]
umbel.hclose(started)
"""
    run_python(code)


def test_what_a_handler_starts_goes_on() -> None:
    code = """
import signal, umbel
left, right = umbel.ipc_pair()
def work():
    umbel.yield_()
    umbel.yield_()
    umbel.bsend(right, b"x")
started = umbel.bundle()
signal.signal(signal.SIGALRM, lambda *_: started.go(work))
signal.setitimer(signal.ITIMER_REAL, 0.05)
start = umbel.now()
assert umbel.brecv(left, 1, umbel.within(20)) == b"x"
assert umbel.now() - start < 10_000
for handle in (started, left, right):
    umbel.hclose(handle)
"""
    run_python(code)


def test_who_is_woken_while_a_handler_waits_is_woken() -> None:
    code = """
import os, signal, umbel
read, write = os.pipe()
bundle = umbel.go(umbel.msleep, -1)
def close(*_):
    umbel.hclose(bundle)
    os.write(write, b"x")
signal.signal(signal.SIGALRM, close)
signal.setitimer(signal.ITIMER_REAL, 0.05)
umbel.fdin(read, umbel.within(20))
"""
    run_python(code)


STRANGER = """
import sys, asyncio, signal, threading, time, umbel
runtime, when, to = sys.argv[1:]
if runtime == "trio":
    import trio as library
else:
    library = asyncio
if when == "before":
    umbel.exit_on_signal()
def tell():
    # As the kernel may: the main thread sleeps on, unless its doorbell is heard.
    time.sleep(0.05)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(30)
async def main():
    if when == "inside":
        umbel.exit_on_signal()
    print("ready", flush=True)
    if to == "another":
        threading.Thread(target=tell, daemon=True).start()
    await library.sleep(30)
    print("slept", flush=True)
if runtime == "trio":
    library.run(main)
elif runtime == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("runtime", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize(
    ("when", "to"), [("before", "main"), ("inside", "main"), ("inside", "another")]
)
def test_a_loop_that_has_not_met_umbel_hears_of_a_signal(
    runtime: str, when: str, to: str
) -> None:
    pytest.importorskip(runtime)
    with python(STRANGER, runtime, when, to) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if to == "main":
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)

    assert (process.returncode, out) == (128 + signal.SIGTERM, "")


def test_nor_does_the_second_loop_of_a_thread_sleep_on() -> None:
    code = """
import asyncio, umbel
from umbel import aio
umbel.exit_on_signal()
async def first():
    await aio.msleep(0)
async def second():
    print("ready", flush=True)
    await asyncio.sleep(30)
    print("slept", flush=True)
asyncio.run(first())
asyncio.run(second())
"""
    with python(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)

    assert (process.returncode, out) == (128 + signal.SIGTERM, "")


_TRIES = {
    "receive": "umbel.receive(quiet, 1, 0)",
    "chrecv": "umbel.chrecv(end, 0)",
    "chsend": "umbel.chsend(end, 1, 0)",
    "choose": "umbel.choose([umbel.Recv(end)], 0)",
    "bundle_wait": "umbel.bundle_wait(sleeping, 0)",
}


@pytest.mark.parametrize("verb", sorted(_TRIES))
@pytest.mark.parametrize("deadline", ["-1", "umbel.within(10)"])
def test_a_handler_that_tries_in_vain_leaves_the_wait_as_it_was(
    verb: str, deadline: str
) -> None:
    code = f"""
import signal, threading
import umbel
near, far = umbel.pair("ipc")
quiet, _quiet = umbel.pair("ipc")
end, _end = umbel.chmake()
sleeping = umbel.go(umbel.msleep, -1)
def try_it(number, frame):
    try:
        {_TRIES[verb]}
    except umbel.DeadlineError:
        threading.Thread(target=far.send, args=(b"hello",)).start()
signal.signal(signal.SIGALRM, try_it)
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(umbel.receive(near, 100, {deadline}))
for handle in (near, far, quiet, _quiet, end, _end, sleeping):
    umbel.hclose(handle)
"""
    assert run_python(code) == "b'hello'\n"


@pytest.mark.parametrize(
    ("closed", "call", "error"),
    [
        ("stream", "stream.receive(10, umbel.within(5))", "BadHandleError"),
        ("stream", "umbel.fdin(stream.fileno(), umbel.within(5))", "BadHandleError"),
        ("near", "near.receive(umbel.within(5))", "BadHandleError"),
        ("far", "near.receive(umbel.within(5))", "EndOfStreamError"),
        ("far", "near.send(1, umbel.within(5))", "EndOfStreamError"),
    ],
)
def test_who_is_closed_while_a_handler_tries_something_else_is_told_not_the_handler(
    closed: str, call: str, error: str
) -> None:
    code = f"""
import signal
import threading
import umbel
near, far = umbel.chmake()
stream, peer = umbel.pair()
other, other_peer = umbel.pair()
def handler(number, frame):
    closer = threading.Thread(target=umbel.hclose, args=({closed},))
    closer.start()
    wait_until_told()
    try:
        other.receive(10, 0)
    except OSError as error:
        print(type(error).__name__)
def wait_until_told():
    while not umbel._kernel.current.current_hub().inbox.calls:
        pass
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    print({call})
except OSError as error:
    print(type(error).__name__)
for handle in (near, far, stream, peer, other, other_peer):
    if handle is not {closed}:
        umbel.hclose(handle)
"""
    assert run_python(code) == f"DeadlineError\n{error}\n"


@pytest.mark.parametrize(
    "call",
    [
        "other.receive(umbel.within(5))",
        "umbel.choose([umbel.Recv(other)], umbel.within(5))",
    ],
    ids=["receive", "choose"],
)
def test_a_handler_can_not_wait_for_a_channel_while_another_call_waits(
    call: str,
) -> None:
    code = f"""
import signal
import umbel
near, far = umbel.chmake()
other, _other = umbel.chmake()
def wait(number, frame):
    try:
        {call}
    except RuntimeError as error:
        print("handler" in str(error))
        sending.append(umbel.go(far.send, 42))
sending = []
signal.signal(signal.SIGALRM, wait)
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(near.receive(umbel.within(20)))
sending[0].close()
for handle in (near, far, other, _other):
    umbel.hclose(handle)
"""
    assert run_python(code) == "True\n42\n"


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("near.receive(umbel.within(20))", "'a value'"),
        ("umbel.choose([umbel.Recv(near)], umbel.within(20))", "(0, 'a value')"),
        ("far.send('lost', umbel.within(0.01))", "DeadlineError"),
    ],
)
def test_a_handler_that_tries_a_channel_as_a_call_begins_to_wait_takes_not_its_wait(
    call: str, given: str
) -> None:
    code = f"""
import signal
import sys
import umbel
near, far = umbel.chmake(str)
other, _other = umbel.chmake(str)
def handler(number, frame):
    try:
        other.receive(0)
    except umbel.DeadlineError:
        pass
signal.signal(signal.SIGUSR1, handler)
def interrupt(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "park":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGUSR1)
def send():
    umbel.msleep(umbel.within(0.05))
    far.send("a value")
sending = umbel.go(send) if "lost" not in {call!r} else umbel.bundle()
sys.setprofile(interrupt)
try:
    print(repr({call}))
except umbel.DeadlineError as error:
    print(type(error).__name__)
for handle in (near, far, other, _other, sending):
    umbel.hclose(handle)
"""
    assert run_python(code) == f"{given}\n"


def test_a_handler_that_waits_and_then_wakes_somebody_is_heard() -> None:
    code = """
import signal
import umbel
near, far = umbel.chmake()
def wait_and_end(number, frame):
    umbel.msleep(umbel.within(0.01))
    far.done()
signal.signal(signal.SIGALRM, wait_and_end)
ended = umbel.go(umbel.msleep, umbel.within(0.01))  # whose carrier polls from then on
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    near.receive(umbel.within(20))
except umbel.EndOfStreamError:
    print("heard")
for handle in (near, far, ended):
    umbel.hclose(handle)
"""
    assert run_python(code) == "heard\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "act",
    [
        "extra.go(note)",
        "umbel.bundle_go_threadsafe(extra, note_later)",
    ],
)
def test_a_storm_of_handlers_loses_no_coroutine(act: str) -> None:
    code = f"""
import signal
import umbel
extra = umbel.bundle()
ran = []
begun = 0
is_inside = False
def note():
    ran.append(1)
def note_later():
    umbel.yield_()
    note()
def handle(number, frame):
    global begun, is_inside
    if is_inside:
        return
    is_inside = True
    begun += 1
    {act}
    is_inside = False
def echo(stream):
    for data in stream:
        stream.send(data)
    stream.close()
def ask(stream):
    for _ in range(200):
        stream.send(b"ping")
        assert umbel.brecv(stream, 4, umbel.within(20)) == b"ping"
    stream.close(umbel.within(20))
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
until = umbel.within(2)
while umbel.now() < until:
    with umbel.bundle() as talk:
        for _ in range(3):
            left, right = umbel.pair("ipc")
            talk.go(echo, right)
            talk.go(ask, left)
            talk.go(umbel.yield_)
signal.setitimer(signal.ITIMER_REAL, 0)
until = umbel.within(20)
while len(ran) < begun and umbel.now() < until:
    umbel.msleep(umbel.within(0.01))  # what the last one has posted begins and ends
extra.wait(until)
extra.close()
assert begun
assert len(ran) == begun, (len(ran), begun)
"""
    run_python(code)


START = """
def handler(number, frame):
    extra.go(ran.append, "of the handler")
"""
POST = """
def handler(number, frame):
    umbel.bundle_go_threadsafe(extra, ran.append, "of the handler")
    try:
        near.receive(0)  # which looks at what was posted
    except umbel.DeadlineError:
        pass
"""


@pytest.mark.parametrize("handler", [START, POST], ids=["start", "post"])
def test_what_a_handler_starts_just_as_another_gets_its_carrier_waits_for_that(
    handler: str,
) -> None:
    code = f"""
import signal
import umbel
from umbel._kernel import carriers
ran = []
extra = umbel.bundle()
near, far = umbel.chmake()
{handler}
signal.signal(signal.SIGUSR1, handler)
current_carrier = carriers.current_carrier
def interrupted():
    carriers.current_carrier = current_carrier
    signal.raise_signal(signal.SIGUSR1)
    return current_carrier()
carriers.current_carrier = interrupted
with umbel.go(ran.append, "of main"):
    umbel.yield_()
extra.close()
umbel.hclose(near)
umbel.hclose(far)
print(ran)
"""
    assert run_python(code) == "['of main', 'of the handler']\n"


@pytest.mark.parametrize(
    ("moment", "call"),
    [
        ("return add", "umbel.msleep(umbel.within(0.01))"),
        ("call park", "stream.receive(10, umbel.within(5))"),
        ("call park", "work.wait(umbel.within(5))"),
    ],
)
def test_what_comes_to_a_handler_just_before_a_wait_is_not_slept_over(
    moment: str, call: str
) -> None:
    code = f"""
import signal
import sys
import threading
import time
import umbel
stream, peer = umbel.pair()
other, other_peer = umbel.pair()
may_end, work = threading.Event(), umbel.bundle()
def begin():
    work.go(may_end.wait)
thread = threading.Thread(target=begin)
def handler(number, frame):
    peer.send(b"x")
    may_end.set()
    thread.join()
    time.sleep(0.02)
    try:
        other.receive(10, 0)
    except umbel.DeadlineError:
        pass
signal.signal(signal.SIGUSR1, handler)
def interrupt(frame, event, argument):
    if [event, frame.f_code.co_name] == {moment.split()}:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGUSR1)
thread.start()
while not "1 running" in str(umbel.handle.open_handles[work].describe()):
    time.sleep(0.001)
signal.alarm(10)
sys.setprofile(interrupt)
{call}
print("told")
for handle in (stream, peer, other, other_peer, work):
    umbel.hclose(handle)
"""
    assert run_python(code) == "told\n"


def test_a_handler_that_waits_leaves_the_news_to_the_wait_it_interrupted() -> None:
    code = """
import signal
import umbel
near, far = umbel.chmake()
def send():
    umbel.msleep(umbel.within(0.1))
    far.send(11)
sending = umbel.go(send)
handler = lambda number, frame: umbel.msleep(umbel.within(0.2))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(near.receive(umbel.within(20)))
for handle in (near, far, sending):
    umbel.hclose(handle)
"""
    assert run_python(code) == "11\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_to_all_of_the_prefork_example_loses_nobody(
    tmp_path: Path, number: int
) -> None:
    path = tmp_path / "x.sock"
    command = [sys.executable, str(ROOT / "examples" / "prefork.py"), str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        clients = [umbel.ipc_connect(path, umbel.within(10)) for _ in range(6)]
        umbel.msleep(umbel.within(0.2))  # all are accepted
        for _ in range(2):  # as if the workers had heard of it before their supervisor
            os.killpg(process.pid, number)
            umbel.msleep(umbel.within(0.1))
        for client in clients:
            client.send(b"a")
        answers = [client.receive(3, umbel.within(10)) for client in clients]
        for client in clients:
            umbel.hclose(client)
        assert process.wait(30) == 0

    assert answers == [b"<a>"] * 6
    assert not path.exists()


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_loop_that_listened_to_signals_leaves_them_to_us(when: str) -> None:
    code = """
import asyncio, signal, sys, threading, time
import umbel
if sys.argv[1] == "before":
    umbel.exit_on_signal()
async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    if sys.argv[1] == "within":
        umbel.exit_on_signal()
asyncio.run(main())
hub = umbel._kernel.current.current_hub()
def end():
    while not hub._is_asleep:
        time.sleep(0.01)
    time.sleep(0.1)  # it is about to sleep: later is harder
    # It comes to this thread, and interrupts no call of the main one.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=end).start()
start = umbel.now()
try:
    umbel.msleep(umbel.within(20))
finally:
    print(umbel.now() - start < 15_000)
"""
    with python(code, when) as process:
        out, err = process.communicate(timeout=40)

    assert (process.returncode, out, err) == (128 + signal.SIGTERM, "True\n", "")


def test_the_deadline_of_a_call_that_ctrl_c_has_ended_ends_no_later_one(
    ends: Ends,
) -> None:
    left, right = ends
    deadline = umbel.within(0.1)

    def send_afterwards() -> None:
        umbel.msleep(deadline + 10)
        umbel.bsend(right, b"x")

    interrupt = signal.pthread_kill, (threading.get_ident(), signal.SIGINT)
    threading.Timer(0.02, *interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        umbel.receive(left, 1, deadline)

    with umbel.go(send_afterwards):
        assert umbel.receive(left, 1) == b"x"
