"""A stream as an anyio byte stream, on both asyncio and trio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, final

try:
    import anyio
    from anyio.abc import ByteStream, SocketAttribute
    from anyio.lowlevel import checkpoint_if_cancelled
except ImportError as error:  # pragma: no cover - tests have it
    message = "umbel.bridges.as_anyio_stream needs anyio: pip install 'umbel[anyio]'"
    raise ImportError(message) from error

from umbel.aio.handle import close
from umbel.aio.receiving import receive
from umbel.aio.sending import bsend, done
from umbel.aio.stream import AsyncStreamHandle
from umbel.bridges.names import names_of
from umbel.deadline import check_seconds, within
from umbel.errors import (
    BadHandleError,
    BusyError,
    EndOfStreamError,
    NotSupportedError,
)
from umbel.handle import CLOSE_GRACE, hclose_if_open, hown, open_handles, recast
from umbel.streams.connection import Connection, find_connection
from umbel.values.address import Address
from umbel.values.peer import PeerIdentity

if TYPE_CHECKING:
    from umbel.aio.stream import AnyStream

#: What anyio's own streams ask for.
DEFAULT_SIZE: Final = 65536


@final
class UmbelAttribute(anyio.TypedAttributeSet):
    """What `extra` of an anyio stream over umbel knows.

    Attributes:
        handle: the stream's.
        address: where it was connected, or accepted.
        peer: who is at the other end, where the kernel tells.
    """

    handle: AsyncStreamHandle = anyio.typed_attribute()
    address: Address = anyio.typed_attribute()
    peer: PeerIdentity = anyio.typed_attribute()


def as_anyio_stream(handle: AnyStream, *, grace: float = CLOSE_GRACE) -> AnyioStream:
    """Turn a stream into an `anyio.abc.ByteStream`.

    Its errors are anyio's. `stream.extra(UmbelAttribute.peer)` gives what umbel knows.

    Args:
        handle: a byte stream. Taken over: the anyio stream owns it.
        grace: seconds that `aclose`, which closes in good order, may take.

    Returns:
        the anyio stream.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is no byte stream.
        ValueError: *grace* is negative.

    Source:
        own; anyio's SocketStream.
    """
    check_seconds(grace, "grace")
    find_connection(handle)  # ENOTSUP
    return AnyioStream(recast(hown(handle), AsyncStreamHandle), grace)


@final
class AnyioStream(ByteStream):
    """An anyio stream over an umbel stream; made by `as_anyio_stream`."""

    def __init__(self, handle: AsyncStreamHandle, grace: float) -> None:
        self._handle = handle
        connection = find_connection(handle)
        #: By attribute, what `extra` gives; None: there is no such attribute now.
        local, remote = names_of(connection)
        self._extras: dict[object, Callable[[], object | None]] = {
            UmbelAttribute.handle: lambda: handle,
            UmbelAttribute.address: lambda: connection.address,
            UmbelAttribute.peer: lambda: _peer_of(connection),
            SocketAttribute.local_address: lambda: local,
            SocketAttribute.remote_address: lambda: remote,
        }
        self._grace = grace

    async def receive(self, max_bytes: int = DEFAULT_SIZE) -> bytes:
        """As `ByteReceiveStream.receive`."""
        if max_bytes < 1:
            message = f"max_bytes is {max_bytes}: give 1 or more"
            raise ValueError(message)  # as anyio's own
        await checkpoint_if_cancelled()
        with _as_anyio("receiving"):
            data = await receive(self._handle, max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """As `ByteSendStream.send`."""
        await checkpoint_if_cancelled()
        with _as_anyio("sending"):
            await bsend(self._handle, item)

    async def send_eof(self) -> None:
        """As `ByteStream.send_eof`. A second call has no effect."""
        with _as_anyio("sending"):
            try:
                await done(self._handle)
            except EndOfStreamError:
                pass  # anyio's own take it as done

    async def aclose(self) -> None:
        """As `AsyncResource.aclose`: in good order, hard if canceled."""
        try:
            if self._handle in open_handles:
                await close(self._handle, within(self._grace))
        except OSError:
            pass  # the peer went away, or stays: closed all the same
        finally:
            hclose_if_open(self._handle)

    @property  # as anyio declares it
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """As `TypedAttributeProvider.extra_attributes`."""
        return _Extras(self._extras)


@final
class _Extras(Mapping[Any, Callable[[], Any]]):
    """The attributes that a stream has at this moment.

    anyio asks the mapping alone whether there is one, so that each is found as it is
    looked up. Not earlier: a peer that is found costs a descriptor.
    """

    def __init__(self, finders: dict[object, Callable[[], object | None]]) -> None:
        self._finders = finders

    def __getitem__(self, attribute: object) -> Callable[[], object]:
        found = self._finders[attribute]()
        if found is None:
            raise KeyError(attribute)
        return lambda: found

    def __iter__(self) -> Iterator[object]:
        return (attribute for attribute in self._finders if attribute in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _peer_of(connection: Connection) -> PeerIdentity | None:
    try:
        return connection.query(PeerIdentity)
    except OSError:
        return None  # it was closed


@contextmanager
def _as_anyio(what: str) -> Iterator[None]:
    """Raise anyio's errors in the place of umbel's."""
    try:
        yield
    except BadHandleError as error:
        raise anyio.ClosedResourceError from error
    except BusyError as error:
        raise anyio.BusyResourceError(what) from error
    except EndOfStreamError as error:
        # Only sending meets it: our direction was ended, or closed.
        raise anyio.ClosedResourceError from error
    except NotSupportedError:
        raise  # as anyio has none for what a stream can't do
    except OSError as error:
        raise anyio.BrokenResourceError from error
