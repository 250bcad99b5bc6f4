"""census: lets `umbel top` look into this process.

    UMBEL_PLUGINS=census python program.py      # or umbel.load_plugins("census")

It listens on a socket that only the same user can open, and answers each connection
with the current census, as JSON. UMBEL_CENSUS names an address to use instead of
`default_address(pid)`.
"""

from __future__ import annotations

import json
import logging  # noqa: F401 - for `serve`, while there are descriptors to read it
import os
import tempfile
import threading
from contextlib import suppress

import umbel

# By name, so that they are imported now.
from umbel import census, serve
from umbel.spi import hookimpl, say

#: For a client that connects and then reads nothing.
PATIENCE = 5.0


def default_address(pid: int) -> umbel.Address:
    """Give the address at which the process of that pid answers."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    name = f"umbel-{os.getuid()}-{pid}.sock"
    return umbel.Address("ipc", os.path.join(folder, name))


class CensusPlugin:
    """Serves the census from a thread of its own."""

    def __init__(self) -> None:
        self._listener: umbel.ListenerHandle | None = None
        self._thread: threading.Thread | None = None
        self._asking: set[umbel.StreamHandle] = set()

    @hookimpl.start
    def start(self) -> None:
        """Begin to serve; an address that can't be is reported on standard error."""
        # Looking on is no reason to stop the program that is looked at.
        text = os.environ.get("UMBEL_CENSUS")
        try:
            address = (
                umbel.Address.parse(text) if text else default_address(os.getpid())
            )
        except OSError as error:
            say(f"umbel: no census at UMBEL_CENSUS={text}: {error}")
            return
        if address.scheme != "ipc":
            reason = "only ipc keeps other users out"
            say(f"umbel: no census at {address}: {reason}")
            return
        # An abstract name has no mode: there each client is looked at.
        is_file = not address.location.startswith("@")
        only_us = {"mode": 0o600} if is_file else {"allow": umbel.same_user}
        try:
            self._listener = umbel.listen(address, **only_us)
        except OSError as error:
            say(f"umbel: no census at {address}: {error}")
            return
        has_begun = threading.Event()
        self._thread = threading.Thread(
            target=self._serve,
            args=(self._listener, has_begun),
            name="umbel.census",
            daemon=True,
        )
        self._thread.start()
        has_begun.wait(PATIENCE)

    @hookimpl.stop
    def stop(self) -> None:
        """Stop serving."""
        if self._listener is not None and self._thread is not None:
            umbel.hclose(self._listener)
            for stream in tuple(self._asking):
                _hclose(stream)
            self._thread.join(PATIENCE)
            self._listener = self._thread = None

    def _serve(
        self, listener: umbel.ListenerHandle, has_begun: threading.Event
    ) -> None:
        umbel.now()  # makes this thread's hub: now, while there are descriptors
        has_begun.set()
        # Each client in a coroutine: one that is silent keeps nobody waiting. And while
        # no descriptor is left, accepting pauses.
        serve(listener, self._answer, grace=PATIENCE)

    def _answer(self, stream: umbel.StreamHandle) -> None:
        deadline = umbel.within(PATIENCE)
        self._asking.add(stream)
        try:
            umbel.bsend(stream, _encode(census()), deadline)
            umbel.done(stream, deadline)
            # Its end, waited for in a call that `stop` can end.
            umbel.receive(stream, 1, deadline)
        except OSError:
            pass  # who asked has gone, or stays for ever
        finally:
            self._asking.discard(stream)
            _hclose(stream)


def _hclose(stream: umbel.StreamHandle) -> None:
    with suppress(umbel.BadHandleError):  # the other one of the two was first
        umbel.hclose(stream)


def _encode(found: umbel.Census) -> bytes:
    return json.dumps([os.getpid(), found.handles, found.coroutines]).encode()


plugin = CensusPlugin()
