"""Awaitable twins of the other verbs that can wait; their contracts hold here too."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Sequence,
)
from functools import wraps
from typing import Final, Never, ParamSpec, TypeVar

import umbel.coroutines.channel
import umbel.coroutines.choice
import umbel.coroutines.go
import umbel.coroutines.threads
import umbel.fd
import umbel.ipaddr
from umbel.aio.entry import run_blocking
from umbel.aio.iteration import Beginning, Items
from umbel.coroutines.channel import Inbound, Outbound
from umbel.coroutines.choice import Clause
from umbel.deadline import FOREVER
from umbel.errors import EndOfStreamError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _twin(function: Callable[P, R]) -> Callable[P, Coroutine[object, Never, R]]:
    @wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        return await run_blocking(function, *args, **kwargs)

    return awaited


bundle_wait: Final = _twin(umbel.coroutines.go.bundle_wait)
msleep: Final = _twin(umbel.coroutines.go.msleep)
fdin: Final = _twin(umbel.fd.fdin)
fdout: Final = _twin(umbel.fd.fdout)
ipaddr_remote: Final = _twin(umbel.ipaddr.ipaddr_remote)
ipaddr_remotes: Final = _twin(umbel.ipaddr.ipaddr_remotes)
to_thread: Final = _twin(umbel.coroutines.threads.to_thread)


async def chsend(handle: Outbound[T], value: T, deadline: int = FOREVER) -> None:
    """Hand *value* to a receiver, as `umbel.chsend`.

    If canceled, what was received at that very moment stays sent.
    """
    await run_blocking(umbel.coroutines.channel.chsend, handle, value, deadline)


async def chrecv(handle: Inbound[T], deadline: int = FOREVER) -> T:
    """Receive a value, as `umbel.chrecv`. If canceled, it loses nothing."""
    return await run_blocking(umbel.coroutines.channel.chrecv, handle, deadline)


def values(handle: Inbound[T]) -> AsyncIterator[T]:
    """Receive until the end: `async for` over a channel."""
    return Items(_values, handle)


async def _values(
    handle: Inbound[T], beginning: Beginning[Inbound[T], T]
) -> AsyncGenerator[T, None]:
    with beginning:
        while True:
            try:
                value = await chrecv(handle)
            except EndOfStreamError:
                return
            yield value


async def choose(
    clauses: Sequence[Clause[T]], deadline: int = FOREVER
) -> tuple[int, T | None]:
    """Do the first clause that can go, as `umbel.choose`.

    If canceled, it has received nothing; but what it sent at that very moment stays
    sent.
    """
    return await run_blocking(umbel.coroutines.choice.choose, clauses, deadline)
