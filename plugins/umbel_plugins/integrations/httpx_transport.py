"""httpx over umbel: transports for its clients.

    with httpx.Client(transport=UmbelTransport("ipc:/run/app.sock")) as client:
        client.get("http://localhost/")

They are built on `httpcore_backend`: see there. `AsyncUmbelTransport` is for
`httpx.AsyncClient`, in asyncio and trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import cast, final

from umbel import Address

try:
    import httpx
except ImportError as error:
    message = f"HTTP needs httpx ({error}): pip install 'umbel[integrations]'"
    raise ImportError(message) from error

import httpcore  # httpx brings it

from umbel_plugins.integrations.httpcore_backend import AsyncUmbelBackend, UmbelBackend

#: As httpx's own clients have them.
LIMITS = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0
)


@final
class UmbelTransport(httpx.BaseTransport):
    """Sends the requests of an `httpx.Client` to *address*.

    Args:
        address: of the server, such as "ipc:/run/app.sock".
        limits: of the connections; `httpx.Client(limits=…)` has no effect on them.
        **options: of umbel's transport, for each connect.
    """

    def __init__(
        self,
        address: str | Address,
        *,
        limits: httpx.Limits = LIMITS,
        **options: object,
    ) -> None:
        self._pool = httpcore.ConnectionPool(
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=UmbelBackend(address, **options),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; give the response once its head is there."""
        with _as_httpx():
            response = self._pool.handle_request(_to_httpcore(request))
        return _to_httpx(response, _Body(response))

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


@final
class AsyncUmbelTransport(httpx.AsyncBaseTransport):
    """As `UmbelTransport`, for an `httpx.AsyncClient` in asyncio or trio."""

    def __init__(
        self,
        address: str | Address,
        *,
        limits: httpx.Limits = LIMITS,
        **options: object,
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=AsyncUmbelBackend(address, **options),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; give the response once its head is there."""
        with _as_httpx():
            response = await self._pool.handle_async_request(_to_httpcore(request))
        return _to_httpx(response, _AsyncBody(response))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


@final
class _Body(httpx.SyncByteStream):
    """What a response goes on with after its head."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._response.iter_stream()

    def close(self) -> None:
        with _as_httpx():
            self._response.close()


@final
class _AsyncBody(httpx.AsyncByteStream):
    """As `_Body`."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._response.aiter_stream():
                yield part

    async def aclose(self) -> None:
        with _as_httpx():
            await self._response.aclose()


def _to_httpcore(request: httpx.Request) -> httpcore.Request:
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def _to_httpx(
    response: httpcore.Response, body: httpx.SyncByteStream | httpx.AsyncByteStream
) -> httpx.Response:
    return httpx.Response(
        status_code=response.status,
        headers=response.headers,
        stream=body,
        extensions=response.extensions,
    )


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpx's errors in the place of httpcore's."""
    try:
        yield
    except Exception as error:
        found = getattr(httpx, type(error).__name__, None)
        if not type(error).__module__.startswith("httpcore") or found is None:
            raise
        twin = cast("type[httpx.TransportError]", found)  # both name them alike
        raise twin(str(error)) from error
