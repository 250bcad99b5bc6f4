"""The census: which handles are open, and what each coroutine waits for."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from time import monotonic_ns
from types import FrameType
from typing import NamedTuple

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import all_hubs
from umbel._kernel.hub import Hub
from umbel._kernel.switch import frame_of
from umbel.bundles import UNLISTED, Bundle, Task
from umbel.channel import ChannelEnd
from umbel.connection import Connection
from umbel.errors import BrokenStreamError, EndOfStreamError
from umbel.handle import Resource, open_handles, place_of, where_opened
from umbel.listener import Listening
from umbel.telling import say


class OpenHandle(NamedTuple):
    """One open handle.

    Attributes:
        number: the handle.
        kind: "byte stream", "listener", "bundle", "channel" or "object".
        address: where it is connected or listens; "" if nowhere.
        state: such as "open", "done", "ended", "broken", "3 running".
        bytes_in: received so far.
        bytes_out: sent so far.
        opened: "file:line" of the call that opened it.
    """

    number: int
    kind: str
    address: str
    state: str
    bytes_in: int
    bytes_out: int
    opened: str


class LiveCoroutine(NamedTuple):
    """One coroutine that has not ended.

    Attributes:
        thread: the name of its thread.
        name: of its function; "main" for the thread's own program.
        bundle: the last handle of its bundle; 0 for "main".
        state: "running", "ready" or "waiting".
        waits_on: the call that it waits in, such as "receive(5)"; "" if in none.
        place: "file:line" of that call, or of where it is.
        waiting_ms: how long it has been waiting, by the real clock; counted from the
            last time that its thread looked for events before it began to wait.
        started: "file:line" of the call that started it.
    """

    thread: str
    name: str
    bundle: int
    state: str
    waits_on: str
    place: str
    waiting_ms: int
    started: str


class Census(NamedTuple):
    """A snapshot of this process; `str` makes tables of it.

    Attributes:
        handles: by number.
        coroutines: of all threads.
    """

    handles: list[OpenHandle]
    coroutines: list[LiveCoroutine]

    def __str__(self) -> str:
        return (
            f"{len(self.handles)} open handles\n"
            f"{_table(OpenHandle._fields, self.handles)}\n"
            f"{len(self.coroutines)} coroutines\n"
            f"{_table(LiveCoroutine._fields, self.coroutines)}"
        )


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[str(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "".join(f"  {line.rstrip()}\n" for line in lines)


def census() -> Census:
    """List what is open and what runs in this process. Never blocks.

    Other threads go on meanwhile, so their lines are from nearly the same moment.

    Returns:
        the census; print it, or look into its lists.

    Source:
        own; libdill has goredump for it.
    """
    handles = [_describe_handle(resource) for resource in list(open_handles.values())]
    return Census(handles, list(_all_coroutines()))


def census_on_signal(number: int = signal.SIGQUIT) -> None:
    """Print the census to standard error at each signal. Call it in the main thread.

    Args:
        number: of the signal; SIGQUIT is what Control and backslash send.

    Source:
        own; the JVM and Go do it for SIGQUIT.
    """

    def show(_number: int, _frame: FrameType | None) -> None:
        say(census())

    signal.signal(number, show)


def _describe_handle(resource: Resource) -> OpenHandle:
    address, state, bytes_in, bytes_out = "", "open", 0, 0
    if isinstance(resource, Connection):
        address = str(resource.address)
        state = _state_of(resource)
        bytes_in, bytes_out = resource.bytes_in, resource.bytes_out
    elif isinstance(resource, Listening):
        address = str(resource.listener.address)
        state = "accepting" if resource.accepter is not None else "open"
    elif isinstance(resource, Bundle):
        state = f"{len(resource.running)} running"
    elif isinstance(resource, ChannelEnd):
        state = "done" if resource.outbound.has_ended else "open"
    return OpenHandle(
        resource.number,
        resource.noun,
        address,
        state,
        bytes_in,
        bytes_out,
        where_opened(resource),
    )


def _state_of(connection: Connection) -> str:
    words = []
    for error, ended, broken in (
        (connection.outbound_error, "done", "out broken"),
        (connection.inbound_error, "ended", "in broken"),
    ):
        if error is EndOfStreamError:
            words.append(ended)
        elif error is BrokenStreamError:
            words.append(broken)
    return ", ".join(words) or "open"


def _all_coroutines() -> Iterator[LiveCoroutine]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    tops = sys._current_frames()
    by_hub: dict[Hub, list[Coroutine]] = {hub: [hub.main] for hub in all_hubs()}
    listed = [b for b in list(open_handles.values()) if isinstance(b, Bundle)]
    for bundle in {*listed, *UNLISTED}:
        for task in list(bundle.running):
            by_hub.setdefault(task.hub, []).append(task)
    for hub, coroutines in by_hub.items():
        ready = set(hub.ready)
        for coroutine in coroutines:
            # Who polls for its hub has no frame of its own but the thread's.
            frame = frame_of(coroutine.carrier) or tops.get(hub.thread)
            yield _describe_coroutine(
                coroutine, names.get(hub.thread, "?"), frame, coroutine in ready
            )


def _describe_coroutine(
    coroutine: Coroutine, thread: str, frame: FrameType | None, is_ready: bool
) -> LiveCoroutine:
    call, place = _find_call(frame)
    is_waiting = coroutine.is_parked
    state = "waiting" if is_waiting else "ready" if is_ready else "running"
    task = coroutine if isinstance(coroutine, Task) else None
    return LiveCoroutine(
        thread,
        coroutine.name,
        0 if task is None else task.bundle.number,
        state,
        call if is_waiting else "",
        place,
        (monotonic_ns() - coroutine.parked_at) // 1_000_000 if is_waiting else 0,
        "" if task is None else place_of(task.started),
    )


def _find_call(frame: FrameType | None) -> tuple[str, str]:
    """Find the call of ours that a coroutine is in, and the user's line.

    The outermost one: what that calls may be a plugin's, or a transport's, which calls
    us in turn.
    """
    call = found = place = ""
    while frame is not None and frame.f_code is not Task.run.__code__:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ("umbel", "umbel_transports", "umbel_plugins"):
            handle = frame.f_locals.get("handle", frame.f_locals.get("self"))
            shown = str(int(handle)) if isinstance(handle, int) else ""
            call = f"{frame.f_code.co_name}({shown})"
        elif call or not place:
            found, place = call, f"{frame.f_code.co_filename}:{frame.f_lineno}"
            if not call:
                break  # it runs
            call = ""
        frame = frame.f_back
    return (found, place) if place else (call, "")  # its function is one of ours
