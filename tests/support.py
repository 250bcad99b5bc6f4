"""What several tests need: peers, ways to wait for a state, and ways to look inside."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import umbel
from umbel._kernel.current import current_hub
from umbel.aio.hosting import Host
from umbel.handle import open_handles
from umbel.streams.connection import Connection, find_connection
from umbel.streams.listener import Listening

#: Seconds after which a state that a test waits for is given up.
PATIENCE = 20.0
#: Milliseconds by which a deadline may be missed on an idle machine.
SLACK = 20

Ends = tuple[umbel.StreamHandle, umbel.StreamHandle]
#: Runs the main task of a loop.
RunLoop = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def calls(*given: Callable[[], object]) -> tuple[Callable[[], object], ...]:
    """Type several functions alike, for a loop over them."""
    return given


def pattern(size: int) -> bytes:
    """Make *size* bytes in which every position can be told from its neighbours."""
    return array.array("I", range(size // 4 + 1)).tobytes()[:size]


def watched_stream() -> umbel.StreamHandle:
    """Give a stream that this thread's hub watches; its peer has gone."""
    near, far = umbel.ipc_pair()
    with suppress(umbel.DeadlineError):
        umbel.receive(near, deadline=0)
    umbel.hclose(far)
    return near


def soon() -> int:
    """Give a deadline that a test reaches only if something hangs."""
    return umbel.within(PATIENCE)


def open_descriptors() -> set[int]:
    """List the descriptors of this process."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # that of the listing itself
        found.add(int(name))
    return found


def wait_until(condition: Callable[[], object], what: str = "the state") -> None:
    """Return once *condition* holds, which another thread or process brings about."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"{what} never came"
        time.sleep(0.001)


def is_listening(path: Path) -> bool:
    """Tell whether someone listens at *path*: its file is there a moment earlier."""
    try:
        table = Path("/proc/net/unix").read_text(errors="replace")
    except OSError:
        return path.exists()
    # The flag is __SO_ACCEPTCON, the last column the path.
    rows = [row.split() for row in table.splitlines()[1:]]
    return any(row[-1] == str(path) and row[3] == "00010000" for row in rows)


def is_blocked(handle: int) -> bool:
    """Tell whether someone waits in a call on *handle*."""
    found = open_handles.get(handle)
    if isinstance(found, Connection):
        users = (found.sender, found.receiver)
        return any(user is not None and user.is_parked for user in users)
    assert isinstance(found, Listening)
    return found.accepter is not None and found.accepter.is_parked


def wait_until_blocked(handle: int) -> None:
    """Return once another thread waits in a call on *handle*."""
    wait_until(lambda: is_blocked(handle), "the blocked call")


def turn() -> None:
    """Let the hub, in a task of its host's, see now what has come."""
    host = current_hub().host
    assert isinstance(host, Host)
    host.turn()


def have_the_next_wait(left: umbel.StreamHandle, right: umbel.StreamHandle) -> None:
    """Leave nothing to be received on *left*, and no reason to look first."""
    umbel.bsend(right, b"-")
    assert umbel.receive(left) == b"-"
    find_connection(left).waits_left = 255


def lateness(call: Callable[[int], object], milliseconds: int = 60) -> int:
    """Tell how many ms after its deadline *call* gave ETIMEDOUT, at best of five.

    A busy machine makes anything late now and then, but never early.
    """
    found = []
    for _ in range(5):
        deadline = umbel.now() + milliseconds
        try:
            call(deadline)
        except umbel.DeadlineError:
            pass
        else:
            raise AssertionError("no ETIMEDOUT")
        late = umbel.now() - deadline
        assert late >= 0, "ETIMEDOUT came too early"
        found.append(late)
        if late <= SLACK:
            break
    return min(found)


def tcp_pair() -> Ends:
    """Connect two streams over the loopback."""
    with umbel.listen("tcp://127.0.0.1:0") as listener:
        client = umbel.connect(listener.address, soon())
        return client, umbel.accept(listener, soon())


def fill(stream: umbel.StreamHandle) -> int:
    """Send until there is no more room, breaking that direction; count the bytes."""
    try:
        umbel.bsend(stream, bytes(64 << 20), 0)
    except umbel.DeadlineError as error:
        return error.bytes_done
    raise AssertionError("64 MiB found room")


def drain(stream: umbel.StreamHandle) -> bytes:
    """Receive to the end of the stream."""
    return b"".join(stream)


@contextmanager
def python(code: str, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run *code* in a process of its own, with its input and output at hand."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_python(code: str, *arguments: str, **env: str) -> str:
    """Run *code* in a process of its own; give what it printed. It must succeed."""
    with python(code, *arguments, **env) as process:
        out, err = process.communicate(timeout=PATIENCE * 2)
        assert process.returncode == 0, err
        assert "Warning" not in err, err
        return out


def run_in_own_network(setup: str, code: str) -> str:
    """Run *code* in a network of its own, made by *setup*; give what it printed.

    The test is skipped where nobody may make one.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
    try:
        subprocess.run(
            [*namespace, setup], check=True, capture_output=True, timeout=PATIENCE
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nobody may make a network of his own here")
    run = f'{setup} && exec "$0" -c "$1"'
    made = subprocess.run(
        [*namespace, run, sys.executable, code],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


@contextmanager
def at_each_loop_back(code: CodeType, call: Callable[[], object]) -> Iterator[None]:
    """Run *call* wherever *code* jumps back, as Python runs signals' handlers there."""
    last = -1

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal last
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "call":
            last = -1
        elif event == "opcode":
            if frame.f_lasti < last:
                call()
            last = frame.f_lasti
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(old)
