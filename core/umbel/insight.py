"""The census: which handles are open, and what each coroutine waits for."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType
from typing import NamedTuple

from umbel.coroutines.bundles import Bundle
from umbel.coroutines.channel import ChannelEnd
from umbel.coroutines.whereabouts import LiveCoroutine, list_coroutines
from umbel.errors import BrokenStreamError, EndOfStreamError
from umbel.handle import Resource, open_handles, where_opened
from umbel.streams.connection import Connection
from umbel.streams.listener import Listening
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
    """List what is open and what runs in this process.

    Each thread tells of its own coroutines, so their lines are from nearly the same
    moment. It takes 0.1 s if one does not answer, since it computes, or is in a call
    that is not umbel's: of that one only the line where it is is known. One that has
    100,000 coroutines takes a second to tell of them.

    Returns:
        the census; print it, or look into its lists.

    Source:
        own; libdill has goredump for it.
    """
    handles = [_describe_handle(resource) for resource in list(open_handles.values())]
    return Census(handles, list_coroutines())


def census_on_signal(number: int = signal.SIGQUIT) -> None:
    """Print the census to standard error at each signal. Call it in the main thread.

    Args:
        number: of the signal; SIGQUIT is what Control and backslash send.

    Raises:
        ValueError: this is not the main thread, or there is no such signal.
        OSError: EINVAL, that signal can't be handled.

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
