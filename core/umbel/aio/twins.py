"""Awaitable twins of the other verbs that can wait; their contracts hold here too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Final, Never, ParamSpec, TypeVar

import umbel.channel
import umbel.coroutine
import umbel.fd
import umbel.ipaddr
import umbel.threads
from umbel.aio.hosts import run_blocking

P = ParamSpec("P")
R = TypeVar("R")


def _twin(function: Callable[P, R]) -> Callable[P, Coroutine[object, Never, R]]:
    @wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        return await run_blocking(function, *args, **kwargs)

    return awaited


bundle_wait: Final = _twin(umbel.coroutine.bundle_wait)
msleep: Final = _twin(umbel.coroutine.msleep)
fdin: Final = _twin(umbel.fd.fdin)
fdout: Final = _twin(umbel.fd.fdout)
chsend: Final = _twin(umbel.channel.chsend)
chrecv: Final = _twin(umbel.channel.chrecv)
choose: Final = _twin(umbel.channel.choose)
ipaddr_remote: Final = _twin(umbel.ipaddr.ipaddr_remote)
ipaddr_remotes: Final = _twin(umbel.ipaddr.ipaddr_remotes)
to_thread: Final = _twin(umbel.threads.to_thread)
