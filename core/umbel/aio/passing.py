"""Awaitable verbs that pass descriptors and handles; contracts as of `umbel`'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import umbel.passing as blocking
from umbel.aio.entry import run_blocking
from umbel.aio.handle import as_stream
from umbel.aio.listener import AnyListener, AsyncListenerHandle, as_async, as_either
from umbel.aio.stream import AnyStream, AsyncStreamHandle
from umbel.deadline import FOREVER
from umbel.streams.receiving import DEFAULT_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer


async def send_with_fds(
    handle: AnyStream, data: Buffer, fds: Sequence[int], deadline: int = FOREVER
) -> None:
    """Send bytes with descriptors, as `umbel.send_with_fds`."""
    await run_blocking(blocking.send_with_fds, as_stream(handle), data, fds, deadline)


async def receive_with_fds(
    handle: AnyStream,
    max_bytes: int = DEFAULT_SIZE,
    max_fds: int = blocking.MOST_DESCRIPTORS,
    deadline: int = FOREVER,
) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors with them, as `umbel.receive_with_fds`."""
    call = blocking.receive_with_fds
    return await run_blocking(call, as_stream(handle), max_bytes, max_fds, deadline)


async def send_handle(
    handle: AnyStream, moved: AnyStream | AnyListener, deadline: int = FOREVER
) -> None:
    """Move a stream or listener to the peer's process, as `umbel.send_handle`."""
    call = blocking.send_handle
    await run_blocking(call, as_stream(handle), as_either(moved), deadline)


async def receive_handle(
    handle: AnyStream, deadline: int = FOREVER
) -> AsyncStreamHandle | AsyncListenerHandle:
    """Receive a stream or listener, as `umbel.receive_handle`."""
    found = await run_blocking(blocking.receive_handle, as_stream(handle), deadline)
    return as_async(found)
