"""umbel's verbs for asyncio and trio: awaitable, over the same handles and transports.

    from umbel import aio

    async def answer(stream: aio.AsyncStreamHandle) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk)

    async def main() -> None:
        async with aio.listen("ipc:x.sock") as listener:
            await aio.serve(listener, answer)

Each verb that can wait is `async def` here, with the parameters, results and errors of
its twin in `umbel`; those that never wait (`listen`, `pair`, `ipc_listen`, …) are plain
functions. Deadlines work as everywhere; the loop's own timeouts and cancel scopes work
too, and raise the loop's own exceptions. If canceled, `receive` and `accept` lose
nothing; `bsend` and `brecv` break their direction, as after a timeout; `close` closes
all the same. All handles share one table: a thread may send on a stream while an
asyncio task receives from it.

From the first call on, the thread's hub is a guest of the loop, so that umbel's
coroutines (`umbel.go`) run beside its tasks. `run_blocking` runs code that uses umbel's
blocking verbs in a task, without a thread; in such code, and in coroutines, `wait`
waits for something of the loop's.
"""

from umbel.aio import chunks as _chunks  # noqa: F401 - sets `async for`
from umbel.aio.entry import run_blocking
from umbel.aio.handle import close
from umbel.aio.ipc import (
    ipc_accept,
    ipc_accept_mem,
    ipc_close,
    ipc_connect,
    ipc_connect_mem,
    ipc_done,
    ipc_fromfd,
    ipc_fromfd_mem,
    ipc_listen,
    ipc_listen_mem,
    ipc_listener_fromfd,
    ipc_listener_fromfd_mem,
    ipc_pair,
    ipc_pair_mem,
    ipc_recvfd,
    ipc_sendfd,
    tcp_accept,
    tcp_close,
    tcp_connect,
    tcp_done,
    tcp_fromfd,
    tcp_listen,
    tcp_listener_fromfd,
)
from umbel.aio.listener import (
    AsyncListenerHandle,
    accept,
    as_async,
    as_blocking,
    connect,
    listen,
    pair,
)
from umbel.aio.passing import (
    receive_handle,
    receive_with_fds,
    send_handle,
    send_with_fds,
)
from umbel.aio.receiving import brecv, brecvl, receive
from umbel.aio.sending import bsend, bsendl, done, flush
from umbel.aio.serving import serve
from umbel.aio.stream import AsyncStreamHandle
from umbel.aio.twins import (
    bundle_wait,
    choose,
    chrecv,
    chsend,
    fdin,
    fdout,
    ipaddr_remote,
    ipaddr_remotes,
    msleep,
    to_thread,
)
from umbel.aio.waiting import wait

__all__ = [
    "AsyncListenerHandle",
    "AsyncStreamHandle",
    "accept",
    "as_async",
    "as_blocking",
    "brecv",
    "brecvl",
    "bsend",
    "bsendl",
    "bundle_wait",
    "choose",
    "chrecv",
    "chsend",
    "close",
    "connect",
    "done",
    "fdin",
    "fdout",
    "flush",
    "ipaddr_remote",
    "ipaddr_remotes",
    "ipc_accept",
    "ipc_accept_mem",
    "ipc_close",
    "ipc_connect",
    "ipc_connect_mem",
    "ipc_done",
    "ipc_fromfd",
    "ipc_fromfd_mem",
    "ipc_listen",
    "ipc_listen_mem",
    "ipc_listener_fromfd",
    "ipc_listener_fromfd_mem",
    "ipc_pair",
    "ipc_pair_mem",
    "ipc_recvfd",
    "ipc_sendfd",
    "listen",
    "msleep",
    "pair",
    "receive",
    "receive_handle",
    "receive_with_fds",
    "run_blocking",
    "send_handle",
    "send_with_fds",
    "serve",
    "tcp_accept",
    "tcp_close",
    "tcp_connect",
    "tcp_done",
    "tcp_fromfd",
    "tcp_listen",
    "tcp_listener_fromfd",
    "to_thread",
    "wait",
]
