"""`umbel top`: the census of another process, over and over."""

from __future__ import annotations

import json
import sys
import time

import umbel
from umbel.insight import Census, LiveCoroutine, OpenHandle

#: Long enough for a process that is busy, which serves the census in a thread.
PATIENCE = 5.0
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
        print(f"{start}process {pid} at {time.strftime('%H:%M:%S')}: {census}")
        sys.stdout.flush()
        if once:
            return 0
        umbel.msleep(umbel.within(interval))


def fetch_census(address: str) -> tuple[int, Census]:
    """Ask a process for its census; give its pid, too."""
    deadline = umbel.within(PATIENCE)
    with umbel.connect(address, deadline) as stream:
        umbel.done(stream)
        chunks = []
        while chunk := umbel.receive(stream, deadline=deadline):
            chunks.append(chunk)
    pid, handles, coroutines = json.loads(b"".join(chunks))
    return pid, Census(
        [OpenHandle(*line) for line in handles],
        [LiveCoroutine(*line) for line in coroutines],
    )
