"""uvicorn over umbel: an ASGI application, served at any address.

    server = UmbelServer(uvicorn.Config(app), umbel.listen("ipc:/run/app.sock"))
    server.run()                # or, where a loop runs: await server.serve()

The listener decides who may connect, for example by `allow=umbel.same_user`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import umbel
from umbel.aio import AsyncListenerHandle
from umbel.bridges import create_server
from umbel.spi import check_seconds

try:
    import uvicorn
except ImportError as error:
    message = f"the server needs uvicorn ({error}): pip install 'umbel[integrations]'"
    raise ImportError(message) from error

if TYPE_CHECKING:
    from umbel.typing import StreamServer

#: Seconds that a client which keeps an idle connection has to let it go at the end.
GRACE: Final = 1.0
#: Seconds between two looks at `force_exit`: as uvicorn's own.
LOOK: Final = 0.1


class UmbelServer(uvicorn.Server):
    """A uvicorn server that listens where umbel does.

    All of uvicorn's settings apply, except those for sockets (host, port, uds, fd,
    backlog), for TLS, which is refused, and for several processes and reloading, which
    uvicorn's command line does.

    Args:
        config: uvicorn's settings, with the application.
        handle: a listener. Owned by the server: closed when it ends.
        limit: how many connections may be open at once; others wait in the backlog.
        grace: as of `umbel.bridges.create_server`.

    Raises:
        ValueError: the settings ask for TLS, or *grace* is negative.
        BadHandleError: EBADF, *handle* is not open.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        handle: umbel.ListenerHandle | AsyncListenerHandle,
        *,
        limit: int | None = None,
        grace: float = GRACE,
    ) -> None:
        if config.is_ssl:
            message = "HTTP over umbel is spoken in the clear: leave ssl_* out"
            raise ValueError(message)
        check_seconds(grace, "grace")
        super().__init__(config)
        self._handle = umbel.hown(handle)
        self._limit = limit
        self._grace = grace
        self._server: StreamServer | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set, or a signal comes."""
        try:
            await super().serve(sockets)
        finally:
            self.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and listen."""
        await super().startup(sockets=sockets or [])  # a list: or it opens one itself
        try:
            self._server = await create_server(
                self._handle, self._make_protocol, limit=self._limit, grace=self._grace
            )
        except BaseException:
            await self.lifespan.shutdown()
            raise
        # It is closed and waited for as each of them is.
        self.servers.append(cast("asyncio.Server", self._server))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the clients finish; but abort them as soon as `force_exit` is set."""
        watcher = asyncio.create_task(self._abort_if_forced())
        try:
            await super().shutdown(sockets)
        finally:
            watcher.cancel()

    async def _abort_if_forced(self) -> None:
        while not self.force_exit:
            await asyncio.sleep(LOOK)
        if self._server is not None:
            self._server.abort_clients()  # uvicorn waits for them all the same

    def _make_protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def close(self) -> None:
        """Stop listening. A second call has no effect. `serve` calls it at the end."""
        try:
            umbel.hclose(self._handle)
        except umbel.BadHandleError:
            pass  # it was closed in good order
