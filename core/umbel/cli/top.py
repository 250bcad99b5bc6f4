"""`umbel top`: the census of another process, over and over."""

from __future__ import annotations

import errno
import json
import os
import sys
import time

import umbel
from umbel.coroutines.whereabouts import LiveCoroutine
from umbel.errors import system_error
from umbel.insight import Census, OpenHandle

#: Long enough for a process that is busy, which serves the census in a thread.
PATIENCE = 5.0
#: Bytes of a census at most: half a million lines.
MOST = 1 << 26
CLEAR = "\x1b[H\x1b[2J"


def show_census(address: str, interval: float, *, once: bool) -> int:
    """Print the census of the process that serves it at *address*.

    Args:
        address: such as "ipc:///run/user/1000/umbel-1000-4242.sock".
        interval: seconds between two looks.
        once: stop after the first.

    Returns:
        the exit status.
    """
    while True:
        pid, census = fetch_census(address)
        start = CLEAR if sys.stdout.isatty() and not once else ""
        told = f"process {pid} at {time.strftime('%H:%M:%S')}: {census}"
        print(start + "\n".join(map(_printable, told.split("\n"))))
        sys.stdout.flush()
        if once:
            return 0
        umbel.msleep(umbel.within(interval))


def fetch_census(address: str) -> tuple[object, Census]:
    """Ask a process for its census; give its pid, too."""
    try:
        answer = _ask(address)
    except umbel.DeadlineError as error:
        message = (
            f"{address} did not answer within {PATIENCE:.0f} s: that process is stuck, "
            "or no census is there"
        )
        raise umbel.DeadlineError(message) from error
    try:
        pid, handles, coroutines = json.loads(answer)
        return pid, Census(
            [OpenHandle(*line) for line in handles],
            [LiveCoroutine(*line) for line in coroutines],
        )
    except (ValueError, TypeError, RecursionError):
        raise _no_census(address) from None


def _ask(address: str) -> bytes:
    deadline = umbel.within(PATIENCE)
    answer = bytearray()
    with umbel.connect(address, deadline) as stream:
        _require_trust(address, stream)
        umbel.done(stream, deadline)
        while chunk := umbel.receive(stream, deadline=deadline):
            answer += chunk
            if len(answer) > MOST:
                raise _no_census(address)
    return bytes(answer)


def _require_trust(address: str, stream: umbel.StreamHandle) -> None:
    # A census lets in its own user and root. Who answers another has taken its name.
    if os.geteuid() == 0 or umbel.query(stream, umbel.PeerIdentity).uid == os.geteuid():
        return
    message = f"what answers at {address} is another user's: no census would"
    raise system_error(errno.EPERM, message)


def _printable(line: str) -> str:
    # What another process says is not for our terminal to obey.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _no_census(address: str) -> OSError:
    message = (
        f"no census there: what answers at {address} is something else; the process to "
        "look at must run with UMBEL_PLUGINS=census"
    )
    return system_error(errno.EPROTO, message)
