"""httpcore over umbel: what opens and moves the streams of its connection pools.

    pool = httpcore.ConnectionPool(network_backend=UmbelBackend("ipc:/run/app.sock"))
    pool.request("GET", "http://localhost/")

Every request goes to the one address, whatever host its URL names; the host is passed
on to the server. `UmbelBackend` blocks only the calling coroutine; `AsyncUmbelBackend`
is for asyncio and trio. Errors and timeouts are httpcore's own. HTTP is not encrypted:
an https URL is refused.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Never, TypeAlias, final

import umbel
from umbel import aio

try:
    import httpcore
except ImportError as error:
    message = f"HTTP needs httpcore ({error}): pip install 'umbel[integrations]'"
    raise ImportError(message) from error

#: Bytes of one send, which has the timeout for itself.
WRITE_SIZE: Final = 65536

SocketOptions: TypeAlias = Iterable[httpcore.SOCKET_OPTION] | None


@final
class UmbelBackend(httpcore.NetworkBackend):
    """Opens a stream to *address* for each connection of a pool.

    Args:
        address: of the server, such as "ipc:/run/app.sock".
        **options: of its transport, for each connect.
    """

    def __init__(self, address: str | umbel.Address, **options: object) -> None:
        self._address = address
        self._options = options

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> HttpStream:
        """Connect to the address, whatever *host* and *port* are."""
        return self._connect(self._address, timeout)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: SocketOptions = None,
    ) -> HttpStream:
        """Connect to the socket file that the pool was made for."""
        return self._connect(umbel.Address("ipc", path), timeout)

    def _connect(
        self, address: str | umbel.Address, timeout: float | None
    ) -> HttpStream:
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            deadline = _deadline(timeout)
            return HttpStream(umbel.connect(address, deadline, **self._options))

    def sleep(self, seconds: float) -> None:
        """Wait before a connection is tried again."""
        umbel.msleep(umbel.within(seconds))


@final
class HttpStream(httpcore.NetworkStream):
    """A stream of a pool; made by `UmbelBackend`."""

    def __init__(self, handle: umbel.StreamHandle) -> None:
        self._handle = handle

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive what there is, b"" at the end of the stream."""
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError):
            return umbel.receive(self._handle, max_bytes, _deadline(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*; *timeout* is for as long as nothing of it moves."""
        with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError):
            for start in range(0, len(buffer), WRITE_SIZE):
                piece = buffer[start : start + WRITE_SIZE]
                umbel.bsend(self._handle, piece, _deadline(timeout))

    def close(self) -> None:
        """Close hard: HTTP messages themselves say where they end."""
        _close(self._handle)

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Never:
        """Refuse TLS."""
        _refuse_tls(self._handle)

    def get_extra_info(self, info: str) -> object:
        """Give "is_readable", which shows a pool that the server has closed."""
        return _is_readable(self._handle) if info == "is_readable" else None


@final
class AsyncUmbelBackend(httpcore.AsyncNetworkBackend):
    """As `UmbelBackend`, for asyncio and trio."""

    def __init__(self, address: str | umbel.Address, **options: object) -> None:
        self._address = address
        self._options = options

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> AsyncHttpStream:
        """Connect to the address, whatever *host* and *port* are."""
        return await self._connect(self._address, timeout)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: SocketOptions = None,
    ) -> AsyncHttpStream:
        """Connect to the socket file that the pool was made for."""
        return await self._connect(umbel.Address("ipc", path), timeout)

    async def _connect(
        self, address: str | umbel.Address, timeout: float | None
    ) -> AsyncHttpStream:
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            deadline = _deadline(timeout)
            handle = await aio.connect(address, deadline, **self._options)
        return AsyncHttpStream(handle)

    async def sleep(self, seconds: float) -> None:
        """Wait before a connection is tried again."""
        await aio.msleep(umbel.within(seconds))


@final
class AsyncHttpStream(httpcore.AsyncNetworkStream):
    """A stream of a pool; made by `AsyncUmbelBackend`."""

    def __init__(self, handle: aio.AsyncStreamHandle) -> None:
        self._handle = handle

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive what there is, b"" at the end of the stream."""
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError):
            return await aio.receive(self._handle, max_bytes, _deadline(timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*."""
        with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError):
            await aio.bsend(self._handle, buffer, _deadline(timeout))

    async def aclose(self) -> None:
        """Close hard, as `HttpStream.close`."""
        _close(self._handle)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Never:
        """Refuse TLS."""
        _refuse_tls(self._handle)

    def get_extra_info(self, info: str) -> object:
        """As `HttpStream.get_extra_info`."""
        return _is_readable(self._handle) if info == "is_readable" else None


def _deadline(timeout: float | None) -> int:
    return umbel.FOREVER if timeout is None else umbel.within(timeout)


@contextmanager
def _as_httpcore(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Raise httpcore's errors in the place of umbel's."""
    try:
        yield
    except umbel.DeadlineError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error


def _close(handle: umbel.StreamHandle | aio.AsyncStreamHandle) -> None:
    try:
        umbel.hclose(handle)
    except umbel.BadHandleError:
        pass  # closed before: httpcore may do it twice


def _is_readable(handle: umbel.StreamHandle | aio.AsyncStreamHandle) -> bool:
    try:
        fd = handle.fileno()
    except umbel.BadHandleError:
        return True  # closed by others: as httpcore's own, which the pool then drops
    except umbel.UmbelError:
        return False  # it has none: the next request will tell
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _refuse_tls(handle: umbel.StreamHandle | aio.AsyncStreamHandle) -> Never:
    _close(handle)  # the pool has no use for it, and does not close it
    message = "HTTP over umbel is spoken in the clear: use a URL of http://"
    raise httpcore.UnsupportedProtocol(message)
