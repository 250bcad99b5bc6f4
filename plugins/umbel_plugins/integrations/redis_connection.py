"""redis-py over umbel: its connections, blocking and for asyncio.

    pool = redis.ConnectionPool(
        connection_class=UmbelConnection, address="ipc:/run/redis/redis.sock"
    )
    redis.Redis.from_pool(pool).get("key")

For `redis.asyncio` use `AsyncUmbelConnection`, in its own ConnectionPool. The blocking
one uses a socket (`umbel.bridges.as_socket`): it needs a stream with a descriptor, and
blocks the whole thread. The other one works over any stream.
"""

from __future__ import annotations

import socket
from typing import Any, final

import umbel
from umbel.bridges import as_socket, open_connection

try:
    from redis.asyncio.connection import AbstractConnection as AsyncConnection
    from redis.connection import AbstractConnection
except ImportError as error:
    message = f"this needs redis-py ({error}): pip install 'umbel[integrations]'"
    raise ImportError(message) from error


@final
class UmbelConnection(AbstractConnection):
    """A redis-py connection to *address*.

    Args:
        address: of the server, such as "ipc:/run/redis/redis.sock".
        **settings: as for every redis-py connection.
    """

    def __init__(self, *, address: str | umbel.Address, **settings: object) -> None:
        self.address = address
        self.port = 0  # it is asked for where an error is counted
        super().__init__(**settings)  # type: ignore[arg-type]  # redis-py's to check

    @property
    def host(self) -> str:
        """Where it is connected, for its errors."""
        return str(self.address)

    @host.setter
    def host(self, value: str) -> None:
        """Ignore it: a server that tells its clients to move names no umbel address."""

    def repr_pieces(self) -> list[tuple[str, object]]:
        """Tell what its repr says."""
        return [("address", self.host), ("db", self.db)]

    def _connect(self) -> socket.socket:
        # What is late is a TimeoutError here and there.
        deadline = _deadline(self.socket_connect_timeout)
        stream = umbel.connect(self.address, deadline)
        try:
            sock = as_socket(stream)
        except BaseException:
            umbel.hclose(stream)
            raise
        sock.settimeout(self.socket_timeout)
        return sock

    def _host_error(self) -> str:
        return self.host


@final
class AsyncUmbelConnection(AsyncConnection):
    """As `UmbelConnection`, for `redis.asyncio`."""

    def __init__(self, *, address: str | umbel.Address, **settings: object) -> None:
        self.address = address
        super().__init__(**settings)  # type: ignore[arg-type]  # redis-py's to check

    def repr_pieces(self) -> list[tuple[str, Any]]:
        """Tell what its repr says."""
        return [("address", str(self.address)), ("db", self.db)]

    async def _connect(self) -> None:
        deadline = _deadline(self.socket_connect_timeout)
        self._reader, self._writer = await open_connection(self.address, deadline)

    def _host_error(self) -> str:
        return str(self.address)


def _deadline(timeout: float | None) -> int:
    return umbel.FOREVER if timeout is None else umbel.within(timeout)
